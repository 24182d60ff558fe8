"""The server as a process: its output, its exit status, and signals."""

import os
import queue
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import longconn
from longconn.cli import COMMANDS
from longconn.core.settings import OPTIONS
from tests.live import forks

#: The three commands that run the server.
TWISTD = ("-c", "from twisted.scripts.twistd import run; run()", "-n", "longconn")
TWIST = ("-m", "twisted", "longconn")
SERVE = ("-c", "import sys; from longconn.cli import main; sys.exit(main())", "serve")
LONGCONN = SERVE[:-1]
#: Seconds after which a program that does not say or do what it should is ended.
PATIENCE = 20


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def start(self, *arguments: str, **options: Any) -> Any:
        """A program of LONGCONN is forked, unless an option is about the start of a process; others are started."""
        environ = {each: os.environ[each] for each in os.environ if not each.startswith("LONGCONN_")}
        environ["PYTHONPATH"] = os.pathsep.join(
            [str(Path(longconn.__file__).parents[1]), *filter(None, [environ.get("PYTHONPATH")])]
        )
        environ.update(options.pop("environ", {}))
        program: Any
        if arguments[: len(LONGCONN)] == LONGCONN and not options:
            script = ["longconn", *arguments[len(LONGCONN) :]]
            program = forks.Program("longconn.cli:main", script, self.folder, environ, stderr=True)
        else:
            program = subprocess.Popen(
                [sys.executable, *arguments], cwd=self.folder, env=environ, text=True, encoding="utf-8",
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
            )  # fmt: skip
        self.addCleanup(self.end, program)
        return program

    def end(self, program: Any) -> None:
        program.kill()
        program.communicate()

    def run_to_its_end(self, *arguments: str, **options: Any) -> tuple[int, str, str]:
        program = self.start(*arguments, **options)
        out, err = program.communicate(timeout=PATIENCE)
        return program.returncode, out, err

    def assert_one_line(self, line: str, *arguments: str, expected: int = 1, **options: Any) -> None:
        """Assert that the program ends with the `expected` status, and that stderr is `line` alone."""
        status, out, err = self.run_to_its_end(*arguments, **options)
        self.assertEqual((status, err), (expected, line + "\n"))
        self.assertNotIn("Traceback", out)
        self.assertNotIn("Options:", out)
        self.assertEqual([each.name for each in self.folder.glob("*.pid")], [])


class Running:
    """A running program and its lines on stdout."""

    def __init__(self, program: Any) -> None:
        self.program = program
        self.seen: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.program.stdout:
            self._lines.put(line)
        self._lines.put("")

    def reads(self, text: str) -> str:
        """The next line that contains `text`."""
        line = "…"
        while line:
            try:
                line = self._lines.get(timeout=PATIENCE)
            except queue.Empty:
                break
            self.seen.append(line)
            if text in line:
                return line
        raise AssertionError(f"no {text!r} in {self.seen}")

    def serves(self) -> socket.socket:
        """A connection that was served: the reactor runs then, and handles signals."""
        where = self.reads("listening on ").partition("listening on 127.0.0.1:")[2].partition(":")[0]
        peer = socket.create_connection(("127.0.0.1", int(where)), PATIENCE)
        peer.sendall(b"ping\n")
        assert peer.recv(100).strip() == b"pong"
        return peer


