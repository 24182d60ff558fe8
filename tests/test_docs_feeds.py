"""The examples of the docs that publish in or read a channel: cron jobs, a dashboard, a device."""

import http.server
import json
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.live.devtools import CHROMIUM, browser
from tests.live.programs import PATIENCE, ROOT, Cable, Process, Server

EXAMPLES = ROOT / "docs" / "examples"
#: What the pages of a dashboard show: how many values its line has.
POINTS = 'document.getElementById("line").points.length'
STATE = 'document.getElementById("state").textContent'
NOW = 'document.getElementById("now").textContent'


class FeedCase(SynchronousTestCase):
    timeout = 120

    def serve(self) -> Server:
        server = Server()
        self.addCleanup(server.clean_up)
        return server

    def cable(self, server: Server) -> Cable:
        cable = Cable(lambda: server.port)
        self.addCleanup(cable.stop)
        return cable

    def folder(self) -> Path:
        path = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return Path(path)

    def listener(self, server: Server, channel: str) -> Any:
        """A chat client in a channel, as a file of the lines that it receives."""
        client = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        self.addCleanup(client.close)
        lines = client.makefile("rwb", buffering=0)
        self.addCleanup(lines.close)
        lines.write(f"/join {channel}\nping\n".encode())
        self.assertEqual(lines.readline(), b"pong\r\n")
        return lines


class CrontabTests(FeedCase):
    def test_jobs(self) -> None:
        """Run each job as cron does: its line with `\\%` read as `%` (crontab(5)), a short PATH, the variables."""
        if not shutil.which("curl", path="/usr/bin:/bin"):
            raise SkipTest("needs curl")
        server = self.serve()
        heard = {each: self.listener(server, each) for each in ("ops", "disks")}
        folder = self.folder()
        program = shlex.join([sys.executable, "-c", "import longconn.cli; longconn.cli.main()"])
        text = (EXAMPLES / "longconn.crontab").read_text().replace("9999", str(server.port))
        lines = [each for each in text.splitlines() if each and not each.startswith("#")]
        variables = dict(each.split("=", 1) for each in lines if not each.startswith(tuple("*0123456789")))
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(ROOT)} | variables
        jobs = [each for each in lines if each.startswith(tuple("*0123456789"))]
        for each in jobs:
            self.assertNotRegex(each, r"(?<!\\)%")
            command = each.split(None, 5)[5].replace(r"\%", "%")
            self.assertTrue("/opt/backup.sh" in command or "/opt/longconn/bin/longconn" in command, command)
            command = command.replace("/opt/longconn/bin/longconn", program).replace("/opt/backup.sh", "(exit 3)")
            done = subprocess.run(
                [variables["SHELL"], "-c", command], env=environ, cwd=folder, capture_output=True, timeout=PATIENCE
            )
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))  # cron would mail any output
        self.assertEqual(heard["ops"].readline(), b"backup: exit status 3\r\n")
        name, _, value = heard["disks"].readline().decode().partition(": ")
        self.assertEqual(name, "df")
        self.assertEqual({key: type(each) for key, each in json.loads(value).items()}, {"disk": str, "free_kib": int})


