"""The `h2` library's connection as this server uses it: states of streams, windows, settings, inbound header blocks."""

from __future__ import annotations

import re
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from h2.stream import StreamClosedBy
from hpack import Decoder
from hpack.exceptions import HPACKError
from hyperframe.frame import RstStreamFrame

from longconn.protocols.grpc.limits import MAX_STREAMS
from longconn.wire import http2
from longconn.wire.http2 import ErrorCode

#: Bytes of the receive window of a connection, which all its streams share.
CONNECTION_WINDOW = 1024 * 1024
#: How the library prints bytes that it did not copy.
_MEMORY = re.compile(r"<memory at 0x\w+>")


class _Decoder(Decoder):
    """Hides `content-length` from the library, which would end the whole connection for a wrong one."""

    def __init__(self) -> None:
        super().__init__()
        #: the values of `content-length` in the last block
        self.lengths: list[bytes] = []

    def decode(self, data: bytes, raw: bool = False) -> Any:
        fields = super().decode(data, raw)
        self.lengths = [value for name, value in fields if name == b"content-length"]
        return [each for each in fields if each[0] != b"content-length"] if self.lengths else fields


class _Encoder:
    """Replaces the library's encoder: header blocks without state (`longconn.wire.http2.encode_headers`)."""

    def __init__(self) -> None:
        self.header_table_size = 4096
        self._prefix = b"\x20"  # RFC 7541, section 6.3: the dynamic table has size 0

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        prefix, self._prefix = self._prefix, b""
        return prefix + http2.encode_headers(headers)


class ServerH2(H2Connection):
    """The library's connection, with a tighter bound on the closed streams that it remembers."""

    MAX_CLOSED_STREAMS = 4 * MAX_STREAMS
    decoder: _Decoder

    def _receive_data_frame(self, frame: Any) -> Any:
        """After a reset that the server has sent, DATA may still be on its way (RFC 9113, section 5.1, "closed").

        The library would reset the stream again for each frame, and report that as the peer's fault.
        """
        was_reset = self._stream_closed_by(frame.stream_id) is StreamClosedBy.SEND_RST_STREAM
        frames, found = super()._receive_data_frame(frame)
        if was_reset:
            frames = [each for each in frames if not isinstance(each, RstStreamFrame)]
            found = [each for each in found if not isinstance(each, StreamReset)]
        return frames, found

    @property
    def content_lengths(self) -> list[bytes]:
        """The values of `content-length` in the last header block; the library's events do not have them."""
        return self.decoder.lengths


def server_h2(max_head: int, first_window: int) -> tuple[ServerH2, bytes]:
    """Make the server's side of a connection. Returns it and the first bytes to send (RFC 9113, section 3.4).

    `max_head` bounds a list of headers, in bytes as section 6.5.2 counts them. `first_window` is the window of a stream
    at its start, from the time on when the peer has acknowledged it.
    """
    config = H2Configuration(
        client_side=False,
        header_encoding=None,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
        validate_inbound_headers=False,  # `longconn.wire.http2_fields` resets the stream, not the connection
        normalize_inbound_headers=False,
    )
    connection = ServerH2(config)
    # The library ends the connection for one stream too many. It allows twice as many as the peer may have, so that
    # `longconn.protocols.grpc.streams` can refuse a stream alone.
    values = {SettingCodes.MAX_CONCURRENT_STREAMS: 2 * MAX_STREAMS, SettingCodes.MAX_HEADER_LIST_SIZE: max_head}
    connection.local_settings = Settings(client=False, initial_values=values)
    connection.decoder = _Decoder()
    connection.decoder.max_header_list_size = max_head
    connection.encoder = _Encoder()  # type: ignore[assignment]
    connection.initiate_connection()
    more = CONNECTION_WINDOW - http2.DEFAULT_WINDOW
    connection.increment_flow_control_window(more)
    connection.data_to_send()
    values[SettingCodes.MAX_CONCURRENT_STREAMS] = MAX_STREAMS
    # The library applies it when the peer has acknowledged it (section 6.5.3).
    connection.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = values[SettingCodes.INITIAL_WINDOW_SIZE] = (
        first_window
    )
    return connection, http2.settings({int(key): value for key, value in values.items()}) + http2.window_update(0, more)


def describe_error(error: ProtocolError) -> tuple[ErrorCode, str]:
    """The error code for the peer and a text for the log."""
    code = ErrorCode(error.error_code)
    if isinstance(error.__context__, HPACKError) and code is ErrorCode.PROTOCOL_ERROR:
        code = ErrorCode.COMPRESSION_ERROR  # RFC 9113, section 4.3
    # The text of some errors is only the number of a stream.
    name, text = type(error).__name__, _MEMORY.sub("bytes", str(error))
    return code, text if text.startswith(name) else f"{name}: {text}"
