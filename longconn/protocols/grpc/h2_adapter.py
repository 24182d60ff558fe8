"""The `h2` library's connection as it is used here: states of streams, windows, settings, header blocks that come."""

from __future__ import annotations

import re
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hpack import Decoder
from hpack.exceptions import HPACKError

from longconn.protocols.grpc.limits import MAX_STREAMS
from longconn.wire import http2
from longconn.wire.http2 import ErrorCode

#: The window of a connection: of all its calls together.
CONNECTION_WINDOW = 1024 * 1024
#: How the library writes bytes that it did not copy.
_MEMORY = re.compile(r"<memory at 0x\w+>")


class _Decoder(Decoder):
    """The library does not see a `content-length`: for one that is wrong it would end the whole connection."""

    def __init__(self) -> None:
        super().__init__()
        #: those of the block that was read last
        self.lengths: list[bytes] = []

    def decode(self, data: bytes, raw: bool = False) -> Any:
        fields = super().decode(data, raw)
        self.lengths = [value for name, value in fields if name == b"content-length"]
        return [each for each in fields if each[0] != b"content-length"] if self.lengths else fields


class HTTP2(H2Connection):
    """What it remembers of closed streams is bounded more tightly."""

    MAX_CLOSED_STREAMS = 4 * MAX_STREAMS
    decoder: _Decoder

    @property
    def lengths(self) -> list[bytes]:
        """The fields `content-length` of the headers that came last: they are in no event."""
        return self.decoder.lengths


class _Encoder:
    """In the place of the library's: header blocks without state (`longconn.wire.http2.encode_headers`)."""

    def __init__(self) -> None:
        self.header_table_size = 4096
        self._first = b"\x20"  # RFC 7541, section 6.3: no dynamic table, whatever size it may have

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        first, self._first = self._first, b""
        return first + http2.encode_headers(headers)


def server_side(max_head: int) -> tuple[HTTP2, bytes]:
    """A connection that has begun, and what is to be sent first (RFC 9113, section 3.4).

    `max_head` bounds a list of headers, in bytes as section 6.5.2 counts them.
    """
    config = H2Configuration(
        client_side=False,
        header_encoding=None,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
        validate_inbound_headers=False,  # `longconn.wire.http2_fields` does, for a stream alone
        normalize_inbound_headers=False,
    )
    connection = HTTP2(config)
    # A stream more than we allow is refused by us; the library would end the connection.
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
    return connection, http2.settings({int(key): value for key, value in values.items()}) + http2.window_update(0, more)


def explained(error: ProtocolError) -> tuple[ErrorCode, str]:
    """What an error of the library's is for the peer, and a text for the log."""
    code = ErrorCode(error.error_code)
    if isinstance(error.__context__, HPACKError) and code is ErrorCode.PROTOCOL_ERROR:
        code = ErrorCode.COMPRESSION_ERROR  # RFC 9113, section 4.3
    # Of some errors the text is no more than the number of a stream.
    name, text = type(error).__name__, _MEMORY.sub("bytes", str(error))
    return code, text if text.startswith(name) else f"{name}: {text}"
