"""Real sockets: a service on ports of its own, connections to it, and waits for events, never for luck."""

import logging
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import TestCase

from docs.terminals import reserve
from longconn import LongConnService, Settings
from longconn.testing import HTTPClient, HTTPResponse, LineClient, WebSocketClient

reactor: Any = installed

#: Seconds between two looks at a condition that tells nobody when it comes true.
_LOOK = 0.01


class Link(Protocol):
    """A connection as the clients of `longconn.testing` want one, over a socket of Twisted's."""

    transport: Any

    def __init__(self) -> None:
        self.on_data: Callable[[bytes], None] | None = None
        self.on_closed: Callable[[], None] | None = None
        self.received = bytearray()
        self.closed = False
        self.lost: Any = None
        self._waits: list[tuple[Callable[[], Any], Deferred[None]]] = []

    @property
    def local(self) -> Any:
        return self._local

    def connectionMade(self) -> None:
        self._local = self.transport.getHost()

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def close(self) -> None:
        self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if self.on_data is None:
            self.received += data
        else:
            self.on_data(data)
        self._look()

    def connectionLost(self, reason: Any = None) -> None:
        self.closed = True
        self.lost = reason
        if self.on_closed is not None:
            self.on_closed()
        self._look()

    def until(self, condition: Callable[[], Any]) -> Deferred[None]:
        """Fires when the condition holds: it is looked at whenever something was read, and at the end."""
        wait: Deferred[None] = Deferred()
        self._waits.append((condition, wait))
        self._look()
        return wait

    def _look(self) -> None:
        for each in list(self._waits):
            if each[0]():
                self._waits.remove(each)
                each[1].callback(None)


def until(condition: Callable[[], Any]) -> Deferred[None]:
    """Fires when the condition holds, for what nobody tells of; the test's time-out bounds it."""
    done: Deferred[None] = Deferred()

    def look() -> None:
        if not done.called:
            if condition():
                done.callback(None)
            else:
                reactor.callLater(_LOOK, look)

    look()
    return done


class Case(TestCase):
    """Serves on `serve`, and cleans up every connection, port and folder that it made."""

    timeout = 20
    service: LongConnService

    def serve(self, *ports: str, **settings: Any) -> LongConnService:
        """The whole server on these ports, by default on one of 127.0.0.1."""
        settings.setdefault("shutdown_timeout", 1.0)
        self.service = LongConnService(reactor, Settings(**settings), port=ports or ("127.0.0.1:0",))
        self.service.startService()
        self.addCleanup(self.service.stopService)
        return self.service

    @property
    def hub(self) -> Any:
        return self.service.hub

    @property
    def port(self) -> int:
        number: int = self.service.addresses[0][1].port
        return number

    def free_port(self) -> int:
        """The number of a port that is given to nothing else until the test ends, whether a server listens or not."""
        kept = reserve()
        self.addCleanup(kept.close)
        number: int = kept.getsockname()[1]
        return number

    def folder(self) -> Path:
        """A short one: a socket's path has a hundred bytes at most."""
        path = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, path)
        return Path(path)

    async def dial(self, endpoint: str | None = None) -> Link:
        """A connection, by default to the service's first port."""
        link: Link = await connectProtocol(clientFromString(reactor, endpoint or f"tcp:127.0.0.1:{self.port}"), Link())

        def hang_up() -> Any:
            if not link.closed:
                link.transport.abortConnection()
            return link.until(lambda: link.closed)

        self.addCleanup(hang_up)
        return link

    async def line_client(self, endpoint: str | None = None) -> LineClient:
        """A chat client that others know of."""
        client = LineClient(await self.dial(endpoint))
        client.say("ping")
        await client.connection.until(lambda: "pong" in client.lines)
        return client

    async def websocket_client(self, path: str = "/ws", endpoint: str | None = None) -> WebSocketClient:
        client = WebSocketClient(await self.dial(endpoint), path)
        await client.connection.until(lambda: client.status)
        return client

    async def http_client(self, endpoint: str | None = None) -> HTTPClient:
        return HTTPClient(await self.dial(endpoint))

    async def answer(self, client: HTTPClient, method: str, path: str, *arguments: Any) -> HTTPResponse:
        """A whole answer."""
        response = client.request(method, path, *arguments)
        await client.connection.until(lambda: response.complete)
        return response

    async def stream(self, path: str) -> HTTPResponse:
        """An answer that goes on, after its head."""
        client = await self.http_client()
        response = client.get(path)
        await client.connection.until(lambda: response.status)
        response.connection = client.connection  # type: ignore[attr-defined]
        return response

    def bare_socket(self, receive_buffer: int = 0) -> socket.socket:
        """A socket that is connected to the first port, and only does what it is told."""
        bare = socket.socket()
        self.addCleanup(bare.close)
        if receive_buffer:
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        bare.connect(("127.0.0.1", self.port))  # the kernel accepts
        return bare

    def warnings(self) -> list[str]:
        """What is logged from now on as a warning or worse, as a list that grows."""
        messages: list[str] = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("longconn")
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        return messages
