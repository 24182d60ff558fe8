"""The client's end of HTTP/2 with one call on it (RFC 9113), by the `h2` library: bytes in, bytes out, no I/O.

What comes is cut into frames here. A GOAWAY is acted on before the library sees it: it would take nothing more, and
a call that the other side knows of goes on (section 6.8).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from longconn.clients.errors import ClientError, ConnectionFailed, NotLongconn
from longconn.clients.transports.json_frames import foreign

#: The call's stream (section 5.1.1).
_STREAM = 1
#: Bytes of a frame's header (section 4.1), and those that a frame may carry (section 4.2): we allow no more.
_HEAD = 9
_MOST_FRAME = 16_384
_SETTINGS, _GOAWAY = 4, 7
#: Bytes of a list of headers, as section 6.5.2 counts them.
_MOST_HEADERS = 64 * 1024


@dataclass(frozen=True, slots=True)
class Head:
    """The answer's headers."""

    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class Data:
    """A part of the answer's body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The answer is over. `fields` are its trailers, or its headers where these were all of it."""

    fields: dict[str, str]


Received: TypeAlias = Head | Data | End


class HTTP2Call:
    """One call. `feed` gives what came, and `take` what is to be sent because of it, and of all else.

    Every part of the body counts in the window until `credit` is called: without it the other side has to stop.
    """

    def __init__(self, headers: Sequence[tuple[str, str]], where: str) -> None:
        self._where = where
        self._input = b""
        self._known = False
        self._library = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1"))
        self._library.local_settings = Settings(
            client=True, initial_values={SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: _MOST_HEADERS}
        )
        self._library.decoder.max_header_list_size = _MOST_HEADERS
        self._library.initiate_connection()
        self._library.send_headers(_STREAM, list(headers))
        # What is to be sent and has no room in the window; and whether the request ends after it.
        self._output = bytearray()
        self._ending = self._ended = self._over = False
        self._owed = 0
        self._fields: dict[str, str] = {}

    # Out.

    def send(self, data: bytes) -> None:
        """A part of the request's body, to go out as the windows let it."""
        self._output += data

    def end(self) -> None:
        """The request ends after what was sent."""
        self._ending = True

    def credit(self) -> None:
        """All that came was read: as much more may come (section 5.2)."""
        if self._owed and not self._over:
            self._library.acknowledge_received_data(self._owed, _STREAM)
        self._owed = 0

    def take(self, body: bool = True) -> bytes:
        """What is to be sent now; without `body` what is not the request's alone."""
        library = self._library
        while body and not (self._over or self._ended):
            size = min(len(self._output), library.max_outbound_frame_size, library.local_flow_control_window(_STREAM))
            self._ended = self._ending and size == len(self._output)
            if size <= 0 and not self._ended:
                break
            library.send_data(_STREAM, bytes(self._output[:size]), end_stream=self._ended)
            del self._output[:size]
        return library.data_to_send()

    # In.

    def feed(self, data: bytes) -> Iterator[Received]:
        """What came, in order. Raises ClientError for what ends the connection, after all that came before."""
        try:
            yield from self._read(data)
        except ClientError:
            self._over = True  # the library may take nothing more
            raise

    def _read(self, data: bytes) -> Iterator[Received]:
        self._input += data
        while self._input and not self._over:
            whole = self._cut()
            if whole is None:
                return
            if whole[3] == _GOAWAY:
                self._on_goaway(whole)
                continue
            try:
                found = self._library.receive_data(whole)
            except H2Error as error:
                raise self._broken(" ".join(str(error).split())) from error
            for each in found:
                yield from self._hear(each)

    def _cut(self) -> bytes | None:
        """The next frame; None if it is not whole. The first is SETTINGS (section 3.4), all else is no HTTP/2."""
        data = self._input
        if not self._known:
            if data[0] or (len(data) > 3 and data[3] != _SETTINGS):
                raise foreign(data)
            self._known = len(data) > 3
        if len(data) < _HEAD:
            return None
        size = int.from_bytes(data[:3], "big")
        if size > _MOST_FRAME:
            raise self._broken(f"a frame of {size} bytes")
        if len(data) < _HEAD + size:
            return None
        self._input = data[_HEAD + size :]
        return data[: _HEAD + size]

    def _on_goaway(self, whole: bytes) -> None:
        """Section 6.8. Without an error the call goes on, unless it came too late to be known there."""
        if len(whole) < _HEAD + 8:
            raise self._broken("a GOAWAY that is too short")
        last, code = struct.unpack_from(">II", whole, _HEAD)
        if code or last < _STREAM:
            told = " ".join(whole[_HEAD + 8 :].decode("utf-8", "replace").split())
            raise ConnectionFailed(f"{self._where} goes away: {told or _name(code)}")

    def _hear(self, event: events.Event) -> Iterator[Received]:
        if isinstance(event, events.ResponseReceived):
            self._fields = _fields(event.headers)
            if event.stream_ended is None:
                yield Head(self._fields)
        elif isinstance(event, events.DataReceived):
            self._owed += event.flow_controlled_length
            if event.data:
                yield Data(event.data)
        elif isinstance(event, events.TrailersReceived):
            self._fields = _fields(event.headers)
        elif isinstance(event, events.StreamEnded):
            self._over = True
            yield End(self._fields)
        elif isinstance(event, events.StreamReset):
            self._over = True
            raise ConnectionFailed(f"{self._where} has broken the call off: {_name(int(event.error_code))}")

    def _broken(self, what: str) -> NotLongconn:
        return NotLongconn(f"{self._where} breaks the rules of HTTP/2: {what}")


def _fields(headers: Sequence[tuple[bytes | str, bytes | str]]) -> dict[str, str]:
    return {str(name): str(value) for name, value in headers}


def _name(code: int) -> str:
    """Of section 7."""
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"error {code}"
