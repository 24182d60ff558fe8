"""The files for containers and systemd, as far as a machine without either can try them."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import longconn
from longconn.config.flags import CommandLineOptions
from longconn.core.settings import Settings
from tests.live import forks
from tests.live.certificates import write_certificate
from tests.live.programs import Server

EXAMPLES = Path(longconn.__file__).parents[1] / "docs" / "examples"
PATIENCE = 20.0
CONTAINERFILE = (EXAMPLES / "Containerfile").read_text()
COMPOSE = (EXAMPLES / "compose.yml").read_text()
UNIT = (EXAMPLES / "longconn.service").read_text()
HAPROXY = (EXAMPLES / "haproxy.cfg").read_text()


def program(name: str) -> str:
    """The path of a program. Raises SkipTest."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if found is None:
        raise SkipTest(f"needs {name}")
    return found


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Containerfile, each with its arguments."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE, flags=re.M).replace("\\\n", " ")
    found = [line.split(None, 1) for line in text.splitlines() if line]
    return [(each[0], each[1]) for each in found]


def last(name: str) -> str:
    """The arguments of the last instruction of a kind: the one that counts."""
    return [arguments for each, arguments in instructions() if each == name][-1]


def in_compose(key: str) -> Any:
    """The value of the first line with this key, a flow sequence without anything that JSON has not."""
    match = re.search(rf"^ +{key}: (\[.*\])$", COMPOSE, re.M)
    assert match is not None, key
    return json.loads(match[1])


def checks() -> list[list[str]]:
    """The commands of both health checks."""
    ours = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    first, *theirs = in_compose("test")
    assert first == "CMD"
    return [ours, theirs]


def settings_of(options: Sequence[str]) -> Settings:
    """What the server's parser makes of options; raises UsageError for one that it does not know."""
    parsed = CommandLineOptions()
    parsed.parseOptions(list(options))
    return parsed.config.settings


class ContainerFileTests(SynchronousTestCase):
    def test_its_instructions(self) -> None:
        known = {"FROM", "COPY", "RUN", "ENV", "WORKDIR", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"}
        self.assertEqual({name for name, _ in instructions()}, known | {"ENTRYPOINT", "CMD"})
        self.assertEqual(instructions()[0][0], "FROM")
        self.assertRegex(last("USER"), r"^[1-9]\d*:[1-9]\d*$")
        self.assertEqual(last("STOPSIGNAL"), "SIGTERM")

    def test_what_it_copies_is_there(self) -> None:
        for name, arguments in instructions():
            if name == "COPY" and not arguments.startswith("--from"):
                for each in arguments.split()[:-1]:
                    self.assertTrue((EXAMPLES.parents[1] / each).exists(), each)

    def test_it_copies_what_the_build_reads(self) -> None:
        copied = {each for name, arguments in instructions() if name == "COPY" for each in arguments.split()}
        setup = (EXAMPLES.parents[1] / "setup.cfg").read_text()
        read = re.findall(r"^(?:long_description = file: |license_files = )(.*)$", setup, re.M)
        self.assertEqual({*read, "setup.cfg", "pyproject.toml"} - copied, set())

    def test_its_command_is_a_server(self) -> None:
        """In the exec form, with options that the parser knows, on the port that is exposed and checked."""
        self.assertEqual(json.loads(last("ENTRYPOINT")), ["longconn", "serve"])
        for options in (json.loads(last("CMD")), in_compose("command")):
            settings_of(options)
            self.assertIn(f"--port={last('EXPOSE')}", options)
        for check in checks():
            self.assertTrue(check[-1].startswith(f"http://127.0.0.1:{last('EXPOSE')}/"), check)


class ComposeTests(SynchronousTestCase):
    def test_it_is_yaml(self) -> None:
        if find_spec("yaml") is None:
            raise SkipTest("needs PyYAML")
        value = import_module("yaml").safe_load(COMPOSE)
        self.assertEqual(set(value), {"services", "configs", "secrets", "networks"})
        for service in value["services"].values():
            self.assertTrue(service["read_only"])
            self.assertEqual(service["cap_drop"], ["ALL"])
            self.assertEqual(service["security_opt"], ["no-new-privileges:true"])
            self.assertTrue(set(service["networks"]) <= set(value["networks"]))
            self.assertGreater(service["ulimits"]["nofile"]["soft"], Settings().max_connections)
        (subnet,) = value["networks"]["inner"]["ipam"]["config"]
        self.assertEqual(settings_of(in_compose("command")).trusted_proxy, (subnet["subnet"],))

    def test_the_files_that_it_names(self) -> None:
        build = re.search(r"context: (\S+)\n +dockerfile: (\S+)$", COMPOSE, re.M)
        assert build is not None
        self.assertEqual((EXAMPLES / build[1] / build[2]).resolve(), EXAMPLES / "Containerfile")
        self.assertIn("file: ./haproxy.cfg", COMPOSE)
        self.assertIn("target: /usr/local/etc/haproxy/haproxy.cfg", COMPOSE)
        self.assertIn("crt /run/secrets/cert.pem", HAPROXY)


class EndingTimeTests(SynchronousTestCase):
    def test_it_is_longer_than_a_shutdown_takes(self) -> None:
        for text, pattern, settings in (
            (COMPOSE, r"stop_grace_period: (\d+)s$", settings_of(in_compose("command"))),
            (UNIT, r"^TimeoutStopSec=(\d+)$", Settings()),
        ):
            match = re.search(pattern, text, re.M)
            assert match is not None
            self.assertGreater(int(match[1]), settings.shutdown_delay + settings.shutdown_timeout)


class HealthCheckTests(SynchronousTestCase):
    def run_check(self, command: Sequence[str], port: int) -> int:
        arguments = [each.replace(f":{last('EXPOSE')}/", f":{port}/") for each in command]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("LONGCONN_", "PYTHON"))}
        process = forks.Program("longconn.cli:main", arguments, Path.cwd(), kept)
        process.communicate(timeout=PATIENCE)
        assert process.returncode is not None
        return process.returncode

    def test_healthy_while_it_serves(self) -> None:
        server = Server()
        self.addCleanup(server.clean_up)
        for each in checks():
            self.assertEqual(self.run_check(each, server.port), 0)
        server.stop()
        for each in checks():
            self.assertEqual(self.run_check(each, server.port), 1)


