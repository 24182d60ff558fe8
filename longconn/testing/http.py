"""An HTTP/1.1 client on one persistent connection, for responses that may stream without an end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from longconn.testing.lines import ConnectedClient, Connection


@dataclass(frozen=True)
class ServerEvent:
    """One server-sent event (WHATWG HTML, section 9.2)."""

    event: str
    data: str
    id: str | None = None

    def json(self) -> Any:
        return json.loads(self.data)


class HTTPResponse:
    """A response as far as it has arrived. `complete` is true once all of it has; a stream's when it ends."""

    def __init__(self, method: str, settle: Callable[[], Any] | None = None) -> None:
        self.method = method
        self.status = 0
        self.reason = ""
        #: by name in lower case; the values of a repeated field are joined by commas
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False
        self._settle = settle
        self._seen = 0

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def lines(self) -> list[str]:
        """The body's complete lines. A heartbeat is an empty line."""
        return self.text.split("\n")[:-1]

    def events(self) -> list[ServerEvent]:
        """All server-sent events so far, without comments."""
        events = []
        for block in self.text.split("\n\n")[:-1]:
            fields: dict[str, list[str]] = {}
            for line in block.split("\n"):
                name, _, value = line.partition(":")
                if name:
                    fields.setdefault(name, []).append(value.removeprefix(" "))
            if "data" in fields:
                kind = fields.get("event", ["message"])[-1]
                events.append(ServerEvent(kind, "\n".join(fields["data"]), fields.get("id", [None])[-1]))
        return events

    def read(self) -> list[ServerEvent]:
        """The events since the last call, without `position`, the first. Runs all calls that are due first."""
        if self._settle is not None:
            self._settle()
        events = self.events()
        fresh = events[self._seen :]
        self._seen = len(events)
        return [each for each in fresh if each.event != "position"]


class HTTPClient(ConnectedClient):
    """Sends requests over one connection and reads the responses in order."""

    def __init__(self, connection: Connection, settle: Callable[[], Any] | None = None) -> None:
        super().__init__(connection, settle)
        self._data = b""
        self._waiting: list[HTTPResponse] = []
        self._body: Callable[[HTTPResponse], bool] | None = None
        self._left = 0
        connection.on_data = self._on_data
        connection.on_closed = self._on_closed

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        version: str = "1.1",
    ) -> HTTPResponse:
        """Send a request. The response fills as bytes arrive. Host and Content-Length are added unless given."""
        sent = body.encode() if isinstance(body, str) else body
        lines = list(headers)
        given = {name.lower() for name, _ in lines}
        if "host" not in given:
            lines.insert(0, ("Host", "localhost:9999"))
        if sent is not None and not given & {"content-length", "transfer-encoding"}:
            lines.append(("Content-Length", str(len(sent))))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines)
        response = self.expect(method)
        self.connection.send(f"{method} {path} HTTP/{version}\r\n{head}\r\n".encode() + (sent or b""))
        if self._settle is not None:
            self._settle()
        return response

    def expect(self, method: str = "GET") -> HTTPResponse:
        """The response to a request that the test sends by `connection.send`."""
        response = HTTPResponse(method, self._settle)
        self._waiting.append(response)
        return response

    def get(self, path: str, headers: Iterable[tuple[str, str]] = ()) -> HTTPResponse:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, body: bytes | str, headers: Iterable[tuple[str, str]] = ()) -> HTTPResponse:
        return self.request("POST", path, body, headers)

    def _on_data(self, data: bytes) -> None:
        self._data += data
        while self._waiting and self._data:
            if self._body is None and not self._read_head(self._waiting[0]):
                break
            if self._body is not None and not self._body(self._waiting[0]):
                break
            self._end()
        if self.on_read is not None:
            self.on_read()

    def _end(self) -> None:
        self._waiting.pop(0).complete = True
        self._body = None

    def _on_closed(self) -> None:
        if self._body == self._read_until_closed:
            self._end()
        if self.on_read is not None:
            self.on_read()

    def _read_head(self, response: HTTPResponse) -> bool:
        """Read the head. Returns False if it is not complete yet."""
        head, found, rest = self._data.partition(b"\r\n\r\n")
        if not found:
            return False
        self._data = rest
        first, *lines = head.decode("latin-1").split("\r\n")
        _, status, response.reason = first.split(" ", 2)
        headers: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(name.lower(), []).append(value.strip())
        response.headers = {name: ", ".join(values) for name, values in headers.items()}
        if status == "100":
            return self._read_head(response)
        response.status = int(status)
        self._body = self._body_of(response)
        return True

    def _body_of(self, response: HTTPResponse) -> Callable[[HTTPResponse], bool]:
        """How the body is delimited (RFC 9112, section 6.3)."""
        if response.method == "HEAD" or response.status in (101, 204, 304):
            self._left = 0
            return self._read_sized
        if response.headers.get("transfer-encoding") == "chunked":
            return self._read_chunks
        if "content-length" in response.headers:
            self._left = int(response.headers["content-length"])
            return self._read_sized
        return self._read_until_closed

    def _read_sized(self, response: HTTPResponse) -> bool:
        part, self._data = self._data[: self._left], self._data[self._left :]
        response.body += part
        self._left -= len(part)
        return not self._left

    def _read_until_closed(self, response: HTTPResponse) -> bool:
        response.body += self._data
        self._data = b""
        return False

    def _read_chunks(self, response: HTTPResponse) -> bool:
        while True:
            size, found, rest = self._data.partition(b"\r\n")
            if not found:
                return False
            length = int(size, 16)
            if len(rest) < length + 2:
                return False
            if rest[length : length + 2] != b"\r\n":
                raise ValueError("a chunk does not end where it says")
            response.body += rest[:length]
            self._data = rest[length + 2 :]
            if not length:
                return True