class DeviceTests(FeedCase):
    def start(self, port: int, settings: str = "") -> Process:
        """Start the device on a faster clock."""
        script = f"import device; {settings}; device.Device('127.0.0.1', {port}, 'lamp-7').run()"
        device = Process([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); {script}"])
        self.addCleanup(device.stop)
        return device

    def test_reconnects(self) -> None:
        """After a lost connection the device takes its name as soon as it is free, and keeps its lamp's state."""
        server = self.serve()
        cable = self.cable(server)
        heard = self.listener(server, "lamp-7")
        device = self.start(cable.port, "device.EVERY = 0.3; device.LONGEST_PAUSE = 0.2")
        self._until(heard, b'lamp-7: {"temperature":21.5,"lamp":false}')
        heard.write(b"lamp on\n")
        self.assertEqual(device.line(), "lamp on")
        self._until(heard, b'lamp-7: {"lamp":true}')
        cable.cut()
        self.assertRegex(device.line(), "^no connection: ")
        self._until(heard, b"* lamp-7 left")
        # Messages that it does not read are lost: chat lines have no positions.
        heard.write(b"lamp off\n")
        # The device asks for a taken name again with each value.
        other = self.listener(server, "elsewhere")
        other.write(b"/nick lamp-7\n")
        self._until(other, b"is now lamp-7")
        cable.mend()
        while (line := device.line()) != "! the name lamp-7 is taken":
            self.assertRegex(line, "^no connection: ")
        other.write(b"/nick other\n")
        self._until(heard, b'lamp-7: {"temperature":21.5,"lamp":true}')

    def test_lines_that_are_not_commands(self) -> None:
        """The device ignores a line that is too long, in any segments, and text that only looks like a command."""
        server = self.serve()
        heard = self.listener(server, "lamp-7")
        device = self.start(server.port, "device.EVERY = 0.3")
        self._until(heard, b"lamp-7: ")
        for each in ("x" * 1013 + "\N{EURO SIGN}" * 3000 + "ann: lamp on", "! lamp on\nann: lamp on", "lamp on please"):
            server.publish("lamp-7", each)
        heard.write(b"lamp off\n")
        self.assertEqual(device.line(), "lamp off")

    def test_dead_server(self) -> None:
        """If no byte comes any more, not even a pong, the device closes the connection."""
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        device = self.start(silent.getsockname()[1], "device.EVERY = 0.1; device.SILENCE = 0.3")
        self.assertEqual(device.line(), "no connection: no answer")

    def _until(self, client: Any, text: bytes) -> None:
        seen = []
        while len(seen) < 50 and (line := client.readline()):
            if text in line:
                return
            seen.append(line)
        self.fail(f"{text!r} is not in {seen!r}")


class Files(http.server.SimpleHTTPRequestHandler):
    """A web server for the files of a folder."""

    def log_message(self, *arguments: Any) -> None:
        pass


class Refusing(Files):
    """Answers as a proxy whose server is starting. `asked` is set by a request."""

    def __init__(self, asked: threading.Event, *arguments: Any) -> None:
        self.asked = asked
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.send_error(502)
        self.asked.set()


class DashboardTests(FeedCase):
    def test_feeder(self) -> None:
        """The feeder continues after a restart of the server, and ends after a final error."""
        server = self.serve()
        feeder = self._feed(f"tcp://127.0.0.1:{server.port}")
        self.assertEqual(feeder.line(), "connected")
        server.stop()
        line = feeder.line()
        if "shutting down" in line:  # the server stopped in the moment in which the feeder published
            line = feeder.line()
        self.assertRegex(line, "^reconnecting ")
        server.start()
        heard = self.listener(server, "load")
        self.assertRegex(heard.readline(), rb'^127\.0\.0\.1:\d+: \{"one":\d.*,"five":\d.*,"fifteen":\d')
        lost = self._feed(f"http://127.0.0.1:{server.port}/nowhere")
        with self.assertRaises(EOFError):
            for _ in range(10):
                lost.line()
        self.assertEqual(lost.seen[-1], "there is nothing at this path (404)")

    def test_page(self) -> None:
        """The page shows kept values, then live ones, also after a lost connection. Its origin is another one."""
        if CHROMIUM is None:
            raise SkipTest("no Chromium is installed (chromium, chromium-browser, google-chrome)")
        server = self.serve()
        ways = [lambda: server.port]
        cable = Cable(lambda: ways[-1]())
        self.addCleanup(cable.stop)
        page = self._open(cable.port, server)
        page.until(STATE, "live")
        page.until(POINTS, 2)
        page.until(NOW, "2.00")
        cable.cut()
        page.until(STATE, "no connection; trying again")
        self._values(server, 3, 4)
        cable.mend()
        page.until(POINTS, 4)  # no value is missing or doubled
        page.until(NOW, "4.00")
        page.until(STATE, "live")
        # After an error response the browser gives up, and the page continues from its position.
        page.evaluate("""
            const later = setTimeout;
            window.setTimeout = (act) => later(act, 100);
            window.EventSource = class extends EventSource { constructor(url) { super(window.opened = url); } };
        """)
        asked = threading.Event()
        refusing = self._pages(partial(Refusing, asked))
        ways.append(lambda: refusing)
        cable.cut()
        page.until(STATE, "no connection; trying again")
        self._values(server, 5)
        cable.mend()
        self.assertTrue(asked.wait(PATIENCE))
        ways.pop()
        page.until(POINTS, 5)
        page.until(NOW, "5.00")
        self.assertRegex(page.evaluate("window.opened"), r"\?since=[\w-]{11}:4$")
        # A restarted server has other values.
        server.restart()
        self._values(server, 9)
        page.until(NOW, "9.00")
        page.until(POINTS, 1)

    def _feed(self, url: str) -> Process:
        feeder = Process([sys.executable, str(EXAMPLES / "feeder.py"), url, "load"])
        self.addCleanup(feeder.stop)
        return feeder

    def _values(self, server: Server, *values: float) -> None:
        server.publish("load", *({"one": each} for each in values))

    def _open(self, port: int, server: Server) -> Any:
        folder = self.folder()
        text = (EXAMPLES / "dashboard.html").read_text()
        self.assertIn("http://localhost:9999/", text)
        (folder / "dashboard.html").write_text(text.replace("localhost:9999", f"localhost:{port}"))
        self._values(server, 1, 2)
        chromium = browser()
        self.addCleanup(chromium.forget)
        return chromium.page(f"http://localhost:{self._pages(partial(Files, directory=str(folder)))}/dashboard.html")

    def _pages(self, serve: Any) -> int:
        """Start another web server, and return its port."""
        pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
        thread = threading.Thread(target=pages.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(pages.server_close)
        self.addCleanup(pages.shutdown)
        return int(pages.server_address[1])
