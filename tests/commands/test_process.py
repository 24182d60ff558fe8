"""The commands as processes: their output and exit statuses."""

import os
import resource
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

from tests.live.certificates import write_certificate
from tests.test_cli import LONGCONN, PATIENCE, SERVE, Case, Running


class ProcessTests(Case):
    def serve(self, port: str = "127.0.0.1:0") -> str:
        """A server; its HOST:PORT."""
        running = Running(self.start(*SERVE, f"--port={port}"))
        where = running.reads("listening on ").partition("listening on ")[2].rpartition(":")[0]
        return where.partition(" ")[0]

    def client(self, *arguments: str, **options: Any) -> Any:
        return self.start(*LONGCONN, *arguments, **options)

    def line(self, program: Any) -> str:
        text: str = program.stdout.readline()
        return text

    def test_interrupted(self) -> None:
        where = self.serve()
        for number, arguments in (
            (signal.SIGINT, ("probe", f"{where}/PrintHello", "--times=0", "--every=0.01")),
            (signal.SIGTERM, ("echo", "-s", where, "--times=0", "--every=0.01")),
        ):
            program = self.client(*arguments)
            self.assertIn(" ms", self.line(program))
            program.send_signal(number)
            _, err = program.communicate(timeout=PATIENCE)
            self.assertEqual((program.returncode, err), (128 + number, ""))

    def test_a_closed_output(self) -> None:
        program = self.client("probe", f"{self.serve()}/PrintHello", "--times=0", "--every=0.01")
        self.assertIn(" ms", self.line(program))
        program.stdout.close()
        program.wait(PATIENCE)
        self.assertEqual((program.returncode, program.stderr.read()), (128 + signal.SIGPIPE, ""))
        program.stdout = None

    def test_a_full_output(self) -> None:
        where = self.serve()

        def full() -> None:
            os.dup2(os.open("/dev/full", os.O_WRONLY), 1)

        for arguments in (("probe", f"{where}/PrintHello"), ("echo", "-s", where)):
            line = "longconn: cannot write: No space left on device"
            self.assert_one_line(line, *LONGCONN, *arguments, preexec_fn=full)

    def test_a_full_disk_under_a_certificate(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        cert, key = Path(folder.name, "cert.pem"), Path(folder.name, "key.pem")
        # There is room for the key, but not for the certificate.
        for size, path in ((100, key), (400, cert)):

            def full(size: int = size) -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

            line = f"longconn: cannot write {path}: File too large"
            self.assert_one_line(line, *LONGCONN, "cert", f"--cert={cert}", f"--key={key}", preexec_fn=full)
            self.assertEqual(os.listdir(folder.name), [])

    def test_closed_descriptors(self) -> None:
        where = self.serve()

        def close() -> None:
            os.closerange(0, 2)

        arguments = ("probe", f"{where}/PrintHello", "--times=3", "--every=0.01")
        status, _, err = self.run_to_its_end(*LONGCONN, *arguments, preexec_fn=close)
        self.assertEqual((status, err), (0, ""))
        status, _, err = self.run_to_its_end(*LONGCONN, "pub", "-s", where, "news", preexec_fn=close)
        self.assertEqual((status, err), (0, ""))

    def test_a_chat_in_a_pipe(self) -> None:
        environ = {"LONGCONN_URL": self.serve()}
        program = self.client("chat", "--name", "mia", environ=environ)
        out, err = program.communicate("hi\n/who\n", PATIENCE)
        self.assertEqual((program.returncode, out, err), (0, "mia: hi\n* 1 in lobby: mia\n", ""))

    def test_a_certificate_that_does_not_fit(self) -> None:
        key, certificate = write_certificate(self.folder)
        os.rename(certificate, self.folder / "certificate.pem")
        where = self.serve("ssl:0:interface=127.0.0.1:privateKey=key.pem:certKey=certificate.pem")
        self.assertTrue(key.exists())
        for arguments in (("sub", "-s", f"tls://{where}", "news"), ("get", f"https://{where}/")):
            line = f"longconn: {where}: the server's certificate is of nobody that is trusted, or has expired"
            self.assert_one_line(line, *LONGCONN, *arguments)
        environ = {"SSL_CERT_FILE": str((self.folder / "certificate.pem").absolute())}
        status, out, err = self.run_to_its_end(*LONGCONN, "probe", f"https://{where}/PrintHello", environ=environ)
        self.assertEqual((status, out[:3], err), (0, "200", ""))

    def test_wrong_command_lines_and_servers(self) -> None:
        self.assert_one_line(
            "longconn: get: unrecognized arguments: --usr=a:b; did you mean --user?; longconn get --help tells more",
            *LONGCONN, "get", "x", "--usr=a:b", expected=2,
        )  # fmt: skip
        self.assert_one_line("longconn: 'tcp://' names no host", *LONGCONN, "pub", "-s", "tcp://", "news", "x")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            program = self.client("sub", "-s", f"127.0.0.1:{listening.getsockname()[1]}", "news")
            listening.settimeout(PATIENCE)
            peer, _ = listening.accept()
            with peer:
                peer.sendall(b"SSH-2.0-OpenSSH\r\n")
                _, err = program.communicate(timeout=PATIENCE)
        self.assertEqual(program.returncode, 1)
        self.assertEqual(err, "longconn: this is no longconn server: it answered 'SSH-2.0-OpenSSH'\n")