class HAProxyTests(SynchronousTestCase):
    def configuration(self, *replaced: tuple[str, str]) -> Path:
        """The example with a certificate that there is."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        key, self.certificate = write_certificate(self.folder)
        both = self.folder / "both.pem"
        both.write_text(Path(self.certificate).read_text() + Path(key).read_text())
        text = HAPROXY.replace("/run/secrets/cert.pem", str(both))
        for old, new in replaced:
            self.assertIn(old, text)
            text = text.replace(old, new)
        path = self.folder / "haproxy.cfg"
        path.write_text(text)
        return path

    def test_haproxy_takes_it(self) -> None:
        command = [program("haproxy"), "-c", "-f", str(self.configuration(("longconn:9999", "127.0.0.1:9999")))]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertNotIn("WARNING", ended.stderr)

    def test_chat_through_tls_and_the_proxy(self) -> None:
        """The server knows the client's own address, and not the proxy's."""
        haproxy = program("haproxy")
        server = Server('trusted_proxy = ["127.0.0.1"]\nnames = "address"')
        self.addCleanup(server.clean_up)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        path = self.configuration(
            ("bind :8443", f"bind 127.0.0.1:{port}"), ("longconn:9999", f"127.0.0.1:{server.port}"),
            ("maxconn 60000", "maxconn 100"),
        )  # fmt: skip
        proxy = subprocess.Popen([haproxy, "-f", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(proxy.wait)
        self.addCleanup(proxy.kill)
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.check_hostname = False
        context.set_alpn_protocols(["h2", "http/1.1"])
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                bare = socket.create_connection(("127.0.0.1", port), PATIENCE)
                break
            except ConnectionRefusedError:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
        with bare, context.wrap_socket(bare) as client:
            self.assertEqual(client.selected_alpn_protocol(), "http/1.1")
            name = "127.0.0.1:%d" % client.getsockname()[1]
            client.sendall(b"/who\n")
            with client.makefile("rb") as lines:
                self.assertEqual(lines.readline().decode(), f"* 1 in lobby: {name}\r\n")


class UnitTests(SynchronousTestCase):
    def test_systemd_takes_it(self) -> None:
        analyze = program("systemd-analyze")
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        path = folder / "longconn.service"
        path.write_text(UNIT.replace("/opt/longconn/bin/longconn", shutil.which("true") or "/bin/true"))
        command = [analyze, "verify", "--man=no", str(path)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual((ended.returncode, "longconn.service" in ended.stderr), (0, False), ended.stderr)

    def test_its_command_is_a_server(self) -> None:
        match = re.search(r"^ExecStart=/opt/longconn/bin/longconn serve --config=(\S+)$", UNIT, re.M)
        assert match is not None
        settings_of([f"--config={EXAMPLES / Path(match[1]).name}"])


class FirstProcessTests(SynchronousTestCase):
    """The server as process 1 of a PID namespace, as in a container.

    The kernel drops signals for which process 1 has no handler.
    """

    START = "import sys, longconn.cli; sys.exit(longconn.cli.main())"

    def start(self, *options: str, before: str = "") -> subprocess.Popen[str]:
        unshare = [program("unshare"), "--pid", "--fork", "--kill-child"]
        if subprocess.run([*unshare, "true"], capture_output=True, timeout=PATIENCE).returncode:
            unshare += ["--user", "--map-root-user"]
            if subprocess.run([*unshare, "true"], capture_output=True, timeout=PATIENCE).returncode:
                raise SkipTest("unshare --pid is not permitted")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("LONGCONN_", "PYTHON"))}
        environ = {**kept, "PYTHONPATH": str(EXAMPLES.parents[1]), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [*unshare, sys.executable, "-c", before + self.START, "serve", "--port=127.0.0.1:0", *options],
            env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

        def end() -> None:
            process.kill()  # and --kill-child ends the server
            process.communicate()

        self.addCleanup(end)
        return process

    def until(self, process: subprocess.Popen[str], text: str) -> str:
        """The first line that has `text`."""
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if text in line:
                return line
        raise AssertionError(f"no {text!r} in {''.join(seen)}")

    def until_it_serves(self, process: subprocess.Popen[str]) -> None:
        """It listens before it runs, and before that SIGTERM ends it at once."""
        match = re.search(r"127\.0\.0\.1:(\d+)", self.until(process, "listening on"))
        assert match is not None
        with socket.create_connection(("127.0.0.1", int(match[1])), PATIENCE) as client:
            client.settimeout(PATIENCE)
            client.sendall(b"ping\n")
            self.assertEqual(client.recv(100), b"pong\r\n")

    def server(self, process: subprocess.Popen[str]) -> int:
        """The server's number outside of the namespace."""
        (pid,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        self.assertRegex(Path(f"/proc/{pid}/status").read_text(), r"(?m)^NSpid:\s.*\s1$")
        return int(pid)

    def test_sigterm_ends_it_in_order(self) -> None:
        process = self.start("--shutdown-timeout=5")
        self.until_it_serves(process)
        os.kill(self.server(process), signal.SIGTERM)
        self.until(process, "Server Shut Down")
        self.assertEqual(process.wait(PATIENCE), 0)

    def test_a_second_signal_ends_it_at_once(self) -> None:
        process = self.start("--shutdown-delay=300")
        self.until_it_serves(process)
        os.kill(self.server(process), signal.SIGTERM)
        self.until(process, "serving for 300")
        os.kill(self.server(process), signal.SIGTERM)
        self.until(process, "stopping at once")
        self.assertEqual(process.wait(PATIENCE), 0)

    def test_sigterm_while_it_starts(self) -> None:
        # Short sleeps: Python runs no handler for a signal that comes just before a long one begins.
        waits = "    print('it starts')\n    while True:\n        time.sleep(0.05)\n"
        process = self.start(
            before=f"import time\nimport longconn.cli\ndef wait(*arguments):\n{waits}longconn.cli._parsed = wait\n"
        )
        self.until(process, "it starts")
        os.kill(self.server(process), signal.SIGTERM)
        self.assertEqual(process.wait(PATIENCE), 0)

    def test_children_that_nobody_waits_for(self) -> None:
        forking = "import os\nfor _ in range(3):\n    os.fork() or (os.fork(), os._exit(0))\n"
        process = self.start(before=forking)
        self.until_it_serves(process)
        server = self.server(process)
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        self.assertEqual(len(children), 6)
        os.kill(server, signal.SIGTERM)
        self.assertEqual(process.wait(PATIENCE), 0)


class CommandLineOfUnitTests(SynchronousTestCase):
    def test_reload_is_a_signal_that_the_server_handles(self) -> None:
        match = re.search(r"^ExecReload=(.*)$", UNIT, re.M)
        assert match is not None
        self.assertEqual(shlex.split(match[1]), ["/bin/kill", "-HUP", "$MAINPID"])
