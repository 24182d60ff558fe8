"""Chunked bodies (RFC 9112, section 7.1): twisted.web's decoder, with the chunk extensions that it refuses."""

from __future__ import annotations

import re

from twisted.web.http import _ChunkedTransferDecoder, maxChunkSizeLineLength

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 9110, section 5.6.4: a quoted string with quoted pairs.
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
#: Section 7.1.1: a size, and extensions, with blanks before `;`.
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]+)(?:[\t ]*;[\t ]*" + _TOKEN + rb"(?:[\t ]*=[\t ]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)+"
)


class ChunkedBody(_ChunkedTransferDecoder):
    """Removes well-formed extensions before twisted.web reads the size; it judges any others."""

    def _dataReceived_CHUNK_LENGTH(self) -> bool:
        end = self._buffer.find(b"\r\n", self._start)
        if 0 <= end < maxChunkSizeLineLength:
            line = _SIZE_LINE.fullmatch(self._buffer, 0, end)
            if line is not None:
                del self._buffer[line.end(1) : end]
                self._start = 0
        return bool(super()._dataReceived_CHUNK_LENGTH())
