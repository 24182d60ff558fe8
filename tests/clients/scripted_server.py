"""A server over TCP whose answers the test gives."""

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.clients.network import Case


class Script(Protocol):
    """A server whose answers the test gives. It answers `connect` itself, by `connects`; None: not at all."""

    def __init__(self, case: "ScriptedCase") -> None:
        self._case = case
        self._buffer = b""
        self.commands: list[Any] = []
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            command = json.loads(line)
            if "connect" in command and self._case.connects is not None:
                self.commands.append(command)
                self.say({"id": command["id"]} | self._case.connects)
            else:
                self.commands.append(command)

    def say(self, *objects: Any) -> None:
        assert self.transport is not None
        self.transport.write(b"".join([json.dumps(each).encode() + b"\n" for each in objects]))

    def answer(self, method: str, **members: Any) -> Any:
        """Answer the last command, which has this method; returns its body."""
        self._case.network.settle()
        command = self.commands.pop()
        self._case.assertIn(method, command)
        self.say({"id": command["id"]} | (members if "error" in members else {method: members}))
        self._case.network.settle()
        return command[method]

    def refuse(self, method: str, code: int, temporary: bool = False) -> Any:
        return self.answer(method, error={"code": code, "message": "no", "temporary": temporary})

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class ScriptedCase(Case):
    """Clients over TCP, and a scripted server."""

    def setUp(self) -> None:
        super().setUp()
        self.connects: dict[str, Any] | None = {"connect": {"client": "me"}}
        self.scripts: list[Script] = []
        self.network.server = Factory.forProtocol(self._build)

    def _build(self) -> Script:
        self.scripts.append(Script(self))
        return self.scripts[-1]

    @property
    def script(self) -> Script:
        """The server's end of the newest connection."""
        self.network.settle()
        return self.scripts[-1]

    def subscribing(self, client: Any, **options: Any) -> "Deferred[Any]":
        self.get(client.connected())
        pending: Deferred[Any] = client.subscribe("c", **options)
        return pending

    def live(self, client: Any, **options: Any) -> Any:
        pending = self.subscribing(client, **options)
        self.script.answer("subscribe", recoverable=True, epoch="e", offset=3)
        return self.get(pending)
