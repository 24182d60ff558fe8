"""Tokens: signatures, claims, keys, and the errors for tokens that are refused."""

import base64
import hashlib
import hmac
import json
import logging
import sys
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from twisted.trial.unittest import SynchronousTestCase

from longconn.auth.jwt import JWTVerifier
from longconn.core.errors import TOKEN_EXPIRED, CommandError, ConfigError
from longconn.core.hub import Hub
from longconn.core.identity import Capability, Granted, Identity
from longconn.core.namespaces import Action
from longconn.core.settings import Settings
from longconn.core.tokens import SubscriptionToken, TokenError
from longconn.service.service import LongConnService
from longconn.testing import FakeClock

SECRET = "a secret of no less than thirty-two bytes, or PyJWT warns; of sixty-four for SHA-512"
NOW = 1_000_000.0
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def public(key: Any) -> str:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def part(value: object) -> str:
    """One part of a token: a value as JSON, or raw bytes."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.verifier = self.make()

    def make(self, **settings: Any) -> JWTVerifier:
        return JWTVerifier(Settings(**({"token_hmac_secret_key": SECRET} | settings)))

    def sign(self, key: Any = SECRET, algorithm: str = "HS256", headers: Any = None, **claims: Any) -> str:
        return jwt.encode(claims, key, algorithm, headers)

    def connection(self, **claims: Any) -> Identity:
        return self.verifier.connection(self.sign(**claims), NOW)

    def bad(self, *words: str, token: str | None = None, verifier: JWTVerifier | None = None, **claims: Any) -> None:
        """Assert that the connection token is refused, with a line that has all `words` and fits into a close frame."""
        verifier = verifier or self.verifier
        error = self.assertRaises(TokenError, verifier.connection, token or self.sign(**claims), NOW)
        self.check(error, "connection", *words)

    def check(self, error: TokenError, which: str, *words: str) -> None:
        text = error.why
        self.assertTrue(text.startswith(f"{which} token: "), text)
        for word in words:
            self.assertIn(word, text)
        self.assertNotIn("\n", text)
        self.assertLessEqual(len(text.encode()), 123)  # RFC 6455, section 5.5.1, less the code

    def expired(self, call: Any, *arguments: Any) -> None:
        self.assertIs(self.assertRaises(CommandError, call, *arguments).reason, TOKEN_EXPIRED)


class SignatureTests(Case):
    def test_secrets(self) -> None:
        for algorithm in ("HS256", "HS384", "HS512"):
            token = self.sign(algorithm=algorithm, sub="42")
            self.assertEqual(self.verifier.connection(token, NOW), Identity("42"))
        self.bad("its signature is wrong", key=SECRET + "!", sub="42")

    def test_rsa(self) -> None:
        verifier = self.make(token_hmac_secret_key="", token_rsa_public_key=public(RSA))
        self.assertEqual(verifier.algorithms, ("RS256", "RS384", "RS512"))
        for algorithm in verifier.algorithms:
            token = self.sign(RSA, algorithm, sub="42")
            self.assertEqual(verifier.connection(token, NOW).user, "42")
            self.bad("its signature is wrong", verifier=verifier, key=OTHER_RSA, algorithm=algorithm)
        self.bad("signed by 'PS256'", verifier=verifier, key=RSA, algorithm="PS256")

    def test_each_curve_has_its_algorithm(self) -> None:
        keys = {algorithm: ec.generate_private_key(curve) for algorithm, curve in CURVES.items()}
        for algorithm, key in keys.items():
            verifier = self.make(token_hmac_secret_key="", token_ecdsa_public_key=public(key))
            self.assertEqual(verifier.algorithms, (algorithm,))
            self.assertEqual(verifier.connection(self.sign(key, algorithm, sub="42"), NOW).user, "42")
            self.bad("its signature is wrong", verifier=verifier, key=ec.generate_private_key(key.curve),
                     algorithm=algorithm)  # fmt: skip
            for other in set(keys) - {algorithm}:
                self.bad(f"signed by '{other}'", verifier=verifier, key=keys[other], algorithm=other)

    def test_several_keys(self) -> None:
        key = ec.generate_private_key(CURVES["ES256"])
        verifier = self.make(token_rsa_public_key=public(RSA), token_ecdsa_public_key=public(key))
        for token in (self.sign(sub="1"), self.sign(RSA, "RS512", sub="1"), self.sign(key, "ES256", sub="1")):
            self.assertEqual(verifier.connection(token, NOW).user, "1")

    def test_the_algorithm_none_is_refused(self) -> None:
        for algorithm in ("none", "None", "NONE", "", None, 1, ["HS256"], "HS1"):
            for signature in ("", part(b"x")):
                token = f"{part({'typ': 'JWT', 'alg': algorithm})}.{part({'sub': '42'})}.{signature}"
                self.bad("connection token: ", token=token)
        self.bad("signed by 'none'; allowed: HS256, HS384, HS512", key="", algorithm="none")

    def test_a_public_key_is_never_a_secret(self) -> None:
        """An attacker knows the public key, and signs with it as if it were a secret."""
        pem = public(RSA)
        head = f"{part({'alg': 'HS256'})}.{part({'sub': '42'})}"
        for key in (pem, pem.strip()):
            token = f"{head}.{part(hmac.digest(key.encode(), head.encode(), hashlib.sha256))}"
            alone = self.make(token_hmac_secret_key="", token_rsa_public_key=pem)
            self.bad("signed by 'HS256'", token=token, verifier=alone)
            self.bad("its signature is wrong", token=token, verifier=self.make(token_rsa_public_key=pem))

    def test_malformed_tokens(self) -> None:
        whole = self.sign(sub="42")
        head, payload, signature = whole.split(".")
        for token in ("x", "a.b", "a.b.c", "a.b.c.d", ".", "..", whole[:-4], whole + ".x", f"{head}.{payload}.",
                      f"{head}..{signature}", "\ud800." + whole, "ü" + whole, part([]) + ".e30.x", "\n" * 70_000,
                      f"{part(b'[' * 100_000)}.e30.x", f"{head}.{part({'sub': '43'})}.{signature}"):  # fmt: skip
            self.bad(token=token)
        self.bad("is no JWT", token="x")

    def test_extensions_are_refused(self) -> None:
        for headers in ({"crit": ["exp"], "exp": 1}, {"crit": ["b64"], "b64": False}, {"crit": []}):
            head = f"{part({'alg': 'HS256'} | headers)}.{part({'sub': '42'})}"
            self.bad(token=f"{head}.{part(hmac.digest(SECRET.encode(), head.encode(), hashlib.sha256))}")

    def test_a_payload_that_is_not_an_object(self) -> None:
        for payload in (b"[]", b"1", b"x", b"", b"\xff", b"[" * 100_000, b"9" * 10_000):
            token = jwt.PyJWS().encode(payload, SECRET, "HS256")
            self.bad("its payload is no JSON object", token=token)

    def test_without_keys_every_token_is_refused(self) -> None:
        verifier = JWTVerifier(Settings())
        self.bad("the server has no key", verifier=verifier, sub="42")
        self.assertEqual(verifier.algorithms, ())

    def test_no_text_shows_the_token_or_the_secret(self) -> None:
        token = self.sign(key="another secret, which is long enough too", sub="42")
        error = self.assertRaises(TokenError, self.verifier.connection, token, NOW)
        for each in (*token.split("."), SECRET):
            self.assertNotIn(each, error.why)


class ClaimTests(Case):
    def test_the_claims_of_a_connection_token(self) -> None:
        info = {"name": "Ada", "n": [1, None]}
        others = {"iat": NOW + 999, "jti": "x", "meta": 1}
        token = self.connection(sub="42", exp=NOW + 60, info=info, channels=["a", "b"], **others)
        subs = dict.fromkeys("ab", Granted())
        self.assertEqual(token, Identity("42", NOW + 60, b'{"name":"Ada","n":[1,null]}', subs, "x", NOW + 999))
        self.assertEqual(token.channels, ("a", "b"))

    def test_a_token_without_a_user_is_anonymous(self) -> None:
        for claims in ({}, {"sub": ""}, {"sub": None}):
            self.assertEqual(self.connection(**claims), Identity(""))

    def test_times_are_checked_against_the_time_of_the_caller(self) -> None:
        token = self.sign(sub="42", exp=NOW)
        self.assertEqual(self.verifier.connection(token, NOW - 0.1).expires_at, NOW)
        for late in (0, 0.1, 1e9):
            self.expired(self.verifier.connection, token, NOW + late)
        # Long ago by the wall clock, and far ahead of it.
        self.assertEqual(self.connection(exp=NOW + 1).expires_at, NOW + 1)
        self.expired(self.verifier.connection, self.sign(exp=4e9), 5e9)

    def test_a_token_before_its_nbf(self) -> None:
        token = self.sign(nbf=NOW)
        self.assertEqual(self.verifier.connection(token, NOW), Identity(""))
        self.expired(self.verifier.connection, token, NOW - 1)

    def test_the_connection_may_outlive_its_token(self) -> None:
        self.assertEqual(self.connection(exp=NOW + 1, expire_at=NOW + 99).expires_at, NOW + 99)
        self.assertEqual(self.connection(expire_at=NOW + 99).expires_at, NOW + 99)
        for never in (0, -1):
            self.assertIsNone(self.connection(exp=NOW + 1, expire_at=never).expires_at)
        self.expired(self.verifier.connection, self.sign(exp=NOW - 1, expire_at=NOW + 99), NOW)

    def test_audience_and_issuer(self) -> None:
        verifier = self.verifier = self.make(token_audience="live", token_issuer="app")
        for audience in ("live", ["x", "live"]):
            self.assertEqual(self.connection(aud=audience, iss="app", sub="1").user, "1")
        self.bad("its audience is another", verifier=verifier, aud="x", iss="app")
        self.bad("its audience is another", verifier=verifier, iss="app")
        self.bad("its issuer is another", verifier=verifier, aud="live", iss="x")
        self.bad("its issuer is another", verifier=verifier, aud="live")
        # The audience is checked before the expiry.
        self.bad("its audience is another", verifier=verifier, aud="x", exp=1)
        self.verifier = self.make()
        self.assertEqual(self.connection(aud="x", iss="y", sub="1").user, "1")

    def test_claims_of_a_wrong_type(self) -> None:
        for claims, name in (
            ({"sub": 42}, "sub"),
            ({"sub": "\ud800"}, "sub"),
            ({"exp": "1"}, "exp"),
            ({"exp": True}, "exp"),
            ({"exp": float("inf")}, "exp"),
            ({"exp": float("nan")}, "exp"),
            ({"nbf": []}, "nbf"),
            ({"expire_at": "x"}, "expire_at"),
            ({"info": float("nan")}, "info"),
            ({"b64info": "%"}, "info"),
            ({"b64info": part(b"no JSON") + "="}, "info"),
            ({"b64info": 5}, "info"),
            ({"channels": [1]}, "channels"),
            ({"channels": {"a": 1}}, "channels"),
            ({"subs": ["a"]}, "subs"),
            ({"subs": {"a": 1}}, "subs"),
            ({"channel": 1}, "channel"),
        ):
            token = jwt.PyJWS().encode(json.dumps(claims).encode(), SECRET, "HS256")
            self.bad(f"its claim {name} is not valid", token=token)

    def test_unsupported_claims_are_refused(self) -> None:
        override = {"presence": {"value": False}}
        for claims, name in (
            ({"override": override}, "override"),
            ({"subs": {"news": {"override": override}}}, "override"),
        ):
            self.bad(f"its claim {name} is not supported", sub="42", **claims)
        signed = self.sign(sub="42", channel="news", override=override)
        with self.assertRaises(TokenError):
            self.verifier.subscription(signed, "news", "42", NOW)

    def test_capabilities(self) -> None:
        caps = [
            {"channels": ["news", "a*"], "allow": ["sub", "hst", "x"]},
            {"channels": ["room:*", "*"], "match": "wildcard", "allow": ["pub", "prs"]},
        ]
        read, write = frozenset({Action.SUBSCRIBE, Action.HISTORY}), frozenset({Action.PUBLISH, Action.PRESENCE})
        found = self.connection(sub="42", caps=caps).capabilities
        self.assertEqual(found, (
            Capability("news", False, read), Capability("a*", False, read),
            Capability("room:", True, write), Capability("", True, write),
        ))  # fmt: skip
        for action, channel, allowed in (
            (Action.SUBSCRIBE, "news", True), (Action.SUBSCRIBE, "new", False), (Action.PUBLISH, "news", False),
        ):  # fmt: skip
            self.assertIs(found[0].allows(action, channel), allowed)
        self.assertTrue(found[2].allows(Action.PUBLISH, "room:1"))
        self.assertFalse(found[2].allows(Action.PUBLISH, "rooms"))
        self.assertEqual(self.connection(caps=None).capabilities, ())
        for wrong in (
            {"a": 1},
            [1],
            [{"channels": "a", "allow": []}],
            [{"channels": ["a"]}],
            [{"channels": [1], "allow": []}],
        ):
            self.bad("its claim caps is not valid", caps=wrong)
        self.bad("match 'regex'", caps=[{"channels": [".*"], "match": "regex", "allow": ["sub"]}])
        self.bad("* that is not at the end", caps=[{"channels": ["a*b"], "match": "wildcard", "allow": ["sub"]}])

    def test_info_is_json(self) -> None:
        def b64(text: bytes) -> str:
            return base64.b64encode(text).decode()

        for claims, info in (
            ({"info": "Ä"}, b'"\\u00c4"'),
            ({"info": None}, b""),
            ({"info": 0}, b"0"),
            ({"b64info": b64(b'{ "a": 1.0 }')}, b'{"a":1.0}'),
            ({"b64info": b64(b"1"), "info": 2}, b"1"),
            ({"b64info": "", "info": 2}, b"2"),
        ):
            self.assertEqual(self.connection(**claims).info, info)

    def test_subs_take_precedence_over_channels(self) -> None:
        token = self.connection(subs={"a": {"info": {"x": 1}, "data": 2, "override": {}}, "b": {}}, channels=["c"])
        self.assertEqual(token.subs, {"a": Granted(b'{"x":1}', b"2"), "b": Granted()})
        self.assertEqual(self.connection(subs={}, channels=["c"]).channels, ("c",))

    def test_a_subscription_token_is_no_connection_token(self) -> None:
        self.bad("it is for a channel", sub="42", channel="a")


class SubscriptionTests(Case):
    def test_the_claims_of_a_subscription_token(self) -> None:
        signed = self.sign(sub="42", channel="chat:a", exp=NOW + 1, info={"a": 1}, data=[], client="c")
        token = self.verifier.subscription(signed, "chat:a", "42", NOW, "c")
        self.assertEqual(token, SubscriptionToken("chat:a", "42", NOW + 1, b'{"a":1}', b"[]"))

    def test_it_holds_for_one_channel_one_user_and_one_client(self) -> None:
        sign, read = self.sign, self.verifier.subscription
        for token, which, mismatch in (
            (sign(sub="42"), "it names no channel", False),
            (sign(sub="42", channel="chat:b" * 50), "it is for the channel 'chat:b", True),
            (sign(sub="43", channel="chat:a"), "it is for another user", True),
            (sign(channel="chat:a"), "it is for another user", True),
            (sign(sub="42", channel="chat:a", client="x"), "it is for another client", True),
            (sign(SECRET + "!", sub="42", channel="chat:a"), "its signature is wrong", False),
        ):
            error = self.assertRaises(TokenError, read, token, "chat:a", "42", NOW, "c")
            self.check(error, "subscription", which)
            self.assertIs(error.mismatch, mismatch)

    def test_an_anonymous_client_may_have_one(self) -> None:
        token = self.verifier.subscription(self.sign(channel="chat:a"), "chat:a", "", NOW)
        self.assertEqual(token, SubscriptionToken("chat:a", ""))

    def test_it_expires(self) -> None:
        token = self.sign(sub="42", channel="chat:a", exp=NOW)
        self.expired(self.verifier.subscription, token, "chat:a", "42", NOW)
        # Expiry is checked before the channel, so that the client asks for a new token.
        self.expired(self.verifier.subscription, token, "chat:b", "42", NOW)
        never = self.sign(sub="42", channel="chat:a", exp=NOW + 1, expire_at=0)
        self.assertIsNone(self.verifier.subscription(never, "chat:a", "42", NOW).expires_at)


class KeyTests(Case):
    def refused(self, *words: str, **settings: Any) -> None:
        line = str(self.assertRaises(ConfigError, self.make, **settings))
        for word in words:
            self.assertIn(word, line)
        self.assertNotIn("\n", line)

    def test_a_key_in_a_file(self) -> None:
        path = Path(self.mktemp())
        path.write_text(public(RSA))
        verifier = self.make(token_rsa_public_key=str(path))
        self.assertEqual(verifier.connection(self.sign(RSA, "RS256", sub="1"), NOW).user, "1")

    def test_a_key_in_one_line(self) -> None:
        pem = public(RSA)
        for text in (pem.replace("\n", "\\n"), "\n " + pem + "\n"):
            verifier = self.make(token_rsa_public_key=text)
            self.assertEqual(verifier.connection(self.sign(RSA, "RS256", sub="1"), NOW).user, "1")

    def test_bad_keys(self) -> None:
        curve = public(ec.generate_private_key(ec.SECP256R1()))
        private = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self.refused("token_rsa_public_key: neither PEM nor a file: cannot read '/nowhere': No such file",
                     token_rsa_public_key="/nowhere")  # fmt: skip
        self.refused("token_rsa_public_key: neither PEM nor a file", token_rsa_public_key="a\0b")
        self.refused("token_rsa_public_key: this is no key of RSA", token_rsa_public_key=curve)
        self.refused("token_ecdsa_public_key: this is no key of ECDSA", token_ecdsa_public_key=public(RSA))
        self.refused("token_ecdsa_public_key: this is no key of ECDSA",
                     token_ecdsa_public_key=public(ed25519.Ed25519PrivateKey.generate()))  # fmt: skip
        self.refused("token_ecdsa_public_key: the curve is secp256k1; allowed: secp256r1",
                     token_ecdsa_public_key=public(ec.generate_private_key(ec.SECP256K1())))  # fmt: skip
        for text in (private, "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----"):
            self.refused("token_rsa_public_key: this is no public key in PEM", token_rsa_public_key=text)

    def test_eddsa(self) -> None:
        for kind in (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey):
            key: Any = kind.generate()
            verifier = self.make(token_hmac_secret_key="", token_eddsa_public_key=public(key))
            self.assertEqual(verifier.algorithms, ("EdDSA",))
            self.assertEqual(verifier.connection(self.sign(key, "EdDSA", sub="1"), NOW).user, "1")
            token = self.sign(kind.generate(), "EdDSA", sub="1")
            self.bad("its signature is wrong", verifier=verifier, token=token)
        self.refused("token_eddsa_public_key: this is no key of EdDSA", token_eddsa_public_key=public(RSA))

    def test_two_keys_while_they_change(self) -> None:
        verifier = self.make(
            token_hmac_previous_secret_key="o" * 32, token_rsa_public_key=public(RSA) + public(OTHER_RSA)
        )
        for key, algorithm in ((SECRET, "HS256"), ("o" * 32, "HS384"), (RSA, "RS256"), (OTHER_RSA, "RS512")):
            self.assertEqual(verifier.connection(self.sign(key, algorithm, sub="1"), NOW).user, "1")
        self.bad("its signature is wrong", verifier=verifier, key="x" * 32)

    def test_clocks_that_differ(self) -> None:
        verifier = self.make(token_leeway=5)
        for claims, good in (
            ({"exp": NOW - 4}, True), ({"exp": NOW - 5}, False), ({"nbf": NOW + 5}, True), ({"nbf": NOW + 6}, False),
        ):  # fmt: skip
            if good:
                verifier.connection(self.sign(**claims), NOW)
            else:
                self.expired(verifier.connection, self.sign(**claims), NOW)

    def test_keys_without_pyjwt(self) -> None:
        self.addCleanup(sys.modules.update, {"jwt": sys.modules["jwt"]})
        sys.modules["jwt"] = None  # type: ignore[assignment]
        self.refused("keys for tokens need PyJWT: pip install 'longconn[jwt]'")
        JWTVerifier(Settings())  # without keys it is not needed

    def test_a_short_secret_is_logged_once_and_works(self) -> None:
        verifier = self.make(token_hmac_secret_key="secret")
        with self.assertLogs("longconn", logging.WARNING) as logs:
            verifier.warn()
            self.make().warn()
        self.assertEqual(len(logs.output), 1)
        self.assertIn("token_hmac_secret_key is shorter than 32 bytes", logs.output[0])
        self.assertNotIn("secret\n", logs.output[0])
        token = self.sign("secret", sub="42")
        self.flushWarnings()
        self.assertEqual(verifier.connection(token, NOW).user, "42")
        self.assertEqual(self.flushWarnings(), [])

    def test_the_service_gives_the_hub_a_verifier(self) -> None:
        clock = FakeClock()
        service = LongConnService(clock, Settings(token_hmac_secret_key=SECRET))
        self.addCleanup(service.hub.stop)
        assert service.hub.gate.verifier is not None
        self.assertEqual(service.hub.gate.verifier.connection(self.sign(sub="42"), NOW).user, "42")
        self.assertRaises(ConfigError, LongConnService, clock, Settings(token_rsa_public_key="/nowhere"))
        hub = Hub(clock)
        self.addCleanup(hub.stop)
        hub.gate.verifier = own = self.make()
        self.assertIs(LongConnService(clock, hub=hub).hub.gate.verifier, own)
