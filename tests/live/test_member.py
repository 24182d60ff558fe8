"""Local members on the asyncio reactor, in a process of its own."""

import re
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from longconn import __file__ as package

PATIENCE = 20


class AsyncioTests(SynchronousTestCase):
    def test_a_task_and_a_coroutine_of_twisted_iterate_and_ask(self) -> None:
        program = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("asyncio_member.py"))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(package).parents[1],
            env={"PYTHONPATH": str(Path(package).parents[1])},
        )
        self.addCleanup(program.communicate)
        self.addCleanup(program.kill)
        assert program.stdout is not None
        match = re.fullmatch(r"listening on (\d+)\n", program.stdout.readline())
        assert match is not None, program.communicate(timeout=PATIENCE)
        with (
            socket.create_connection(("127.0.0.1", int(match[1])), PATIENCE) as connection,
            connection.makefile("rwb", buffering=0) as ann,
        ):
            ann.write(b"/nick ann\n")
            ann.write(b"hello\n")
            heard = []
            while not all(f"{name}: hello from {name}\r\n".encode() in heard for name in ("task", "twisted")):
                heard.append(ann.readline())
                self.assertTrue(heard[-1], heard)
            ann.write(b"stop\n")
            printed, errors = program.communicate(timeout=PATIENCE)
        self.assertEqual((printed, errors), ("task ended: shutdown\ntwisted ended: shutdown\n", ""))
        self.assertEqual(program.returncode, 0)
