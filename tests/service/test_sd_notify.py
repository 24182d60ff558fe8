"""What systemd is told: over a real socket in a folder, by the class and by a server process."""

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from longconn import LongConnService, Settings
from longconn.service import logs
from longconn.service.sd_notify import VARIABLES, SdNotify, take_variables
from longconn.testing import FakeClock
from tests.live import forks
from tests.live.certificates import write_certificate

PATIENCE = 20.0


class Manager:
    """Systemd's end of the socket."""

    def __init__(self, folder: str, name: str = "notify") -> None:
        self.address = name if name.startswith("@") else f"{folder}/{name}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if name.startswith("@") else self.address)
        self.socket.setblocking(False)

    def read(self) -> list[str]:
        """All that came so far."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def wait(self) -> str:
        """The next message."""
        if not select.select([self.socket], [], [], PATIENCE)[0]:
            raise AssertionError("systemd is told nothing")
        return self.socket.recv(4096).decode()

    def close(self) -> None:
        self.socket.close()
        if not self.address.startswith("@"):
            Path(self.address).unlink(missing_ok=True)


class SystemdCase(SynchronousTestCase):
    def setUp(self) -> None:
        # Not mktemp(): the path of a socket has at most about 100 bytes.
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.clock = FakeClock()
        logs.attach()
        self.addCleanup(logs.detach)

    def manager(self, **options: Any) -> Manager:
        manager = Manager(self.folder, **options)
        self.addCleanup(manager.close)
        return manager

    def notify(self, **variables: str) -> SdNotify:
        notify = SdNotify(self.clock, variables)
        self.addCleanup(notify.stop)
        return notify


class SdNotifyTests(SystemdCase):
    def test_the_states_in_their_order(self) -> None:
        manager = self.manager()
        notify = self.notify(NOTIFY_SOCKET=manager.address)
        self.assertEqual(manager.read(), [])
        notify.ready("listening on unix:/a\nb")
        notify.reloading()
        notify.reloaded()
        notify.stopping("clients: 3")
        self.assertEqual(
            [each for each in manager.read() if "RELOADING" not in each],
            ["READY=1\nSTATUS=listening on unix:/a b", "READY=1", "STOPPING=1\nSTATUS=clients: 3"],
        )
        self.clock.advance(60)
        self.assertEqual(manager.read(), [])

    def test_a_reload_has_the_time_of_its_begin(self) -> None:
        manager = self.manager()
        notify = self.notify(NOTIFY_SOCKET=manager.address)
        before = time.monotonic_ns() // 1_000
        notify.reloading()
        (message,) = manager.read()
        state, _, moment = message.partition("\nMONOTONIC_USEC=")
        self.assertEqual(state, "RELOADING=1")
        self.assertTrue(before <= int(moment) <= time.monotonic_ns() // 1_000)

    def test_no_reload_makes_a_stopping_server_ready(self) -> None:
        manager = self.manager()
        notify = self.notify(NOTIFY_SOCKET=manager.address)
        notify.stopping("1")
        notify.stopping("2")
        notify.reloading()
        notify.reloaded()
        self.assertEqual(manager.read(), ["STOPPING=1\nSTATUS=1"])

    def test_an_abstract_socket(self) -> None:
        manager = self.manager(name=f"@longconn-test-{os.getpid()}")
        self.notify(NOTIFY_SOCKET=manager.address).ready("here")
        self.assertEqual(manager.read(), ["READY=1\nSTATUS=here"])

    def test_without_the_variable_nothing_happens(self) -> None:
        for variables in ({}, {"NOTIFY_SOCKET": ""}, {"WATCHDOG_USEC": "1000000"}):
            notify = self.notify(**variables)
            with capturedLogs() as lines:
                notify.ready("here")
                notify.reloading()
                notify.reloaded()
                notify.stopping("now")
            self.assertEqual((self.clock.getDelayedCalls(), notify._socket, lines), ([], None, []))

    def test_the_watchdog_is_fed_at_half_its_time_until_the_stop_is_over(self) -> None:
        manager = self.manager()
        notify = self.notify(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid()))
        self.clock.advance(10)
        notify.ready("here")
        self.assertEqual(manager.read(), ["READY=1\nSTATUS=here"])
        self.clock.advance(1.4)
        self.assertEqual(manager.read(), [])
        self.clock.advance(0.1)
        self.assertEqual(manager.read(), ["WATCHDOG=1"])
        self.clock.pump([1.5] * 4)
        self.assertEqual(manager.read(), ["WATCHDOG=1"] * 4)
        notify.stopping("now")
        self.clock.advance(1.5)
        self.assertEqual(manager.read(), ["STOPPING=1\nSTATUS=now", "WATCHDOG=1"])
        notify.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_watchdog_of_another_process_or_without_a_time_is_not_fed(self) -> None:
        manager = self.manager()
        for variables in (
            {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "-1"},
            {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_PID": str(os.getpid())},
        ):  # fmt: skip
            notify = self.notify(NOTIFY_SOCKET=manager.address, **variables)
            notify.ready("here")
            self.assertEqual(self.clock.getDelayedCalls(), [], variables)
        self.notify(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="3000000").ready("here")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_a_socket_that_is_not_there_is_logged_once_and_works_when_it_comes(self) -> None:
        notify = self.notify(NOTIFY_SOCKET=f"{self.folder}/notify", WATCHDOG_USEC="2000000")
        with capturedLogs() as lines:
            notify.ready("here")
            self.clock.pump([1] * 3)
            notify.reloading()
        self.assertEqual([f"NOTIFY_SOCKET {self.folder}/notify: " in each["text"] for each in lines], [True])
        manager = self.manager()
        self.clock.advance(1)
        self.assertEqual(manager.read(), ["WATCHDOG=1"])

    def test_addresses_that_are_none_are_logged_once(self) -> None:
        folder = Path(self.folder, "folder")
        folder.mkdir()
        for address in ("x" * 200, "a\0b", str(folder), "vsock:2:1234"):
            with capturedLogs() as lines:
                notify = self.notify(NOTIFY_SOCKET=address)
                notify.ready("here")
                notify.stopping("now")
            self.assertEqual(len(lines), 1, address)

    def test_a_dead_socket_is_logged_once(self) -> None:
        manager = self.manager()
        notify = self.notify(NOTIFY_SOCKET=manager.address)
        manager.socket.close()  # its path stays
        with capturedLogs() as lines:
            notify.ready("here")
            notify.stopping("now")
        self.assertEqual(len(lines), 1)

    def test_no_open_file_left(self) -> None:
        manager = self.manager()

        def refuse(*arguments: Any) -> Any:
            raise OSError(24, "Too many open files")

        with capturedLogs() as lines:
            made = socket.socket
            self.patch(socket, "socket", refuse)
            notify = self.notify(NOTIFY_SOCKET=manager.address)
            notify.ready("here")
            self.patch(socket, "socket", made)
            notify.stopping("now")
        self.assertEqual(len(lines), 1)
        self.assertEqual(manager.read(), ["STOPPING=1\nSTATUS=now"])

    def test_what_finds_no_room_is_sent_later_and_a_beat_is_not(self) -> None:
        manager = self.manager()
        notify = self.notify(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="100000")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            try:
                while True:
                    other.sendto(b"STATUS=of another", manager.address)
            except BlockingIOError:
                pass
            with capturedLogs() as lines:
                notify.ready("here")
                self.clock.pump([0.05] * 4)
                notify.stopping("now")
                self.clock.pump([0.05] * 4)
            self.assertEqual(lines, [])
            self.assertEqual(set(manager.read()), {"STATUS=of another"})
        self.clock.advance(0.1)
        self.assertEqual(manager.read()[:2], ["READY=1\nSTATUS=here", "STOPPING=1\nSTATUS=now"])

    def test_what_waits_is_bounded(self) -> None:
        notify = self.notify(NOTIFY_SOCKET=f"{self.folder}/notify")
        notify._send = lambda message: False  # type: ignore[method-assign]
        for _ in range(1_000):
            notify.reloading()
            notify.reloaded()
        self.assertEqual(len(notify._waiting), 20)

    def test_children_do_not_have_the_variables(self) -> None:
        os.environ.update(dict.fromkeys(VARIABLES, "1"))
        self.addCleanup(take_variables)
        self.assertEqual(take_variables(), dict.fromkeys(VARIABLES, "1"))
        program = f"import os, sys; sys.exit(str({{*{VARIABLES!r}}} & set(os.environ) or ''))"
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        self.assertEqual(ended.stderr.strip(), "")
        self.assertEqual(take_variables(), {})


class NotifyingProcessTests(SystemdCase):
    """The server as a process that systemd started."""

    def start(self, manager: Manager, *options: str, **environ: str) -> Any:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("LONGCONN_", "PYTHON"))}
        environ = {**kept, "PYTHONUNBUFFERED": "1", "NOTIFY_SOCKET": manager.address, **environ}
        arguments = ["longconn", "serve", "--port=127.0.0.1:0", *options]
        program = forks.Program("longconn.cli:main", arguments, self.folder, environ)

        def end() -> None:
            program.kill()
            program.communicate()

        self.addCleanup(end)
        return program

    def port(self, message: str) -> int:
        """The port of the message that the server is ready."""
        state, _, address = message.partition("\nSTATUS=listening on 127.0.0.1:")
        self.assertEqual(state, "READY=1")
        return int(address)

    def test_ready_when_it_accepts_and_stopping_at_sigterm(self) -> None:
        manager = self.manager()
        server = self.start(manager)
        port = self.port(manager.wait())
        # Nothing is waited for: it accepts.
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            client.settimeout(PATIENCE)
            lines = client.makefile("rb")
            client.sendall(b"ping\n")
            self.assertEqual(lines.readline(), b"pong\r\n")
            server.send_signal(signal.SIGTERM)
            self.assertEqual(manager.wait(), "STOPPING=1\nSTATUS=stopping; clients: 1")
            lines.close()
        self.assertEqual(server.wait(PATIENCE), -signal.SIGTERM)  # which systemd takes for success
        self.assertEqual(manager.read(), [])

    def test_a_port_that_is_taken_is_not_ready(self) -> None:
        manager = self.manager()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            server = self.start(manager, f"--port=127.0.0.1:{taken.getsockname()[1]}")
            self.assertEqual(server.wait(PATIENCE), 1)
        self.assertEqual(manager.read(), [])

    def test_the_watchdog_is_fed_again_and_again_until_the_end(self) -> None:
        manager = self.manager()
        server = self.start(manager, WATCHDOG_USEC="40000")
        self.port(manager.wait())
        self.assertEqual([manager.wait() for _ in range(5)], ["WATCHDOG=1"] * 5)
        server.send_signal(signal.SIGSTOP)  # it hangs: after what was sent before nothing comes
        manager.read()
        self.assertEqual(select.select([manager.socket], [], [], 0.2)[0], [])
        server.send_signal(signal.SIGCONT)
        self.assertEqual(manager.wait(), "WATCHDOG=1")
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE)
        self.assertEqual({*manager.read()} - {"WATCHDOG=1"}, {"STOPPING=1\nSTATUS=stopping; clients: 0"})

    def test_a_watchdog_of_another_process(self) -> None:
        manager = self.manager()
        server = self.start(manager, WATCHDOG_USEC="20000", WATCHDOG_PID="1")
        self.port(manager.wait())
        self.assertEqual(select.select([manager.socket], [], [], 0.2)[0], [])
        server.terminate()
        self.assertTrue(manager.wait().startswith("STOPPING=1"))

    def test_sighup_is_a_reload(self) -> None:
        key, certificate = write_certificate(Path(self.folder))
        manager = self.manager()
        server = self.start(manager, f"--tls-cert={certificate}", f"--tls-key={key}")
        self.port(manager.wait())
        server.send_signal(signal.SIGHUP)
        self.assertTrue(manager.wait().startswith("RELOADING=1\nMONOTONIC_USEC="))
        self.assertEqual(manager.wait(), "READY=1")
        server.terminate()
        self.assertTrue(manager.wait().startswith("STOPPING=1"))

    def test_without_a_socket_it_serves(self) -> None:
        manager = self.manager()
        manager.close()
        server = self.start(manager, "--shutdown-timeout=1")
        while True:
            line = server.stdout.readline()
            self.assertNotEqual(line, "")
            if "systemd is not told" in line:
                break
        server.terminate()
        rest = server.communicate(timeout=PATIENCE)[0]
        self.assertEqual(rest.count("systemd"), 0)


class EmbeddedNotifyTests(SystemdCase):
    def test_an_embedding_program_tells_systemd_itself(self) -> None:
        """Its service is a part of a process, of whose state it knows nothing."""
        manager = self.manager()
        self.patch(os, "environ", {**os.environ, "NOTIFY_SOCKET": manager.address})
        service = LongConnService(MemoryReactorClock(), Settings())
        service.startService()
        self.successResultOf(service.stopService())
        self.assertEqual((os.environ["NOTIFY_SOCKET"], manager.read()), (manager.address, []))
