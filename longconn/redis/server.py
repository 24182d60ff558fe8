"""The link to a Redis server: connects, finds out what the server is, stays, and comes back."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, CertificateOptions, optionsForClientTLS, trustRootFromCertificates
from twisted.python.failure import Failure
from zope.interface import implementer

from longconn.core.errors import ConfigError
from longconn.core.ids import new_id
from longconn.core.log import about, log
from longconn.core.settings import Settings
from longconn.redis.address import RedisAddress, parse_address
from longconn.redis.broker import RedisBroker
from longconn.redis.connection import QuietFactory, RedisConnection, fields, text, words_of
from longconn.redis.errors import LinkLostError, RedisError, RefusedError
from longconn.redis.link import Answered, Listener, Words
from longconn.redis.scripts import BEAT, ENTER, SCRIPTS, Script
from longconn.redis.sentinel import ask_for_master

#: Seconds between two beats; each is a write, and a sign of life.
BEAT_INTERVAL = 3
#: Seconds without a byte from the server while a command waits, after which the connection counts as dead.
SILENCE = 8.0
CONNECT_TIMEOUT = 5.0
#: Seconds between two questions to the Sentinels.
_SENTINEL_INTERVAL = 5
#: Seconds between two attempts to connect.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_OLDEST = (6, 2)
#: The run of a replica that was never promoted (redis, `replication.c`).
_NO_REPLICATION = "0" * 40


class RedisLink:
    """One connection to the server at `address`, as `longconn.redis.link.Link` has it.

    The constructor raises ConfigError if hiredis is not installed, or a file of certificates cannot be read.
    """

    def __init__(self, reactor: Any, address: RedisAddress) -> None:
        if find_spec("hiredis") is None:
            raise ConfigError("a broker in Redis needs hiredis: pip install longconn[redis]")
        self.address = address
        #: why publications are not taken; empty if they are
        self.problem = "the broker is not reached yet"
        self.up = False
        self._reactor = reactor
        self._trust_root = _trust_root(address)
        self._listener: Listener
        self._connection: RedisConnection | None = None
        self._call: Any = None
        self._attempt: Deferred[Any] | None = None
        self._pause = _FIRST_PAUSE
        self._stopped = False
        self._closed: Deferred[None] | None = None
        # The generation of the server's data, and the beats that this process saw in it.
        self._generation = ""
        self._beats = 0
        self._run_id = ""
        self._durable = False
        # The host and port of the connection, where Sentinels know the master.
        self._master: tuple[str, int] | None = None
        # The bytes that had come when the server was last known to be alive, and the time.
        self._heard = (0, 0.0)
        self._seconds = 0
        self._logged = ""

    # Commands.

    def call(self, script: Script, keys: Sequence[str], arguments: Words, done: Answered) -> None:
        if self.up:
            self._run(script, keys, arguments, done)
        else:
            done(LinkLostError(self.problem, sent=False))

    def command(self, *words: bytes | str | int, done: Answered | None = None) -> None:
        # While a connection is new, the shard does not know the generation of the server's data yet.
        if self.up:
            self._send(words, done)
        elif done is not None:
            done(LinkLostError(self.problem, sent=False))

    def _run(self, script: Script, keys: Sequence[str], arguments: Words, done: Answered) -> None:
        words = ("EVALSHA", script.digest, len(keys), *keys, *arguments)

        def answered(reply: Any) -> None:
            if isinstance(reply, RefusedError) and reply.code == "NOSCRIPT":
                self._send(("SCRIPT", "LOAD", script.source), _ignore)
                self._send(words, done)
            else:
                done(reply)

        self._send(words, answered)

    def _send(self, words: Words, done: Answered | None) -> None:
        if self._connection is not None:
            self._connection.send(words, done)
        elif done is not None:
            done(LinkLostError(self.problem, sent=False))

    # The connection.

    def start(self, listener: Listener) -> None:
        self._listener = listener
        self._stopped = False
        self._connect()

    def stop(self) -> None:
        """Send what waits, and close."""
        self._stopped = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._attempt is not None:
            self._attempt.cancel()
        if self._connection is not None:
            self._closed = Deferred()
            self._connection.transport.loseConnection()

    def closed(self) -> Deferred[None]:
        """Fires when there is no connection any more, after `stop`."""
        return self._closed if self._closed is not None else succeed(None)

    def _later(self, delay: float, function: Callable[[], None]) -> None:
        def run() -> None:
            self._call = None
            function()

        self._call = self._reactor.callLater(delay, run)

    def _connect(self) -> None:
        found = (
            self._find_master()
            if self.address.master
            else succeed(self.address.hosts[0] if self.address.hosts else None)
        )
        attempt = found.addCallback(self._connect_to)
        self._attempt = attempt
        attempt.addErrback(self._on_failed)

    def _find_master(self) -> Deferred[tuple[str, int]]:
        return ask_for_master(self._reactor, self.address, self._endpoint)

    def _connect_to(self, where: tuple[str, int] | None) -> Deferred[RedisConnection]:
        self._master = where
        protocol = RedisConnection(self._on_open, self._on_push, self._on_lost)
        connected: Deferred[RedisConnection] = self._endpoint(where).connect(QuietFactory(protocol))
        return connected

    def _endpoint(self, where: tuple[str, int] | None) -> Any:
        if where is None:
            return UNIXClientEndpoint(self._reactor, self.address.path, timeout=CONNECT_TIMEOUT)
        host, port = where
        endpoint: Any = HostnameEndpoint(self._reactor, host, port, timeout=CONNECT_TIMEOUT)
        if not self.address.tls:
            return endpoint
        if self.address.verify:
            return wrapClientTLS(optionsForClientTLS(host, trustRoot=self._trust_root), endpoint)
        unverified: Any = _Unverified()
        return wrapClientTLS(unverified, endpoint)

    def _on_failed(self, failure: Failure) -> None:
        self._attempt = None
        if not self._stopped and self._connection is None:
            self._fail(RedisError(failure.getErrorMessage().rstrip(".")))

    def _fail(self, error: RedisError) -> None:
        """There is no connection: try again after a pause."""
        self.problem = f"the broker at {self.address} is away: {error}"
        if self._logged != str(error):
            self._logged = str(error)
            log.error("%s", self.problem, extra=about("broker_lost", address=self.address))
        self._listener.on_down(error)
        if self._call is None and not self._stopped:  # what it was told may have made a program stop it
            self._later(self._pause * random.uniform(0.75, 1.25), self._connect)
        self._pause = min(_LONGEST_PAUSE, self._pause * 2)

    # The first commands of a connection.

    def _on_open(self, connection: RedisConnection) -> None:
        self._attempt = None
        self._connection = connection
        address = self.address
        login = ("AUTH", address.user or "default", address.password) if address.user or address.password else ()
        first = [("HELLO", 3, *login, "SETNAME", "longconn")]
        if address.database:
            first.append(("SELECT", address.database))
        first += [("INFO", "server"), ("INFO", "replication"), _DURABLE]
        first += [("SCRIPT", "LOAD", each.source) for each in SCRIPTS]
        replies: list[Any] = []

        def answered(reply: Any) -> None:
            replies.append(reply)
            if len(replies) == len(first):
                self._known(first, replies)

        for each in first:
            connection.send(each, answered)
        self._heard = (0, self._reactor.seconds())
        if self._call is None:
            self._later(1.0, self._watch)

    def _known(self, commands: list[Any], replies: list[Any]) -> None:
        if self._connection is None or isinstance(replies[-1], LinkLostError):
            return
        by_command = dict(zip(commands, replies, strict=True))
        optional = by_command.get(_DURABLE)
        refused = [each for each in replies if isinstance(each, RefusedError) and each is not optional]
        try:
            if refused:
                raise refused[0]
            server, replication = fields(by_command["INFO", "server"]), fields(by_command["INFO", "replication"])
            version = server.get("redis_version", "")
            if _numbers(version) < _OLDEST:
                raise RedisError(f"Redis {version} is too old: 6.2 is the oldest that has all commands")
            if replication.get("role") != "master":
                raise RedisError("it is a replica, which takes no writes")
        except RedisError as error:
            self._connection.abort(error)
            return
        self._durable = _is_durable(optional)
        promoted = bool(self.address.master) or replication.get("master_replid2", _NO_REPLICATION) != _NO_REPLICATION
        arguments = (
            server["run_id"], int(self._durable), int(promoted), self._generation, self._beats,
            new_id(), self._run_id,
        )  # fmt: skip
        self._run_id = server["run_id"]
        self._run(ENTER, (self._key("generation"),), arguments, self._entered)

    def _entered(self, reply: Any) -> None:
        if isinstance(reply, RedisError):
            if self._connection is not None:
                self._connection.abort(reply)
            return
        generation = text(reply)
        if generation != self._generation:
            self._generation, self._beats = generation, 0
        self.up = True
        self._pause = _FIRST_PAUSE
        self._beat()
        self._listener.on_up(generation)

    # The connection lives.

    def _on_push(self, push: list[Any]) -> None:
        if push[0] == b"message":
            self._listener.on_message(push[1], push[2])

    def _on_lost(self, error: RedisError) -> None:
        self._connection = None
        self.up = False
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._stopped:
            if self._closed is not None:
                self._closed.callback(None)
            return
        self._fail(error)

    def _watch(self) -> None:
        """Once a second: is the server alive?"""
        connection = self._connection
        if connection is None:
            return
        received, since = self._heard
        now = self._reactor.seconds()
        if connection.received != received or not connection.waiting:
            self._heard = (connection.received, now)
        elif now - since >= SILENCE:
            connection.abort(RedisError(f"no answer for {SILENCE:.0f} s"))
            return
        self._seconds += 1
        if self.up and (self.problem or self._seconds % BEAT_INTERVAL == 0):
            self._beat()
        if self.up and self.address.master and self._seconds % _SENTINEL_INTERVAL == 0:
            self._find_master().addCallbacks(self._compare_master, _ignore)
        self._later(1.0, self._watch)

    def _compare_master(self, master: tuple[str, int]) -> None:
        """A master that was replaced may go on taking writes, which are lost when it becomes a replica."""
        if self._connection is not None and master != self._master:
            self._connection.abort(RedisError("the Sentinels name another master"))

    def _beat(self) -> None:
        def known(reply: Any) -> None:
            self._durable = _is_durable(reply)

        self.command(*_DURABLE, done=known)
        self.call(BEAT, (self._key("generation"),), (self._generation, int(self._durable)), self._beaten)

    def _beaten(self, reply: Any) -> None:
        if isinstance(reply, LinkLostError) or self._connection is None:
            return
        if isinstance(reply, RefusedError):
            if reply.code == "READONLY":
                self._connection.abort(reply)
                return
            self._refuse(reply)
            return
        if not reply:
            self._connection.abort(RedisError("the server's data were removed"))
            return
        self._beats = int(reply)
        if self.problem:
            self.problem = self._logged = ""
            log.info("the broker at %s is there", self.address, extra=about("broker_found", address=self.address))
        self._listener.on_beat()

    def _refuse(self, error: RefusedError) -> None:
        """The server takes no writes."""
        self.problem = f"the broker at {self.address} takes no publications: {error}"
        if self._logged != str(error):
            self._logged = str(error)
            log.error("%s", self.problem, extra=about("broker_refuses", address=self.address))
        self._listener.on_refused()

    def _key(self, name: str) -> str:
        return f"{self.address.prefix}:{{longconn}}:{name}"


def redis_broker(reactor: Any, settings: Settings) -> RedisBroker:
    """A broker on the servers of `settings.broker`. Raises ConfigError."""
    addresses = [parse_address(each) for each in settings.broker]
    links = [(RedisLink(reactor, each), each.prefix) for each in addresses]
    return RedisBroker(reactor, links, settings)


_DURABLE = ("CONFIG", "GET", "append*")


def _is_durable(reply: Any) -> bool:
    """Whether each write is on the disk before it is answered. A server that does not say so is not durable."""
    if isinstance(reply, RedisError) or not reply:
        return False
    options = words_of(reply)
    return options.get("appendonly") == "yes" and options.get("appendfsync") == "always"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in version.split(".") if each.isdigit())


def _trust_root(address: RedisAddress) -> Any:
    """The authorities of the file, or None for those of the system. Raises ConfigError."""
    if not address.ca:
        return None
    try:
        found = x509.load_pem_x509_certificates(Path(address.ca).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"broker: {address.ca} has no certificates: {error}") from None
    return trustRootFromCertificates([Certificate(X509.from_cryptography(each)) for each in found])


def _ignore(reply: object) -> None:
    """Nothing depends on this answer."""


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """TLS to a server that shows any certificate."""

    def __init__(self) -> None:
        self._context = CertificateOptions(verify=False).getContext()

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)
