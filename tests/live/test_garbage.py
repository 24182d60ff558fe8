"""A lost connection leaves no reference cycle: what it held is free at once, and no collection has to find it.

A full collection looks at every object of every client, and stops the server for as long. gRPC is not here: its
handlers are coroutines, whose exceptions refer to their frames. Nor is TLS: Twisted's wrapper is part of a cycle.
"""

import contextlib
import gc
import socket
import struct
from collections import Counter

from twisted.internet.defer import Deferred

from tests.live.common import Case, reactor, until
from tests.long.crowds import HEAD, UPGRADE

#: Connections of each kind.
COUNT = 4
#: Modules of objects that the server makes for a connection.
SERVER = ("longconn.core", "longconn.protocols", "longconn.wire", "autobahn", "twisted.web.server", "twisted.web.http")


def _http(line: str, *headers: str, body: str = "") -> bytes:
    length = (f"Content-Length: {len(body)}",) if body else ()
    return "\r\n".join((line + " " + HEAD.rstrip("\r\n"), *headers, *length, "", body)).encode()


def _upgrade(path: str) -> bytes:
    return UPGRADE.replace(b"/ws?channel=other", path.encode())


def _frame(text: str) -> bytes:
    return bytes((0x81, 0x80 | len(text))) + bytes(4) + text.encode()


CONNECT = '{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"other"}}'
KINDS: dict[str, bytes] = {
    "a silent connection": b"",
    "half a line": b"hal",
    "chat": b"/join other\nhello\n/who\n/channels\n/history\n",
    "structured lines": CONNECT.encode() + b"\n",
    "chat over WebSocket": UPGRADE + _frame("hello"),
    "echo over WebSocket": _upgrade("/echo") + _frame("hello"),
    "Centrifugo over WebSocket": _upgrade("/connection/websocket") + _frame(CONNECT),
    "Centrifugo's stream": _http("POST /connection/http_stream", body=CONNECT),
    "Centrifugo's events": _http("POST /connection/sse", body=CONNECT),
    "events": _http("GET /channels/other/events"),
    "a stream": _http("GET /channels/other/stream"),
    "a long poll": _http("GET /channels/other?wait=10"),
    "a request": _http("GET /PrintHello"),
    "the page": _http("GET /"),
    "a refused request": _http("GET /nowhere"),
    "a bad request": b"GET / HTTP/1.1\r\nbad\r\n\r\n",
    "half a body": _http("POST /channels/other", body="hello")[:-2],
    "a publication": _http("POST /channels/other", body="hello"),
    "many publications": _http("POST /channels/other", "Content-Type: application/x-ndjson", body='"a"\n' * 100),
    "a call of the server API": _http("POST /api/info", "X-API-Key: key", body="{}"),
}


class GarbageTests(Case):
    timeout = 60

    async def _come_and_go(self) -> None:
        """Connections of every kind come, read for a while, and are closed and reset by turns."""
        connections = []
        for first in KINDS.values():
            for _ in range(COUNT):
                connection = self.bare_socket()
                connection.sendall(first)
                connection.setblocking(False)
                connections.append(connection)
        await self._pause(0.5)
        for number, connection in enumerate(connections):
            with contextlib.suppress(OSError):  # nothing came
                connection.recv(1 << 20)
            if number % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        await until(lambda: not self.hub.clients and not self.hub.places.guests)
        await self._pause(0.1)

    def _pause(self, seconds: float) -> Deferred[None]:
        over: Deferred[None] = Deferred()
        reactor.callLater(seconds, over.callback, None)
        return over

    async def test_connections_of_every_kind(self) -> None:
        self.serve("127.0.0.1:0", api_key="key", publish_rate=0)
        await self._come_and_go()  # the first of a kind makes what stays for all others
        self.addCleanup(gc.enable)
        self.addCleanup(gc.garbage.clear)
        self.addCleanup(gc.set_debug, 0)
        gc.collect()
        gc.disable()
        await self._come_and_go()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        self.maxDiff = None
        # Tests before this one may have left objects of clients.
        ours = [type(each) for each in gc.garbage if type(each).__module__.startswith(SERVER)]
        found = Counter(each.__name__ for each in ours)
        self.assertEqual({kind: count for kind, count in found.items() if count >= COUNT // 2}, {})
