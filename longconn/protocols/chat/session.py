"""A conversation in chat lines, over whatever carries lines: TCP, or the text frames of `/ws`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from longconn.core.broker import Done
from longconn.core.client import Client
from longconn.core.disconnects import CLOSED, IDLE
from longconn.core.errors import NOT_SUBSCRIBED, TOO_LARGE, CommandError
from longconn.core.hub import Hub, log
from longconn.core.namespaces import Action
from longconn.core.publication import Data, History, Position, Publication
from longconn.protocols.connection.command_queue import UNTIL_TOLD, CommandQueue, Reader
from longconn.protocols.connection.socket_outlet import SocketOutlet
from longconn.wire.chat import COMMANDS, ChatFormat, parse, safe

_HISTORY_DEFAULT = 20
_HISTORY_MOST = 100
#: Names in an answer to /who, channels in one to /channels.
_LISTED = 200


class ChatSession(CommandQueue[bytes]):
    """Turns one client's lines into commands, in their order and within its rates."""

    __slots__ = ("_busy", "_leaving", "channel", "client", "due", "format", "heard", "outlet")

    def __init__(self, hub: Hub, client: Client, outlet: SocketOutlet, format: ChatFormat, reader: Reader) -> None:
        super().__init__(hub, reader)
        self.client = client
        self.outlet = outlet
        self.format = format
        #: when something last came in
        self.heard = hub.clock.seconds()
        self.due = 0
        #: the channel the client is in; None while it is in none
        self.channel: str | None = None
        # A subscribe is under way, and what is said meanwhile belongs to the channel it leads to; or an answer
        # is that may be long, and is asked for again only when all of it went out.
        self._busy = False
        self._leaving = False
        outlet.client = client
        if hub.settings.idle_timeout:
            hub.wheel.set(self, hub.settings.idle_timeout)

    def enter(self, channel: str, announce: bool) -> None:
        """Be in the first channel. Raises CommandError for one that may not be entered."""
        self.client.announced = announce
        self._join(channel)

    def stop(self) -> None:
        """The connection is lost."""
        self.hub.wheel.clear(self)
        self.forget()
        self.client.gone()

    def on_due(self, now: float) -> None:
        """It may have been idle for too long."""
        timeout = self.hub.settings.idle_timeout
        idle = now - max(self.heard, self.outlet.sent_at)
        if idle >= timeout:
            self.client.close(IDLE)
        else:
            self.hub.wheel.set(self, timeout - idle)

    # Lines.

    def feed(self, lines: list[bytes], *, announce: bool = True) -> None:
        """Lines that came in, without their ends. The first makes a silent listener known to others."""
        self.heard = self.hub.clock.seconds()
        if announce and lines and lines[0] and not self.client.announced:
            self.client.announce()
        self.take(lines)

    @property
    def over(self) -> bool:
        return self._leaving or not self.client.live

    def act(self, raw: bytes) -> float:
        """Do what a line says; or return the seconds for which it must wait."""
        if self._busy:
            return UNTIL_TOLD
        limit = self.hub.settings.max_message
        if len(raw) > limit:
            return self._within_rate(lambda: self.refuse(CommandError(TOO_LARGE, limit=limit)))
        try:
            line = raw.decode()
        except UnicodeDecodeError:
            return self._within_rate(lambda: self.complain(self.format.texts.not_utf8))
        verb, argument = parse(line)
        if verb == "leave":
            if self.hub.settings.empty_line != "ignore":
                self.quit()
                return 0.0
            return self._within_rate(_nothing)
        if verb in ("say", "json"):
            wait = self.client.allowance()
            if not wait:
                self._speak(verb, argument, len(raw))
            return wait
        return self._within_rate(lambda: self._command(verb, argument))

    def _within_rate(self, answer: Callable[[], None]) -> float:
        """What is answered to the client alone has a rate of its own, as large as that of publishing."""
        wait = self.command_wait()
        if not wait:
            try:
                answer()
            except CommandError as error:
                self.refuse(error)
        return wait

    def _speak(self, verb: str, argument: str, size: int) -> None:
        try:
            data = Data.of_json(argument) if verb == "json" else Data.of_text(argument, size)
            if self.channel is None:
                raise CommandError(NOT_SUBSCRIBED, channel=self.hub.settings.default_channel)
            log.debug("%s says in %s: %r", self.client.name, self.channel, argument)
            self.client.publish(self.channel, data, self._published)
        except CommandError as error:
            self.refuse(error)

    def _published(self, result: Position | CommandError) -> None:
        if isinstance(result, CommandError):
            self.refuse(result)

    # Answers.

    def answer(self, *lines: str) -> None:
        """Lines to this client alone, after what was said before."""
        data = self.format.frame(list(lines))
        self.hub.turn.answer(lambda: self.outlet.write(data))

    def complain(self, text: str) -> None:
        self.answer("! " + safe(text))

    def refuse(self, error: CommandError) -> None:
        self.complain(self.format.texts.error(error))

    def _command(self, verb: str, argument: str) -> None:
        if verb == "unknown":
            self.complain(self.format.texts.unknown_command.format(command=argument[:40]))
            return
        action: Any = getattr(self, "_do_" + verb)
        action(argument)

    def _usage(self, verb: str) -> None:
        self.complain(self.format.texts.usage.format(usage=COMMANDS[verb]))

    def _do_ping(self, argument: str) -> None:
        self.answer("pong")

    def _do_help(self, argument: str) -> None:
        self.answer(*self.format.texts.help)

    def _do_quit(self, argument: str) -> None:
        self.quit()

    def _do_nick(self, argument: str) -> None:
        if argument:
            self.client.rename(argument)
        else:
            self._usage("nick")

    def _do_join(self, argument: str) -> None:
        if not argument:
            self._usage("join")
        elif argument != self.channel:
            self._join(argument)

    def _join(self, channel: str) -> None:
        """Change to `channel`; while that is not complete or fails, the client stays where it is."""

        def joined(_: History) -> None:
            left, self.channel = self.channel, channel
            if left is not None:
                self.client.unsubscribe(left)
            self._done()

        self._ask(lambda done: self.client.subscribe(channel, self.format, done), joined)

    def _ask(self, ask: Callable[[Done[History]], None], answered: Callable[[History], None]) -> None:
        """Ask the broker, by `ask`; `answered` calls `_done`, at once or later. Until then, what is said waits."""

        def done(result: History | CommandError) -> None:
            if isinstance(result, CommandError):
                self.refuse(result)
                self._done()
            else:
                answered(result)

        self._busy = True
        try:
            ask(done)
        except CommandError:
            self._busy = False
            raise

    def _done(self) -> None:
        self._busy = False
        self.go_on_soon()

    def _do_who(self, argument: str) -> None:
        texts = self.format.texts
        channel = self.channel or self.hub.settings.default_channel
        infos = self.client.presence(channel)
        self.charge(len(infos))
        names = ", ".join(safe(each.name) for each in infos[:_LISTED])
        if len(infos) > _LISTED:
            names += texts.who_more.format(n=len(infos) - _LISTED)
        self.answer(texts.who.format(n=len(infos), channel=safe(channel), names=names))

    def _do_channels(self, argument: str) -> None:
        texts = self.format.texts
        may = self.client.may
        self.charge(len(self.hub.channels))
        channels = [each for each in self.hub.channels.values() if len(each) and may(Action.SUBSCRIBE, each.name)]
        listed = sorted((safe(each.name), len(each)) for each in channels)[:_LISTED]
        text = ", ".join(texts.channel.format(channel=name, n=count) for name, count in listed)
        if len(channels) > _LISTED:
            text += texts.who_more.format(n=len(channels) - _LISTED)
        self.answer(texts.channels.format(channels=text) if channels else texts.no_channels)

    def _do_history(self, argument: str) -> None:
        count = _HISTORY_DEFAULT
        if argument:
            if not (argument.isascii() and argument.isdigit()) or int(argument[:4]) < 1:
                self._usage("history")
                return
            count = min(int(argument[:4]), _HISTORY_MOST)
        channel = self.channel or self.hub.settings.default_channel
        self._ask(
            lambda done: self.client.history(channel, done, limit=count),
            lambda history: self._show_history(channel, history.publications),
        )

    def _show_history(self, channel: str, publications: list[Publication]) -> None:
        if not publications:
            self.answer(self.format.texts.no_history.format(channel=safe(channel)))
            self._done()
            return

        def source() -> Iterator[bytes]:
            for each in publications:
                yield self.format.encode(channel, (each,))
            self._done()

        # As a backlog: it may be long, and is no reason to call the client slow.
        self.hub.turn.answer(lambda: self.outlet.write_backlog(source()))

    def quit(self) -> None:
        """Leave, as the client asked to, after this turn's publications: it reads its own last words."""
        self._leaving = True
        self.hub.turn.answer(lambda: self.client.close(CLOSED))


def _nothing() -> None:
    """The answer to an empty line that is ignored."""
