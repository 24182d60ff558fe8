"""The application decides: who may connect, subscribe and publish, and what a call answers.

A hook is asked before what a client asks for has an effect. The application answers over HTTP
(`longconn.hooks.http`), or is the program that embeds the hub (`longconn.hooks.python`). What a caller asks one after
the other is decided one after the other; other callers do not wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from longconn.core.broker import Done
from longconn.core.disconnects import Disconnect
from longconn.core.errors import CommandError, Reason
from longconn.core.identity import AdmissionError, Granted

#: The key of reasons that the application gives.
APPLICATION = "application"

#: What one caller may ask for while it waits for decisions; then it waits, or is refused.
MOST_WAITING = 32


class HookRefusalError(CommandError):
    """The application refuses, with a number and a text of its own."""

    def __init__(self, code: int, message: str, temporary: bool = False) -> None:
        text = message.replace("{", "{{").replace("}", "}}")
        super().__init__(Reason(code, APPLICATION, text, temporary))


class HookDisconnectError(AdmissionError):
    """The application closes the connection."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(
            f"the application disconnects it: {code} {reason}", disconnect=Disconnect(code, "custom", reason)
        )


@dataclass(frozen=True, slots=True)
class HookRequest:
    """What a client asks for.

    `client` is the id of the client, empty for a request without a connection. `protocol` is as `Client.protocol`,
    `address` HOST:PORT. `data` is JSON, empty without any. `headers` are those of the client's HTTP request, or the
    metadata of its call, that the configuration names. What a client says of itself is in `data` and in nothing else.
    """

    client: str = ""
    protocol: str = ""
    address: str = ""
    user: str = ""
    channel: str = ""
    method: str = ""
    data: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HookReply:
    """What the application decides. Times are in seconds since 1970, `info` and `data` are JSON (empty: none).

    connect      user, expires_at, info, data for the client, subs: channels to which the server subscribes it
    refresh      expires_at and info, or expired
    subscribe    expires_at, info, data for the subscriber
    sub_refresh  expires_at and info, or expired
    publish      data in place of that of the client; without skip_history as any other
    rpc          data
    """

    user: str = ""
    expires_at: float | None = None
    expired: bool = False
    info: bytes = b""
    data: bytes = b""
    subs: Mapping[str, Granted] = field(default_factory=dict)
    skip_history: bool = False


#: Asks the application. `done` is called once, with an error if it refuses or cannot be asked.
Hook = Callable[[HookRequest, Done[HookReply]], None]


class Hooks:
    """The hooks that there are. `subscribe`, `publish` and `sub_refresh` are for channels whose options say so."""

    def __init__(
        self,
        connect: Hook | None = None,
        refresh: Hook | None = None,
        subscribe: Hook | None = None,
        publish: Hook | None = None,
        sub_refresh: Hook | None = None,
        rpc: Hook | None = None,
        header_names: tuple[str, ...] = (),
        stop: Callable[[], object] = lambda: None,
    ) -> None:
        self.connect = connect
        self.refresh = refresh
        self.subscribe = subscribe
        self.publish = publish
        self.sub_refresh = sub_refresh
        self.rpc = rpc
        #: the headers that requests bring, in lower case
        self.header_names = header_names
        #: is called when the server has stopped
        self.stop = stop

    def select(self, get: Callable[[str], str]) -> Mapping[str, str]:
        """The named headers; `get` has the value of one, empty if it is not there."""
        found = {name: get(name) for name in self.header_names}
        return {name: value for name, value in found.items() if value}


class Decisions:
    """What a caller has asked for, and what waits for the decision about it."""

    __slots__ = ("_busy", "_starting", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[Callable[[Callable[[], None]], None]] = deque()
        self._busy = self._starting = False

    def __len__(self) -> int:
        return len(self._waiting) + self._busy

    def run(self, work: Callable[[Callable[[], None]], None]) -> None:
        """Call `work` with a callable that it calls once when it is done; it waits for what was given before it."""
        self._waiting.append(work)
        self._start()

    def _start(self) -> None:
        if self._starting:
            return  # `work` answered within its call: the loop below goes on
        self._starting = True
        try:
            while self._waiting and not self._busy:
                self._busy = True
                self._waiting.popleft()(self._finished)
        finally:
            self._starting = False

    def _finished(self) -> None:
        self._busy = False
        self._start()
