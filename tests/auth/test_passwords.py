"""Passwords, by the checkers of twisted.cred."""

from pathlib import Path
from typing import Any

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from longconn.auth.passwords import PasswordChecks, check_passwords
from longconn.core.errors import INTERNAL, CommandError, ConfigError
from longconn.core.hub import log
from longconn.core.identity import AdmissionError
from longconn.core.settings import Settings
from longconn.service.service import LongConnService
from longconn.testing import MemoryServer


class SlowChecker:
    """Answers when the test says so, as a checker that asks a directory does."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, Deferred[Any]]] = []

    def requestAvatarId(self, credentials: Any) -> "Deferred[Any]":
        answer: Deferred[Any] = Deferred()
        self.asked.append((credentials.username, answer))
        return answer


class CheckTests(SynchronousTestCase):
    def ask(self, check: Any, user: str, password: str) -> Any:
        results: list[Any] = []
        check(user, password, results.append)
        (result,) = results
        return result

    def test_of_a_file(self) -> None:
        path = Path(self.mktemp())
        path.write_text("ann:secret\nbö:häufig\n")
        check = check_passwords([f"file:{path}"])
        self.assertEqual(self.ask(check, "ann", "secret"), "ann")
        self.assertEqual(self.ask(check, "bö", "häufig"), "bö")
        for user, password in (("ann", "x"), ("ann", ""), ("", ""), ("eve", "secret")):
            self.assertIsInstance(self.ask(check, user, password), AdmissionError)

    def test_one_checker_after_the_other(self) -> None:
        check = check_passwords(["memory:ann:1", "memory:bo:2:ann:3"])
        found = [self.ask(check, *each) for each in (("ann", "1"), ("bo", "2"), ("ann", "3"))]
        self.assertEqual(found, ["ann", "bo", "ann"])
        self.assertIsInstance(self.ask(check, "bo", "1"), AdmissionError)

    def test_a_checker_that_fails(self) -> None:
        class Broken(SlowChecker):
            def requestAvatarId(self, credentials: Any) -> Any:
                raise ZeroDivisionError

        with self.assertLogs(log) as logged:
            result = self.ask(PasswordChecks([Broken()]).check, "ann", "secret")
        self.assertIs(result.reason, INTERNAL)
        self.assertNotIn("secret", str(logged.output))

    def test_what_cannot_be_configured(self) -> None:
        for description, words in (
            ("nothing:x", "there is no checker 'nothing'"),
            ("file:/no/such/file", "there is no file"),
            ("memory:ann", "auth: memory: "),
        ):
            error = self.assertRaises(ConfigError, check_passwords, [description])
            self.assertIn(words, str(error))
        error = self.assertRaises(ConfigError, LongConnService, MemoryReactorClock(), Settings(auth=("nothing",)))
        self.assertIn("--help-auth", str(error))


class SlowTests(SynchronousTestCase):
    """A decision that comes later delays the client that waits for it, and no other."""

    def setUp(self) -> None:
        self.server = MemoryServer()
        self.addCleanup(self.server.stop)
        self.checker = SlowChecker()
        self.server.hub.gate.passwords = PasswordChecks([self.checker]).check

    def test_lines_wait_and_keep_their_order(self) -> None:
        ann, bo = self.server.line_client(), self.server.line_client()
        ann.say("/login ann x", "one", "two")
        bo.say("/login bo x")
        self.checker.asked[1][1].callback(b"bo")
        self.assertEqual(bo.read(), ["* logged in as bo"])
        self.assertEqual(ann.read(), [])
        self.checker.asked[0][1].callback(b"ann")
        self.assertEqual(ann.read(), ["* logged in as ann", "ann: one", "ann: two"])

    def test_a_request_waits(self) -> None:
        for decision, status in ((b"ann", 200), (UnauthorizedLogin(), 401), (ZeroDivisionError(), 503)):
            client = self.server.http_client()
            answer = client.post("/channels/lobby", "x", [("Authorization", "Basic YW5uOng=")])
            self.server.settle()
            self.assertEqual(answer.status, 0)
            waiting = self.checker.asked.pop()[1]
            (waiting.callback if status == 200 else waiting.errback)(decision)  # type: ignore[arg-type]
            self.server.settle()
            self.assertEqual(answer.status, status)

    def test_a_client_that_leaves_meanwhile(self) -> None:
        line, http = self.server.line_client(), self.server.http_client()
        line.say("/login ann x", "one")
        http.post("/channels/lobby", "x", [("Authorization", "Basic YW5uOng=")])
        self.server.settle()
        line.connection.close()
        http.connection.close()
        self.server.settle()
        for _, answer in self.checker.asked:
            answer.callback(b"ann")
        self.server.settle()
        results: list[Any] = []
        self.server.hub.history("lobby", results.append)
        self.assertEqual((results[0].publications, self.server.hub.users), ([], {}))
        self.assertNotIsInstance(results[0], CommandError)
