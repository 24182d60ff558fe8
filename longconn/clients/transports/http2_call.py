"""The client's end of an HTTP/2 connection with one call on it (RFC 9113): bytes in, bytes out, no I/O.

Frames are read by the `h2` library, except GOAWAY: after it the library would take no frame more, but a call that the
server knows of goes on (section 6.8).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from longconn.clients.errors import ClientError, ConnectionFailed, NotLongconn
from longconn.clients.transports.json_frames import not_longconn
from longconn.wire.http2 import FRAME_HEADER_SIZE, GOAWAY, PREFACE, SETTINGS, ErrorCode, FrameReader, HTTP2Error

#: The call's stream (section 5.1.1).
_STREAM = 1
#: Bytes of a header block, and of its list of headers as section 6.5.2 counts them.
_MOST_HEADERS = 64 * 1024


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The response's headers."""

    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class ResponseData:
    """A part of the response's body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ResponseEnd:
    """The end of the response. `fields` are its trailers, or its headers if it has nothing else."""

    fields: dict[str, str]


ResponsePart: TypeAlias = ResponseHead | ResponseData | ResponseEnd


class HTTP2Call:
    """One call. `feed` takes bytes of the server and yields the parts of the response; `take` gives bytes to send.

    Each part of the body counts in the flow-control windows until `credit` is called. Without it the server has to
    stop after one window.
    """

    def __init__(self, headers: Sequence[tuple[str, str]], where: str) -> None:
        self._where = where
        self._start = b""
        self._is_http2 = False
        self._frames = FrameReader(_MOST_HEADERS)
        for _ in self._frames.feed(PREFACE):  # only a client's bytes begin with it
            pass
        self._library = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1"))
        self._library.local_settings = Settings(
            client=True, initial_values={SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: _MOST_HEADERS}
        )
        self._library.decoder.max_header_list_size = _MOST_HEADERS
        self._library.initiate_connection()
        self._library.send_headers(_STREAM, list(headers))
        # The part of the request that the window has no room for; whether the request ends after it, and has ended.
        self._output = bytearray()
        self._ending = self._ended = False
        # The response has ended, or the connection failed.
        self._over = False
        # Bytes that were received and not credited.
        self._uncredited = 0
        self._fields: dict[str, str] = {}

    # Sending.

    def send(self, data: bytes) -> None:
        """Add to the request's body."""
        self._output += data

    def end(self) -> None:
        """The request ends after the parts that were added."""
        self._ending = True

    def credit(self) -> None:
        """Let the server send as much again as was received (section 5.2)."""
        if self._uncredited and not self._over:
            self._library.acknowledge_received_data(self._uncredited, _STREAM)
        self._uncredited = 0

    def take(self, body: bool = True) -> bytes:
        """The bytes to send now; with `body` false, without the request's body."""
        library = self._library
        while body and not (self._over or self._ended):
            size = min(len(self._output), library.max_outbound_frame_size, library.local_flow_control_window(_STREAM))
            self._ended = self._ending and size == len(self._output)
            if size <= 0 and not self._ended:
                break
            library.send_data(_STREAM, bytes(self._output[:size]), end_stream=self._ended)
            del self._output[:size]
        return library.data_to_send()

    # Receiving.

    def feed(self, data: bytes) -> Iterator[ResponsePart]:
        """Yields the parts of the response in `data`, in order. Then raises ClientError if the connection failed."""
        try:
            self._check_start(data)
            for kind, _, _, frame in self._frames.feed(data):
                if self._over:
                    return
                if kind == GOAWAY:
                    self._on_goaway(frame)
                    continue
                for event in self._library.receive_data(frame):
                    yield from self._on_event(event)
        except (H2Error, HTTP2Error) as error:
            self._over = True
            raise self._broken(" ".join(str(error).split())) from error
        except ClientError:
            self._over = True  # the library accepts no frame any more
            raise

    def _check_start(self, data: bytes) -> None:
        """The first frame is SETTINGS (section 3.4). Raises NotLongconn for another protocol."""
        if not self._is_http2:
            self._start += data
            if self._start[0] or (len(self._start) > 3 and self._start[3] != SETTINGS):
                raise not_longconn(self._start)
            self._is_http2 = len(self._start) > 3

    def _on_goaway(self, frame: bytes) -> None:
        """Section 6.8. The call goes on, unless the frame has an error or the server did not get the call."""
        if len(frame) < FRAME_HEADER_SIZE + 8:
            raise self._broken("a GOAWAY that is too short")
        last, code = struct.unpack_from(">II", frame, FRAME_HEADER_SIZE)
        if code or last < _STREAM:
            debug = " ".join(frame[FRAME_HEADER_SIZE + 8 :].decode("utf-8", "replace").split())
            raise ConnectionFailed(f"{self._where} goes away: {debug or _name(code)}")

    def _on_event(self, event: events.Event) -> Iterator[ResponsePart]:
        if isinstance(event, events.ResponseReceived):
            self._fields = _fields(event.headers)
            if event.stream_ended is None:
                yield ResponseHead(self._fields)
        elif isinstance(event, events.DataReceived):
            self._uncredited += event.flow_controlled_length
            if event.data:
                yield ResponseData(event.data)
        elif isinstance(event, events.TrailersReceived):
            self._fields = _fields(event.headers)
        elif isinstance(event, events.StreamEnded):
            self._over = True
            yield ResponseEnd(self._fields)
        elif isinstance(event, events.StreamReset):
            self._over = True
            raise ConnectionFailed(f"{self._where} has broken the call off: {_name(int(event.error_code))}")

    def _broken(self, what: str) -> NotLongconn:
        return NotLongconn(f"{self._where} breaks the rules of HTTP/2: {what}")


def _fields(headers: Sequence[tuple[bytes | str, bytes | str]]) -> dict[str, str]:
    return {str(name): str(value) for name, value in headers}


def _name(code: int) -> str:
    """The name of an error code (section 7)."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"error {code}"
