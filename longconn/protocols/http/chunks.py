"""Chunked bodies (RFC 9112, section 7.1): twisted.web's decoder, with the chunk extensions that it refuses.

A chunk is refused by its size, and not waited for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.web.http import _ChunkedTransferDecoder, maxChunkSizeLineLength

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 9110, section 5.6.4: a quoted string with quoted pairs.
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
#: Section 7.1.1: a size, and extensions, with blanks before `;`.
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]+)(?:[\t ]*;[\t ]*" + _TOKEN + rb"(?:[\t ]*=[\t ]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)+"
)


class ChunkedBody(_ChunkedTransferDecoder):
    """Removes well-formed extensions before twisted.web reads the size; it judges any others.

    `admit` is called with the size of each chunk before its bytes; after False, nothing more is read.
    """

    length: Any

    def __init__(
        self, on_data: Callable[[bytes], None], on_end: Callable[[bytes], None], admit: Callable[[int], bool]
    ) -> None:
        super().__init__(on_data, on_end)
        self._admit = admit

    def _dataReceived_CHUNK_LENGTH(self) -> bool:
        end = self._buffer.find(b"\r\n", self._start)
        if 0 <= end < maxChunkSizeLineLength:
            line = _SIZE_LINE.fullmatch(self._buffer, 0, end)
            if line is not None:
                del self._buffer[line.end(1) : end]
                self._start = 0
        return bool(super()._dataReceived_CHUNK_LENGTH()) and self._admit(self.length or 0)
