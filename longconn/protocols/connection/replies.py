"""Replies of a structured client: those of one turn in one frame, before the pushes that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from longconn.core.client import Outlet
from longconn.core.hub import Hub
from longconn.wire.centrifugo import Frame

#: Bytes of replies from which on the next command waits until they are sent.
_MUCH = 64 * 1024


class Replies:
    """What one client is answered. `on_sent` is called when much of it was sent at last."""

    __slots__ = ("_frame", "_hub", "_on_sent", "_outlet", "_replies", "_unsent")

    def __init__(self, hub: Hub, outlet: Outlet, frame: Frame, on_sent: Callable[[], None]) -> None:
        self._hub = hub
        self._outlet = outlet
        self._frame = frame
        self._on_sent = on_sent
        self._replies: list[bytes] = []
        # Bytes that were not handed to the outlet, or wait there as a backlog.
        self._unsent = 0

    @property
    def many(self) -> bool:
        """Whether so much is unsent that no further command is to be acted on."""
        return self._unsent >= _MUCH

    def add(self, data: bytes) -> None:
        """A reply, or a push that stands among them, to be written when this turn ends."""
        self._replies.append(data)
        self._unsent += len(data)
        if len(self._replies) == 1:
            self._hub.turn.answer_first(self.write)

    def stop(self) -> None:
        """The connection is lost: forget whom to tell, so that no cycle keeps it in memory."""
        self._replies.clear()
        self._on_sent = _nothing

    def write(self) -> None:
        """Write what there is."""
        replies, self._replies = self._replies, []
        if not replies:
            return
        if not self.many:
            self._unsent = 0
            self._outlet.write(self._frame(replies))
        else:
            # What it missed and what it asked for is paced by its reading, and so are its commands.
            self._outlet.write_backlog(self._backlog(self._frame(replies)))

    def _backlog(self, frame: bytes) -> Iterator[bytes]:
        yield frame
        self._unsent = 0
        self._on_sent()


def _nothing() -> None:
    """Nobody is left to be told."""
