"""Attacks for `disturb` by connections that begin and do not go on: half a head, half a body, half a handshake of TLS.

Each function attacks a server on a port until a time, as those of `tests.long.crowds` do.
"""

import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.live.certificates import write_certificate
from tests.live.programs import Server
from tests.long.crowds import HEAD, Crowd, connect

#: Seconds between two bytes of a slow connection.
TRICKLE = 0.5
#: Connections of an attack.
MANY = 5_000


class SecureServer(Server):
    """A server whose port takes TLS, too."""

    def __init__(self, settings: str) -> None:
        self._certificates = tempfile.TemporaryDirectory()
        key, certificate = write_certificate(Path(self._certificates.name))
        super().__init__(f'{settings}tls_cert = ["{certificate}"]\ntls_key = ["{key}"]\n')

    def stop(self) -> None:
        super().stop()
        self._certificates.cleanup()


def _trickle(port: int, until: float, first: bytes) -> None:
    """Each of many sends this, and then a letter now and then. Those that the server closes are replaced."""
    crowd = Crowd(port)
    while time.monotonic() < until:
        crowd.come(MANY, first, until, reads=False)
        crowd.send(b"a")
        time.sleep(TRICKLE)


def slow_heads(port: int, until: float) -> None:
    """5,000 heads of HTTP come a letter at a time."""
    _trickle(port, until, f"GET / {HEAD}X-Slow: ".encode())


def slow_bodies(port: int, until: float) -> None:
    """5,000 bodies of nearly 1 MiB come a letter at a time."""
    _trickle(port, until, f"POST /channels/other {HEAD}Content-Length: 1000000\r\n\r\n".encode())


def slow_first_bytes(port: int, until: float) -> None:
    """5,000 first lines come a letter at a time: the port does not know yet what they are."""
    _trickle(port, until, b"G")


def silent(port: int, until: float) -> None:
    """5,000 connections say nothing. They are replaced after two seconds."""
    crowd = Crowd(port)
    while time.monotonic() < until:
        crowd.come(MANY, b"", until, reads=False)
        time.sleep(max(0.0, min(2.0, until - time.monotonic())))
        crowd.leave()


def hello(most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """The first bytes of a client of TLS."""
    context = ssl.create_default_context()
    context.maximum_version = most
    out = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


def _hellos(port: int, until: float, reads: bool) -> None:
    first = hello()
    crowd = Crowd(port)
    while time.monotonic() < until:
        crowd.come(200, first, until, reads)
        crowd.leave()


def answered_hellos(port: int, until: float) -> None:
    """Clients of TLS leave as soon as the server has signed its part of the handshake."""
    _hellos(port, until, reads=True)


def left_hellos(port: int, until: float) -> None:
    """Clients of TLS send the first bytes of a handshake, and leave at once."""
    _hellos(port, until, reads=False)


def held_hellos(port: int, until: float) -> None:
    """5,000 handshakes of TLS begin, and do not go on."""
    first = hello()
    crowd = Crowd(port)
    while time.monotonic() < until:
        crowd.come(MANY, first, until)
        crowd.read(min(until, time.monotonic() + 0.5))


def renegotiations(port: int, until: float) -> None:
    """A client of TLS 1.2 asks for a new handshake, as often as it can."""
    from OpenSSL import SSL

    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    while time.monotonic() < until:
        try:
            with connect(port) as plain:
                plain.settimeout(None)
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, b"\2" + bytes(15))
                secured = SSL.Connection(context, plain)
                secured.set_connect_state()
                secured.do_handshake()
                while time.monotonic() < until:
                    secured.renegotiate()
                    secured.do_handshake()
                    secured.sendall(b"\n")
        except (OSError, SSL.Error):
            pass


HANDSHAKES: dict[str, Callable[[int, float], None]] = {
    "slow-heads": slow_heads,
    "slow-bodies": slow_bodies,
    "slow-first-bytes": slow_first_bytes,
    "silent": silent,
}
#: These need a server whose port takes TLS.
SECURE_HANDSHAKES: dict[str, tuple[Callable[[str], Any], Callable[[int, float], None]]] = {
    "tls-answered-hellos": (SecureServer, answered_hellos),
    "tls-left-hellos": (SecureServer, left_hellos),
    "tls-held-hellos": (SecureServer, held_hellos),
    "tls-renegotiations": (SecureServer, renegotiations),
}