def handle_sigint() -> None:
    """Restore the default action of a signal: the test runner's children may ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class ErrorTests(Case):
    def test_a_taken_port(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            where = f"127.0.0.1:{taken.getsockname()[1]}"
            line = f"longconn: cannot listen on {where} (--port): taken; another process listens there"
            for program in (TWISTD, TWIST, SERVE):
                self.assert_one_line(line, *program, f"--port={where}")

    def test_a_daemon_reports_an_error_before_it_goes_to_the_background(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            where = f"127.0.0.1:{taken.getsockname()[1]}"
            status, _, err = self.run_to_its_end(*TWISTD[:2], "longconn", f"--port={where}")
        self.assertEqual(status, 1)
        self.assertIn(f"ListenError: cannot listen on {where} (--port): taken", err)
        self.assertNotIn("Traceback", err)
        # The daemon writes its line after the parent process, which has ended here.
        line = f"longconn: cannot listen on {where} (--port): taken; another process listens there"
        end = time.monotonic() + 10
        log = ""
        while line not in log and time.monotonic() < end:
            log = (self.folder / "twistd.log").read_text()
        self.assertIn(line, log)
        self.assertNotIn("Traceback", log)

    def test_bad_options(self) -> None:
        line = "longconn: flag --locale: 'fr' is not valid; allowed: en or zh"
        for program in (TWISTD, TWIST, SERVE):
            self.assert_one_line(line, *program, "--locale=fr")
        unknown = "longconn: unknown flag --max-mesage; did you mean --max-message?"
        self.assert_one_line(unknown, *TWISTD, "--max-mesage=1")

    def test_bad_values_of_other_sources(self) -> None:
        (self.folder / "live.toml").write_text("max_mesage = 1")
        self.assert_one_line(
            "longconn: file live.toml: unknown key 'max_mesage'; did you mean max_message?",
            *SERVE, "--config=live.toml",
        )  # fmt: skip
        self.assert_one_line(
            "longconn: environment LONGCONN_MAX_HEAD: '1' is not valid; allowed: bytes from 512, or 64KiB, 1MiB, 1G",
            *TWISTD, environ={"LONGCONN_MAX_HEAD": "1"},
        )  # fmt: skip


class ServingTests(Case):
    def test_serves_where_it_says(self) -> None:
        for program in (TWISTD, SERVE):
            running = Running(self.start(*program, "--port=127.0.0.1:0"))
            with running.serves() as peer:
                running.program.send_signal(signal.SIGTERM)
                while peer.recv(1000):  # until the server closes it
                    pass
            # twistd ends with the signal that stopped it
            self.assertEqual(running.program.wait(PATIENCE), -signal.SIGTERM)
            self.assertEqual(running.program.stderr.read(), "")

    def test_serve_leaves_no_pid_file(self) -> None:
        running = Running(self.start(*SERVE, "--port=127.0.0.1:0"))
        running.reads("listening on ")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_second_signal_ends_it_at_once(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            options = ("--port=127.0.0.1:0", "--shutdown-delay=1h")
            running = Running(self.start(*SERVE, *options, preexec_fn=handle_sigint))
            with running.serves():
                running.program.send_signal(number)
                running.reads("not ready; serving for 3600 s more")
                running.program.send_signal(number)
                running.reads("stopping at once")
            self.assertEqual(running.program.wait(PATIENCE), -number)
            running.reads("Server Shut Down")
            self.assertNotIn("ReactorNotRunning", "".join(running.seen))

    def test_the_open_file_limit(self) -> None:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 300))

        running = Running(self.start(*SERVE, "--port=127.0.0.1:0", preexec_fn=limit))
        running.reads("at most 200 clients: the open-file limit leaves room for no more (max_connections is 20000)")
        soft = Path(f"/proc/{running.program.pid}/limits")
        if soft.exists():
            self.assertIn("300", soft.read_text().partition("Max open files")[2].split()[0])


class ConsoleScriptTests(Case):
    def test_config_prints_values_and_their_sources(self) -> None:
        (self.folder / "live.toml").write_text("history_size = 7")
        status, out, err = self.run_to_its_end(
            *LONGCONN, "config", "--config=live.toml", "--http=[::1]:80", environ={"LONGCONN_LOCALE": "zh"}
        )
        self.assertEqual((status, err), (0, ""))
        self.assertIn("history_size = 7  # file live.toml key history_size\n", out)
        self.assertIn('locale = "zh"  # environment LONGCONN_LOCALE\n', out)
        self.assertIn('http = ["[::1]:80"]  # flag --http\n', out)
        # TOML has no null: an option that is not set is a comment.
        valued = [name for name, option in OPTIONS.items() if option.default is not None]
        self.assertEqual(list(tomllib.loads(out)), ["port", "tcp", "http", "grpc", "admin", *valued])

    def test_config_refuses_in_one_line(self) -> None:
        line = "longconn: flag --names: 'x' is not valid; allowed: auto or address or guest"
        self.assert_one_line(line, *LONGCONN, "config", "--names=x")

    def test_version_and_help(self) -> None:
        for arguments in (["--version"], ["serve", "--version"]):
            status, out, err = self.run_to_its_end(*LONGCONN, *arguments)
            self.assertEqual((status, out, err), (0, f"longconn {longconn.__version__}\n", ""))
        status, out, _ = self.run_to_its_end(*LONGCONN, "--help")
        self.assertEqual(status, 0)
        self.assertIn("serve", out)
        status, out, _ = self.run_to_its_end(*LONGCONN, "serve", "--help")
        self.assertEqual(status, 0)
        self.assertTrue(out.startswith("Usage: longconn serve [options]\n"), out)

    def test_unknown_command(self) -> None:
        self.assert_one_line("longconn: unknown command 'sevre'; did you mean serve?", *LONGCONN, "sevre", expected=2)
        self.assert_one_line("longconn: unknown command 'sbu'; did you mean sub?", *LONGCONN, "help", "sbu", expected=2)

    def test_the_help_of_a_command(self) -> None:
        for command in COMMANDS:
            texts = [self.run_to_its_end(*LONGCONN, *each) for each in (("help", command), (command, "--help"))]
            self.assertEqual(texts[0], texts[1])
            self.assertEqual(texts[0][0], 0, command)


class ImportTests(Case):
    """An embedding program chooses the reactor, so no import may install one."""

    def imported(self, statement: str) -> list[str]:
        code = f"import sys; {statement}; print(*sys.modules)"
        status, out, err = self.run_to_its_end("-c", code)
        self.assertEqual((status, err), (0, ""))
        return out.split()

    def test_import_longconn_brings_little(self) -> None:
        modules = self.imported("import longconn")
        self.assertEqual([each for each in modules if each.startswith(("twisted", "autobahn", "longconn."))], [])

    def test_no_module_imports_the_reactor(self) -> None:
        root = Path(longconn.__file__).parent
        names = [".".join(("longconn", *each.relative_to(root).with_suffix("").parts)) for each in root.rglob("*.py")]
        names = sorted(each.removesuffix(".__init__") for each in names)
        self.assertGreater(len(names), 10)
        modules = self.imported(f"import {', '.join(names)}")
        self.assertEqual(set(names) - set(modules), set())
        self.assertNotIn("twisted.internet.reactor", modules)

    def test_public_names(self) -> None:
        self.assertEqual(
            set(longconn.__all__),
            {"ChatFactory", "ChatProtocol", "Data", "GrpcCall", "GrpcFactory", "HookDisconnectError",
             "HookRefusalError", "HookReply", "HookRequest", "Hooks", "Hub", "Info", "LiveResource",
             "LiveSite", "LocalMember", "LongConnService", "ServerAPI", "Services", "Settings", "SharedPortFactory",
             "StatusCode", "StatusError", "WebSocketFactory", "__version__", "program_hooks"},
        )  # fmt: skip
        for name in longconn.__all__:
            self.assertIsNotNone(getattr(longconn, name))
            self.assertIn(name, dir(longconn))
        self.assertRaises(AttributeError, getattr, longconn, "hub")
