"""For the tests of the server API: a server with a key, and clients that speak Centrifugo's client protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn import Hub, Settings
from longconn.core.identity import Identity
from longconn.core.tokens import SubscriptionToken
from longconn.testing import FakeClock, MemoryServer

KEY = "a key: ü"
NOTHING: dict[str, Any] = {"result": {}}


def error(code: int, message: str) -> Any:
    return {"error": {"code": code, "message": message}}


BAD = error(107, "bad request")


class Users:
    """A verifier whose tokens are the users' names."""

    algorithms = ("a name",)

    def prepare(self, token: str, ready: Callable[[], None]) -> None:
        ready()

    def connection(self, token: str, now: float) -> Identity:
        return Identity(token, now + 1000 if token == "mortal" else None, b'{"role":"x"}')

    def subscription(self, *args: Any) -> SubscriptionToken:
        raise NotImplementedError


class Program:
    """A client of Centrifugo's client protocol over WebSocket."""

    def __init__(self, server: MemoryServer, user: str = "", channels: tuple[str, ...] = ()) -> None:
        self.socket = server.websocket_client("/connection/websocket", server._factory("http"))
        self._number = 0
        self.id = self.session = ""
        connected = self.ask("connect", {"token": user})["connect"]
        self.id, self.session = connected["client"], connected["session"]
        for each in channels:
            self.ask("subscribe", {"channel": each})

    def ask(self, method: str, body: Any) -> Any:
        self._number += 1
        self.socket.say(json.dumps({"id": self._number, method: body}))
        return next(each for each in self.read() if each.get("id") == self._number)

    def read(self) -> list[Any]:
        return [json.loads(line) for each in self.socket.read() for line in str(each).split("\n") if line != "{}"]

    def pushes(self) -> list[Any]:
        return [each["push"] for each in self.read()]

    @property
    def close(self) -> tuple[int | None, str]:
        self.socket.read()
        return self.socket.close_code, self.socket.close_reason


class Case(SynchronousTestCase):
    """A server with a key; at the end no delayed call may be left."""

    def setUp(self) -> None:
        self.serve()

    def serve(self, hub: Callable[[Settings], Hub] | None = None, **settings: Any) -> None:
        settings = {"ping_interval": 0, "anonymous": "yes", **settings}
        configured = Settings(**{"api_key": KEY, **settings})
        self.server = MemoryServer(hub=hub(configured) if hub else Hub(FakeClock(), configured))
        self.hub = self.server.hub
        self.hub.gate.verifier = Users()
        self.addCleanup(self.server.stop)

    def post(self, path: str, body: Any, *headers: tuple[str, str]) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body)
        response = self.server.http_client().post(path, data, headers or (("X-API-Key", KEY),))
        for _ in range(20):
            if response.complete:
                break
            self.server.advance(0.02)
        self.assertTrue(response.complete)
        return response

    def call(self, method: str, **body: Any) -> Any:
        response = self.post(f"/api/{method}", body)
        self.assertEqual((response.status, response.headers["content-type"]), (200, "application/json"))
        return response.json()

    def kept(self, channel: str = "c") -> list[Any]:
        return [each["data"] for each in self.call("history", channel=channel, limit=-1)["result"]["publications"]]
