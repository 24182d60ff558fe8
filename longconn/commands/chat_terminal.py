"""A chat in a terminal: messages appear above the line that is being typed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from prompt_toolkit.formatted_text import FormattedText, StyleAndTextTuples
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.styles import default_ui_style
from prompt_toolkit.utils import get_cwidth
from twisted.internet.defer import Deferred, DeferredQueue, succeed

from longconn.clients import ConnectionState, State
from longconn.commands.chat_editor import LineEditor, Surroundings, after_messages
from longconn.commands.chat_lines import Line, error_line, event_line
from longconn.commands.chat_room import Room
from longconn.commands.colours import STYLES, colour_of
from longconn.commands.messages import local_time
from longconn.commands.running import Console
from longconn.commands.terminal_signals import TerminalSignals
from longconn.wire.chat import safe

_MARKS = {"*": "ansibrightblack", "!": "ansired"}
_GREY = "ansibrightblack"
_TIME, _DAY = "%H:%M ", "%Y-%m-%d"
_NO_TIME = " " * 6
#: Seconds between two updates of the time to the next attempt.
_TICK = 1.0


class TerminalWindow(Surroundings):
    """A line editor of prompt_toolkit, on the event loop of the asyncio reactor."""

    patient = False

    def __init__(self, console: Console) -> None:
        self._reactor = console.reactor
        self._room: Room | None = None
        self._state = State(ConnectionState.CONNECTED)
        self._retry_at = 0.0
        self._tick: Any = None
        self._waiting: list[Line] = []
        self._flush: Any = None
        self._answer: asyncio.Future[None] | None = None
        self._typed: DeferredQueue[str | None] = DeferredQueue()
        self._editing: asyncio.Future[None] | None = None
        self._day = time.strftime(_DAY)
        self._editor = LineEditor(self, self._typed.put, console.coloured)
        self._app = self._editor.app
        self._signals = TerminalSignals(console.reactor, self._app)
        # Other writers to standard output must not write into the line either.
        self._patched = patch_stdout(raw=False)

    # Output.

    def show(self, line: Line) -> Deferred[None]:
        self._waiting.append(line)
        if self._flush is None:
            # All lines of a turn are drawn at once.
            self._flush = self._reactor.callLater(0, self._flush_lines)
        return succeed(None)

    def _flush_lines(self) -> None:
        renderer = self._app.renderer
        if not (self._app.is_running and renderer.waiting_for_cpr):
            self._draw()
            return
        # The terminal still owes the row of the cursor. If lines moved the cursor now, the answer would be too old:
        # the editor would take more rows than are left, and older lines would scroll away.
        self._answer = asyncio.ensure_future(renderer.wait_for_cpr_responses())
        self._answer.add_done_callback(lambda _: self._draw())

    def _draw(self) -> None:
        self._flush = None
        lines, self._waiting = self._waiting, []
        found: StyleAndTextTuples = []
        for each in lines:
            found += self._styled(each)
        if not found:
            return
        app = self._app
        # prompt_toolkit's own print leaves raw mode for a moment: the terminal would echo keys that are typed then.
        if app.is_running:
            app.renderer.erase()
        print_formatted_text(app.output, FormattedText(found), default_ui_style(), color_depth=app.color_depth)
        if app.is_running:
            after_messages(app)

    def _styled(self, line: Line) -> StyleAndTextTuples:
        found: StyleAndTextTuples = []
        start = _NO_TIME
        if line.time is not None:
            start = local_time(line.time, _TIME)
            day = local_time(line.time, _DAY)
            if day != self._day:
                self._day = day
                found.append((_GREY, f"{_NO_TIME}{day}\n"))
        found.append((_GREY, start))
        if line.name:
            return [*found, (STYLES[colour_of(line.name)], line.name), ("", f": {line.text}\n")]
        return [*found, (_MARKS[line.mark], f"{line}\n")]

    def refresh(self) -> None:
        self._app.invalidate()

    # What the editor asks for.

    def names(self) -> Iterable[str]:
        return self._room.names() if self._room is not None else ()

    def channels(self) -> Iterable[str]:
        return self._room.known_channels if self._room is not None else ()

    def status(self, columns: int) -> str:
        if self._room is None:
            return ""
        return status_line(self._room, self._state, self._retry_at, self._reactor.seconds(), columns)

    # The room and its connection.

    def open(self, room: Room) -> None:
        self._room = room
        self._patched.__enter__()
        self._signals.install()
        # The reactor's handlers of signals stay. In the editor, Ctrl-C is a key.
        self._editing = asyncio.ensure_future(self._app.run_async(handle_sigint=False))

    def on_state(self, state: State, room: Room | None) -> None:
        before, self._state = self._state, state
        self._retry_at = self._reactor.seconds() + state.retry_in
        if state.state is ConnectionState.RECONNECTING:
            if before.state is ConnectionState.CONNECTED:
                self.show(error_line(f"connection lost: {state.reason}"))
            self._count_down()
        elif state.state is ConnectionState.CONNECTED:
            self.show(event_line("connected again"))
        self.refresh()

    def _count_down(self) -> None:
        if self._tick is not None and self._tick.active():
            self._tick.cancel()
        if self._state.state is ConnectionState.RECONNECTING:
            self._tick = self._reactor.callLater(_TICK, self._count_down)
            self.refresh()

    # Input.

    def line(self) -> Deferred[str | None]:
        return self._typed.get()

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        for each in (self._tick, self._flush):
            if each is not None and each.active():
                each.cancel()
        if self._answer is not None:
            self._answer.cancel()
        if self._editing is not None:
            self._editing.cancel()
            await Deferred.fromFuture(asyncio.ensure_future(asyncio.wait({self._editing})))
            self._signals.remove()
            self._patched.__exit__(None, None, None)
        self._draw()


def status_line(room: Room, state: State, retry_at: float, now: float, columns: int) -> str:
    """The channel, the name, the number of members, and the state of the connection.

    If it is too long, the parts before the state are dropped, the last first. The reason of a lost connection comes
    last: the terminal cuts it off.
    """
    parts = [safe(room.channel), safe(room.name)]
    if room.unsent and state.state is not ConnectionState.CONNECTED:
        parts.append(f"{len(room.unsent)} to send")
    if room.members is not None:
        parts.append(f"{len(room.members)} here")
    reason = ""
    if state.state is ConnectionState.RECONNECTING:
        parts.append(f"reconnecting in {max(0, round(retry_at - now))} s")
        reason = f": {safe(state.reason)}"
    elif state.state is ConnectionState.CONNECTING and state.reason:
        parts.append("reconnecting")
        reason = f": {safe(state.reason)}"
    else:
        parts.append(state.state.value)
    while len(parts) > 1 and get_cwidth(" · ".join(parts)) > columns:
        del parts[-2]
    return " · ".join(parts) + reason
