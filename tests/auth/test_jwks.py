"""Sets of public keys, in a file and at an address."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from longconn import LongConnService
from longconn.auth.fetch import fetcher
from longconn.auth.jwks import JWKS, LEAST_PAUSE, MOST_AGE, MOST_BYTES
from longconn.auth.jwt import JWTVerifier
from longconn.core.errors import INTERNAL, CommandError
from longconn.core.settings import Settings
from longconn.core.tokens import TokenError
from longconn.testing import FakeClock, MemoryServer

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
URL = "https://id.example/keys"


def key_set(*keys: tuple[str, Any], **more: Any) -> bytes:
    found = []
    for id, key in keys:
        if isinstance(key, rsa.RSAPrivateKey):
            value = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            value = json.loads(ECAlgorithm.to_jwk(key.public_key()))
        else:
            value = json.loads(OKPAlgorithm.to_jwk(key.public_key()))
        found.append({**value, "kid": id, "use": "sig", **more})
    return json.dumps({"keys": found}).encode()


def sign(id: str | None, key: Any, algorithm: str, **header: Any) -> str:
    headers = ({} if id is None else {"kid": id}) | header
    return jwt.encode({"sub": "ann"}, key, algorithm, headers)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.asked: list[tuple[str, Callable[[bytes], None], Callable[[object], None]]] = []
        self.verifier = JWTVerifier(Settings(jwks=URL), self.make)

    def make(self, where: str) -> JWKS:
        return JWKS(where, self.clock, lambda *asked: self.asked.append(asked))

    def answer(self, data: bytes | Exception) -> None:
        ((_, got, failed),) = self.asked
        self.asked.clear()
        if isinstance(data, bytes):
            got(data)
        else:
            failed(data)

    def ask(self, token: str) -> list[Any]:
        """The user of a token, or the error; empty while the keys are not there."""
        results: list[Any] = []

        def ready() -> None:
            try:
                results.append(self.verifier.connection(token, 0).user)
            except CommandError as error:
                results.append(error)

        self.verifier.prepare(token, ready)
        return results


class SetTests(Case):
    def test_tokens_wait_for_the_set(self) -> None:
        self.verifier.load()
        waiting = [
            self.ask(sign("1", RSA, "RS256")),
            self.ask(sign("2", EC, "ES256")),
            self.ask(sign("3", ED, "EdDSA")),
        ]
        self.assertEqual((waiting, [each[0] for each in self.asked]), ([[], [], []], [URL]))
        self.answer(key_set(("1", RSA), ("2", EC), ("3", ED)))
        self.assertEqual(waiting, [["ann"]] * 3)
        self.assertEqual(self.ask(sign(None, RSA, "RS384")), ["ann"])
        self.assertEqual(self.asked, [])

    def test_an_unknown_key_is_asked_for_at_most_once_a_minute(self) -> None:
        self.verifier.load()
        self.answer(key_set(("1", RSA)))
        new = ed25519.Ed25519PrivateKey.generate()
        (error,) = self.ask(sign("4", new, "EdDSA"))
        self.assertIsInstance(error, TokenError)
        self.assertEqual(self.asked, [])
        self.clock.advance(LEAST_PAUSE)
        waiting = [self.ask(sign("4", new, "EdDSA")) for _ in range(3)]
        self.assertEqual(self.ask(sign("1", RSA, "RS256")), ["ann"])  # others do not wait
        self.answer(key_set(("1", RSA), ("4", new)))
        self.assertEqual(waiting, [["ann"]] * 3)

    def test_a_key_that_is_gone_is_refused_within_an_hour(self) -> None:
        self.verifier.load()
        self.answer(key_set(("1", RSA), ("2", EC)))
        self.clock.advance(MOST_AGE)
        self.assertEqual(self.ask(sign("1", RSA, "RS256")), ["ann"])
        self.answer(key_set(("2", EC)))
        (error,) = self.ask(sign("1", RSA, "RS256"))
        self.assertIn("its key is not known here", error.why)

    def test_while_the_address_does_not_answer(self) -> None:
        """Tokens get a temporary error: their clients come back. Keys that were fetched once stay."""
        waiting = self.ask(sign("1", RSA, "RS256"))
        self.answer(OSError("refused"))
        self.assertIs(waiting[0].reason, INTERNAL)
        self.assertIs(self.ask(sign("1", RSA, "RS256"))[0].reason, INTERNAL)
        self.clock.advance(LEAST_PAUSE)
        waiting = self.ask(sign("1", RSA, "RS256"))
        self.answer(key_set(("1", RSA)))
        self.assertEqual(waiting, ["ann"])
        self.clock.advance(MOST_AGE)
        self.ask(sign("1", RSA, "RS256"))
        self.answer(OSError("refused"))
        self.assertEqual(self.ask(sign("1", RSA, "RS256")), ["ann"])

    def test_what_is_no_set(self) -> None:
        for data in (b"", b"{}", b"[]", b'{"keys":1}', b"[" * 100_000, b" " * (MOST_BYTES + 1), b"\xff"):
            self.setUp()
            with self.assertLogs("longconn", "WARNING") as logged:
                self.verifier.load()
                self.answer(data)
            self.assertEqual(len(logged.output), 1, data[:20])

    def test_keys_that_are_not_used(self) -> None:
        secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256"}
        data = json.loads(key_set(("enc", RSA), use="enc"))["keys"] + [secret, 1, {}, {"kty": "RSA"}, {"kty": "XX"}]
        data += json.loads(key_set(("pinned", RSA), alg="RS512"))["keys"]
        self.verifier.load()
        self.answer(json.dumps({"keys": data}).encode())
        for token in (sign("enc", RSA, "RS256"), sign("s", "secret" * 9, "HS256"), sign("pinned", RSA, "RS256")):
            self.assertIsInstance(self.ask(token)[0], TokenError)
        self.assertEqual(self.ask(sign("pinned", RSA, "RS512")), ["ann"])

    def test_an_address_in_a_token_is_never_asked(self) -> None:
        self.verifier.load()
        self.answer(key_set(("1", RSA)))
        self.clock.advance(LEAST_PAUSE)
        self.ask(sign("9", EC, "ES256", jku="https://evil.example/", x5u="https://evil.example/"))
        self.assertEqual([each[0] for each in self.asked], [URL])

    def test_a_file(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(key_set(("1", RSA)))
        self.verifier = JWTVerifier(Settings(jwks=str(path)), self.make)
        self.assertEqual(self.ask(sign("1", RSA, "RS256")), ["ann"])
        path.write_bytes(key_set(("2", EC)))
        self.assertIsInstance(self.ask(sign("2", EC, "ES256"))[0], TokenError)
        self.clock.advance(LEAST_PAUSE)
        self.assertEqual(self.ask(sign("2", EC, "ES256")), ["ann"])

    def test_clients_wait_and_keep_their_order(self) -> None:
        server = MemoryServer()
        self.addCleanup(server.stop)
        server.hub.gate.verifier = self.verifier
        client = server.line_client()
        client.say(f"/login token {sign('1', RSA, 'RS256')}", "hello")
        self.assertEqual(client.read(), [])
        answer = server.http_client().get("/PrintHello", [("Authorization", f"Bearer {sign('1', RSA, 'RS256')}")])
        self.answer(key_set(("1", RSA)))
        self.assertEqual(client.read(), ["* logged in as ann", "ann: hello"])
        server.settle()
        self.assertEqual(answer.status, 200)


class Keys(Resource):
    isLeaf = True

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__()
        self.status, self.body = status, body

    def render_GET(self, request: Any) -> bytes:
        request.setResponseCode(self.status)
        if self.status == 302:
            request.setHeader("Location", "/elsewhere")
        return self.body


class FetchTests(TestCase):
    """Over real sockets."""

    async def fetch(self, status: int, body: bytes) -> Any:
        port: Any = reactor.listenTCP(0, Site(Keys(status, body)), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        result: Deferred[Any] = Deferred()
        fetcher(reactor)(f"http://127.0.0.1:{port.getHost().port}/", result.callback, result.callback)
        return await result.addTimeout(10, reactor)  # type: ignore[arg-type]

    async def test_a_document(self) -> None:
        self.assertEqual(await self.fetch(200, b"{}"), b"{}")

    async def test_what_is_refused(self) -> None:
        self.assertEqual(await self.fetch(404, b"{}"), "status 404")
        self.assertEqual(await self.fetch(302, b"{}"), "status 302")
        self.assertIn("more than", str(await self.fetch(200, b"x" * (MOST_BYTES + 1))))

    async def test_nobody_listens(self) -> None:
        port: Any = reactor.listenTCP(0, Site(Keys(200, b"")), interface="127.0.0.1")  # type: ignore[attr-defined]
        number = port.getHost().port
        await port.stopListening()
        result: Deferred[Any] = Deferred()
        fetcher(reactor)(f"http://127.0.0.1:{number}/", result.callback, result.callback)
        self.assertIn("refused", str(await result))

    async def test_the_service_fetches_at_its_start(self) -> None:
        port: Any = reactor.listenTCP(0, Site(Keys(200, key_set(("1", RSA)))), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        url = f"http://127.0.0.1:{port.getHost().port}/"
        service = LongConnService(reactor, Settings(jwks=url), port=["tcp:0:interface=127.0.0.1"])
        service.startService()
        self.addCleanup(service.stopService)
        verifier: Any = service.hub.gate.verifier
        ready: Deferred[None] = Deferred()
        verifier.prepare(sign("1", RSA, "RS256"), lambda: ready.callback(None))
        await ready.addTimeout(10, reactor)  # type: ignore[arg-type]
        self.assertEqual(verifier.connection(sign("1", RSA, "RS256"), 0).user, "ann")
