"""The line editor of a chat: two rows at the end of what the terminal shows, the typed line and a status line.

There is no menu: it would need rows that are empty most of the time. What Tab may complete stands in the status line.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from typing import Any

from prompt_toolkit import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus, renderer_height_is_known
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import (
    AnyContainer,
    BufferControl,
    ConditionalContainer,
    Dimension,
    FormattedTextControl,
    HSplit,
    Layout,
    VerticalAlign,
    Window,
)
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.utils import get_cwidth
from prompt_toolkit.widgets import SearchToolbar

from longconn.commands.chat_lines import completions, hint, parse_input

_PROMPT = "> "
_CLEARED = "the line is cleared; Ctrl-C again leaves"


class Surroundings:
    """What the editor asks its chat for."""

    def names(self) -> Iterable[str]:
        """The names that Tab completes, those that spoke last first."""
        return ()

    def channels(self) -> Iterable[str]:
        """The channels that Tab completes."""
        return ()

    def status(self, columns: int) -> str:
        """The status line."""
        return ""


class LineEditor:
    """`on_line` gets each line that is entered, and None at the end of the input."""

    def __init__(self, surroundings: Surroundings, on_line: Callable[[str | None], None], coloured: bool) -> None:
        self._surroundings = surroundings
        self._on_line = on_line
        self._cleared = False
        self._buffer = Buffer(multiline=False, name=DEFAULT_BUFFER, accept_handler=self._accept)
        # What Tab may insert, the number of what it has inserted, and the line before and after that.
        self._choices: list[str] = []
        self._chosen = 0
        self._before = self._after = Document()
        self._replaced = 0
        self._buffer.on_text_changed += self._forget_clearing
        search = SearchToolbar()
        line = Window(
            BufferControl(self._buffer, search_buffer_control=search.control),
            height=self._height,
            wrap_lines=True,
            dont_extend_height=True,
            get_line_prefix=lambda row, part: _PROMPT if not row and not part else " " * len(_PROMPT),
        )
        status = Window(FormattedTextControl(self._status), style="class:bottom-toolbar", height=1)
        rows: list[AnyContainer] = [line, search, ConditionalContainer(status, renderer_height_is_known)]
        self.app: Application[None] = Application(
            Layout(HSplit(rows, align=VerticalAlign.TOP), focused_element=line),
            key_bindings=self._keys(),
            color_depth=None if coloured else ColorDepth.MONOCHROME,
            erase_when_done=True,
        )

    def _height(self) -> Dimension:
        """A pasted text may have many lines; half of the terminal is for messages."""
        return Dimension(min=1, max=max(1, self.app.output.get_size().rows // 2))

    # Keys.

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        editing = has_focus(DEFAULT_BUFFER)
        keys.add("enter", filter=editing)(lambda event: self._buffer.validate_and_handle())
        keys.add("tab", filter=editing)(lambda event: self._complete(1))
        keys.add("s-tab", filter=editing)(lambda event: self._complete(-1))
        keys.add("c-c", filter=editing)(lambda event: self._clear_or_end())
        keys.add("c-d", filter=editing)(self._delete_or_end)
        # The whole job stops, as by a terminal's own Ctrl-Z; see `longconn.commands.terminal_signals`.
        keys.add("c-z")(lambda event: os.kill(0, signal.SIGTSTP))
        keys.add(Keys.BracketedPaste, filter=editing)(self._paste)
        return keys

    def _complete(self, step: int) -> None:
        """Insert the first completion, or the next one. It is done at once: what is typed after Tab follows it."""
        if self._choices and self._buffer.document == self._after:
            self._chosen = (self._chosen + step) % len(self._choices)
        else:
            self._before, self._chosen = self._buffer.document, 0
            known = self._surroundings
            text = self._before.text_before_cursor
            self._replaced, self._choices = completions(text, known.names(), known.channels())
            if not self._choices:
                return
        text = self._before.text_before_cursor
        start = text[: len(text) - self._replaced] + self._choices[self._chosen]
        self._buffer.document = self._after = Document(start + self._before.text_after_cursor, len(start))

    def _clear_or_end(self) -> None:
        if self._buffer.text:
            self._buffer.reset()
            self._cleared = True
        else:
            os.kill(os.getpid(), signal.SIGINT)

    def _delete_or_end(self, event: KeyPressEvent) -> None:
        if self._buffer.text:
            self._buffer.delete()
        else:
            self._leave(None)

    def _leave(self, line: str | None) -> None:
        self._on_line(line)
        if not self.app.is_done:  # the chat may have ended the editor at once
            self.app.exit()

    def _paste(self, event: KeyPressEvent) -> None:
        """Insert a pasted text. Its lines are one message, and its end does not enter it."""
        self._buffer.insert_text(event.data.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n"))

    def _accept(self, buffer: Buffer) -> bool:
        """A line was entered. Returns whether the editor keeps its text."""
        self._cleared = False
        if parse_input(buffer.text)[0] == "quit":
            self._leave(buffer.text)
        else:
            self._on_line(buffer.text)
        return False

    def _forget_clearing(self, buffer: Buffer) -> None:
        if buffer.text:
            self._cleared = False

    # The status line.

    def _status(self) -> StyleAndTextTuples:
        columns = self.app.output.get_size().columns - 1
        if len(self._choices) > 1 and self._buffer.document == self._after:
            return _choice([each.strip() for each in self._choices], self._chosen, columns)
        text = hint(self._buffer.document.text_before_cursor)
        if self._cleared:
            text = _CLEARED
        return [("", f" {text or self._surroundings.status(columns)}")]


def _choice(texts: list[str], chosen: int, columns: int) -> StyleAndTextTuples:
    """Completions in one row, as many as fit around the chosen one."""
    first = chosen
    room = columns - get_cwidth(texts[chosen]) - 2
    while first and room >= get_cwidth(texts[first - 1]) + 2:
        first -= 1
        room -= get_cwidth(texts[first]) + 2
    found: StyleAndTextTuples = []
    for number in range(first, len(texts)):
        found += [("", " "), ("bold underline" if number == chosen else "", texts[number]), ("", " ")]
    return found


def after_messages(app: Application[Any]) -> None:
    """Draw the editor anew, below what was written meanwhile."""
    app.renderer.reset()
    app.renderer.request_absolute_cursor_position()
    app.invalidate()
