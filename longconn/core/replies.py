"""The replies to one client: those of one turn go out in one frame, before the pushes that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from longconn.core.client import Outlet
from longconn.core.turn import Turn

#: Bytes of replies from which on the next command waits until they are sent.
_LARGE = 64 * 1024


class Replies:
    """Collects the replies to one client, and writes them when the turn ends.

    `frame` joins encoded messages to one frame. `on_sent` is called when a large amount of replies was sent.
    """

    __slots__ = ("_frame", "_messages", "_on_sent", "_outlet", "_turn", "_unsent")

    def __init__(
        self, turn: Turn, outlet: Outlet, frame: Callable[[Sequence[bytes]], bytes], on_sent: Callable[[], None]
    ) -> None:
        self._turn = turn
        self._outlet = outlet
        self._frame = frame
        self._on_sent = on_sent
        self._messages: list[bytes] = []
        # Bytes that the outlet does not have yet, or holds as a backlog.
        self._unsent = 0

    @property
    def large(self) -> bool:
        """Whether so much is unsent that no further command is to be executed."""
        return self._unsent >= _LARGE

    def add(self, message: bytes) -> None:
        """A reply, or a push that keeps its place among them."""
        self._messages.append(message)
        self._unsent += len(message)
        if len(self._messages) == 1:
            self._turn.answer_first(self.write)

    def stop(self) -> None:
        """The connection is lost: forget the session, so that no reference cycle keeps it in memory."""
        self._messages.clear()
        self._on_sent = _nothing

    def write(self) -> None:
        """Write the added replies."""
        messages, self._messages = self._messages, []
        if not messages:
            return
        if not self.large:
            self._unsent = 0
            self._outlet.write(self._frame(messages))
        else:
            # The client paces it by reading, and with it its further commands.
            self._outlet.write_backlog(self._backlog(self._frame(messages)))

    def _backlog(self, frame: bytes) -> Iterator[bytes]:
        yield frame
        self._unsent = 0
        self._on_sent()


def _nothing() -> None:
    """Tell nothing: the connection is lost."""
