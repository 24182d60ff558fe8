"""The truth of a simulation: what the server did, what callers were told, what clients saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longconn.core.publication import Position
from longconn.redis.records import read_publication
from longconn.redis.scripts import PUBLISH

if TYPE_CHECKING:
    from tests.simulation.redis_model import ModelRedis, Words


class WrongError(BaseException):
    """The simulation found a fault. It is no `Exception`: a hub that catches one of a client would hide it."""


class Request:
    """A publication that was asked for: once, or with a key until it was acknowledged."""

    def __init__(self, channel: str, text: str, asked_at: float) -> None:
        self.channel = channel
        self.text = text
        self.asked_at = asked_at
        self.answered = False


class Checker:
    """Compares as things happen, and raises `WrongError`."""

    def __init__(self) -> None:
        # The texts of each channel and epoch, by offset, over all that the server ever was.
        self._truth: dict[tuple[str, str], dict[int, str]] = {}
        # Where each text was made, in what the server has now.
        self._made: dict[str, tuple[str, int]] = {}
        self._acknowledged: list[tuple[str, str, Position]] = []
        self.lost_something = False
        #: the channels whose history was removed
        self.removed: set[str] = set()

    # The server.

    def on_made(self, key: bytes, epoch: bytes, first: int, records: Words) -> None:
        channel, texts = _channel_of(key), _texts(records)
        for offset, text in enumerate(texts, first):
            if text in self._made:
                raise WrongError(f"{text} is made twice, at {self._made[text]} and at {(epoch, offset)}")
            self._made[text] = (epoch.decode(), offset)
            before = self._truth.setdefault((channel, epoch.decode()), {}).setdefault(offset, text)
            if before != text:
                raise WrongError(f"{channel} {epoch.decode()} gives the offset {offset} to {before} and to {text}")

    def on_loss(self) -> None:
        self.lost_something = True

    def on_replayed(self, data: ModelRedis) -> None:
        """The server has come back with what it kept."""
        self._made = {}
        for words in [words for _, words in data.log]:
            for text, position in _publications_of(words):
                self._made.setdefault(text, position)

    def text_at(self, channel: str, position: Position) -> str | None:
        return self._truth.get((channel, position.epoch), {}).get(position.offset)

    # Callers.

    def on_acknowledged(self, request: Request, position: Position) -> None:
        found = self.text_at(request.channel, position)
        if found != request.text:
            raise WrongError(f"{request.text} is acknowledged at {position}, where {found} is")
        self._acknowledged.append((request.channel, request.text, position))

    def check_kept(self, data: ModelRedis, keys: dict[str, tuple[bytes, bytes]], most: int) -> None:
        """What was acknowledged is in the stream of its epoch; all of it, if the server never lost anything."""
        for channel, text, position in self._acknowledged:
            meta, stream = (data.value(key, None) for key in keys[channel])
            epoch, top = (meta[b"e"].decode(), int(meta[b"o"])) if meta else ("", 0)
            if channel in self.removed or (self.lost_something and position.epoch != epoch):
                continue
            kept = {offset: _text(record) for offset, _, record in stream or ()}
            if position.offset > top - most and kept.get(position.offset) != text:
                raise WrongError(f"{text} is acknowledged at {position}, and {channel} has {kept} up to {top}")

    # Clients.

    def check_next(self, channel: str, at: Position, epoch: str, offset: int, text: str | None) -> Position:
        """A client at a position is sent a publication: it must be the next one."""
        if (epoch, offset) != (at.epoch, at.offset + 1):
            raise WrongError(f"in {channel} a client at {at} is sent {epoch} {offset}, untold")
        position = Position(epoch, offset)
        truth = self.text_at(channel, position)
        if truth != text:
            raise WrongError(f"in {channel} a client is sent {text} at {position}, not {truth}")
        return position


def _channel_of(key: bytes) -> str:
    return key[key.index(b"{") + 1 : key.rindex(b"}")].decode()


def _text(record: bytes) -> str:
    return str(read_publication("", "", 0, record, 0).data.text)


def _texts(records: Words) -> list[str]:
    return [_text(each) for each in records]


def _publications_of(words: Any) -> list[tuple[str, tuple[str, int]]]:
    """What a call of a script in the append-only file may have made."""
    if words[0] != PUBLISH.digest.encode():
        return []
    return [(text, ("", 0)) for text in _texts(words[2 + int(words[1]) + 9 :])]
