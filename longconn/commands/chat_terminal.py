"""A chat in a terminal: messages appear above the line that is being typed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable
from typing import Any

from prompt_toolkit import Application, PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText, StyleAndTextTuples
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.styles import default_ui_style
from prompt_toolkit.utils import get_cwidth
from twisted.internet.defer import Deferred, DeferredQueue, succeed

from longconn.clients import ConnectionState, State
from longconn.commands.chat_lines import COMMANDS, Line, error_line, notice, parse_input
from longconn.commands.chat_room import Room
from longconn.commands.colours import STYLES, colour_of
from longconn.commands.running import Console
from longconn.wire.chat import safe

_MARKS = {"*": "ansibrightblack", "!": "ansired"}
#: Seconds between two updates of the time to the next attempt.
_TICK = 1.0
#: Rows that a terminal needs for a menu.
_LEAST_ROWS = 12


class _Commands(Completer):
    """Completes the commands at the start of a line."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/"):
            return
        for verb, (usage, meaning) in COMMANDS.items():
            if f"/{verb}".startswith(text):
                more = " " if " " in usage else ""
                yield Completion(f"/{verb}{more}", -len(text), display=usage, display_meta=meaning)


class TerminalWindow:
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
        depth = None if console.coloured else ColorDepth.MONOCHROME
        self._session: PromptSession[str] = PromptSession(
            "> ",
            bottom_toolbar=self._toolbar,
            completer=_Commands(),
            complete_while_typing=True,
            color_depth=depth,
        )
        self._session.app.before_render += self._fit
        self._session.app.erase_when_done = True
        self._session.default_buffer.accept_handler = self._accept
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
        renderer = self._session.app.renderer
        if not (self._session.app.is_running and renderer.waiting_for_cpr):
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
            if each.name:
                found += [(STYLES[colour_of(each.name)], each.name), ("", f": {each.text}\n")]
            else:
                found.append((_MARKS[each.mark], f"{each}\n"))
        if not found:
            return
        app = self._session.app
        # prompt_toolkit's own print leaves raw mode for a moment: the terminal would echo keys that are typed then.
        if app.is_running:
            app.renderer.erase()
        print_formatted_text(app.output, FormattedText(found), default_ui_style(), color_depth=app.color_depth)
        if app.is_running:
            app.renderer.reset()
            app.renderer.request_absolute_cursor_position()
            app.invalidate()

    def _fit(self, app: Application[str]) -> None:
        """Reserve rows for the menu of commands, but most of the terminal for messages."""
        rows = app.output.get_size().rows
        self._session.reserve_space_for_menu = min(len(COMMANDS), rows // 3) if rows >= _LEAST_ROWS else 0

    def refresh(self) -> None:
        self._session.app.invalidate()

    def _toolbar(self) -> str:
        if self._room is None:
            return ""
        columns = self._session.app.output.get_size().columns - 1
        return f" {status_line(self._room, self._state, self._retry_at, self._reactor.seconds(), columns)}"

    # The room and its connection.

    def open(self, room: Room) -> None:
        self._room = room
        self._patched.__enter__()
        self._editing = asyncio.ensure_future(self._edit())

    def on_state(self, state: State, room: Room | None) -> None:
        before, self._state = self._state, state
        self._retry_at = self._reactor.seconds() + state.retry_in
        if state.state is ConnectionState.RECONNECTING:
            if before.state is ConnectionState.CONNECTED:
                self.show(error_line(f"connection lost: {state.reason}"))
            self._count_down()
        elif state.state is ConnectionState.CONNECTED:
            self.show(notice("connected again"))
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

    async def _edit(self) -> None:
        """Run the line editor until its end."""
        try:
            # The reactor's handlers of signals stay. In the editor, Ctrl-C is a key.
            await self._session.prompt_async(handle_sigint=False)
        except EOFError:
            self._typed.put(None)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGINT)

    def _accept(self, buffer: Buffer) -> bool:
        """A line was entered. Returns whether the editor keeps its text."""
        self._typed.put(buffer.text)
        if parse_input(buffer.text)[0] == "quit":
            self._session.app.exit(result="")
        return False

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
            self._patched.__exit__(None, None, None)
        self._draw()


def status_line(room: Room, state: State, retry_at: float, now: float, columns: int) -> str:
    """The channel, the name, the number of members, and the state of the connection.

    If it is too long, the parts before the state are dropped, the last first. The reason of a lost connection comes
    last: the terminal cuts it off.
    """
    parts = [safe(room.channel), safe(room.name)]
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
