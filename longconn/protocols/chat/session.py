"""A chat client's session, over whatever carries lines: TCP, or the text frames of `/ws`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from heapq import nsmallest
from typing import TypeVar

from longconn.core.broker import Done
from longconn.core.channel import BATCH_BYTES, Channel
from longconn.core.client import Client
from longconn.core.command_queue import LOOKED_AT, UNTIL_TOLD, CommandQueue, Reader
from longconn.core.disconnects import CLOSED, IDLE
from longconn.core.errors import BROKER_UNAVAILABLE, INTERNAL, NOT_SUBSCRIBED, TOO_LARGE, CommandError
from longconn.core.hub import Hub
from longconn.core.identity import Admission, Credentials, Identity, disconnect_of
from longconn.core.log import about, log
from longconn.core.namespaces import Action
from longconn.core.publication import Data, History, Info, Position, Publication
from longconn.protocols.connection.socket_outlet import SocketOutlet
from longconn.wire.chat import COMMANDS, ChatFormat, parse, safe

_T = TypeVar("_T")

_HISTORY_DEFAULT = 20
_HISTORY_MOST = 100
#: Names in an answer to /who, channels in one to /channels.
_LISTED = 200
#: Seconds until a client that has to log in is closed. A person may have to look for the password.
_LOGIN_TIMEOUT = 60
#: What a client may send that has to log in first.
_BEFORE_LOGIN = ("login", "ping", "help", "quit", "leave", "too long", "not UTF-8")
#: `/login token TOKEN`: no user can have this name.
_TOKEN = "token"


class ChatSession:
    """Executes one client's lines, in their order and within its rates.

    `max_line` is the longest line, in bytes; a longer one is refused.
    """

    __slots__ = (
        "_busy", "_entrance", "_password_of", "channel", "client", "due", "format", "heard", "hub", "max_line",
        "outlet", "queue",
    )  # fmt: skip

    def __init__(self, hub: Hub, client: Client, outlet: SocketOutlet, format: ChatFormat, reader: Reader) -> None:
        self.hub = hub
        self.client = client
        self.outlet = outlet
        self.format = format
        self.max_line = hub.settings.max_message
        self.queue: CommandQueue[bytes] = CommandQueue(
            hub.clock, hub.command_rates, hub.slices, client.host, reader, self._execute, self._say_many
        )
        #: when something last came in
        self.heard = hub.clock.seconds()
        #: the second at which its timer ends (`Timed` in core/timers.py)
        self.due = 0
        #: the channel the client is in; None while it is in none
        self.channel: str | None = None
        # While a subscribe is under way, lines wait: they belong to the new channel. A long answer has the same
        # effect, so that the client asks for the next only when it has read this one.
        self._busy = False
        # Until the client has logged in: the channel that it joins then.
        self._entrance: str | None = None
        # The user whose password is the next line.
        self._password_of: str | None = None
        outlet.client = client
        client.queue = self.queue
        self._wait_for_idleness()

    def enter(self, channel: str, announce: bool, identity: Identity | None = None, at_once: bool = False) -> None:
        """Join the first channel as `identity`. Without one the gate decides, or the client has to log in first.

        Unless all are let in, the gate is asked `at_once`, or when the first line comes: until then the client may turn
        out to speak something else. Raises CommandError for a client that is not let in, and for a channel that it may
        not enter. If the broker fails, now or later, the client gets an error line, stays in no channel, and may join
        again. With `announce` the client is announced at once, otherwise when its first line comes.
        """
        gate = self.hub.gate
        self.client.announced = announce
        if identity is not None:
            self.hub.identify(self.client, identity)
            self._enter(channel)
        elif gate.wants_login or not (at_once or gate.is_open):
            self._entrance = channel
            self.hub.wheel.set(self, _LOGIN_TIMEOUT)
        else:
            self._ask_gate(channel)

    def _ask_gate(self, channel: str) -> None:
        """Join `channel` if the gate lets the client in. Raises as `enter`, if the gate answers now."""
        self._busy = True
        asking = True

        def admitted(result: Identity | CommandError) -> None:
            self._busy = False
            if not self.client.live:
                return
            try:
                if isinstance(result, CommandError):
                    raise result
                self.hub.identify(self.client, result)
                self._enter(channel)
            except CommandError as error:
                if asking:
                    raise
                self._turn_away(error)
            else:
                self.queue.go_on()

        self.hub.gate.admit(self._admission(Credentials(certificate=self.client.certificate)), admitted)
        asking = False

    def _turn_away(self, error: CommandError) -> None:
        self._refuse(error)
        self.hub.turn.answer(partial(self.client.close, disconnect_of(error)))

    def _on_first_line(self) -> None:
        """Ask the gate about a client that has begun to speak."""
        channel, self._entrance = self._entrance or "", None
        self._wait_for_idleness()
        self.client.announced = True
        try:
            self._ask_gate(channel)
        except CommandError as error:
            self.queue.close()
            self._turn_away(error)

    def _enter(self, channel: str) -> None:
        refusal: CommandError | None = None
        entering = True

        def refused(error: CommandError) -> None:
            nonlocal refusal
            if entering and error.reason is not INTERNAL:
                refusal = error
            elif error.reason is BROKER_UNAVAILABLE:
                self._turn_away(error)  # a client that only listens would wait for ever
            else:
                self._refuse(error)

        self._join(channel, refused)
        entering = False
        if refusal is not None:
            raise refusal

    def feed(self, lines: list[bytes], *, announce: bool = True) -> None:
        """Execute lines that came in, without their ends. The first one announces the client, unless it is empty."""
        self.heard = self.hub.clock.seconds()
        if announce and lines and lines[0] and not (self.client.announced or self._entrance):
            self.hub.door.announce_client(self.client)
        self.queue.feed(lines)

    def quit(self) -> None:
        """Close, as the client asked, after this turn's publications: it reads its own last words."""
        self.queue.close()
        self.hub.turn.answer(lambda: self.client.close(CLOSED))

    def stop(self) -> None:
        """The connection is lost."""
        self.hub.wheel.clear(self)
        self.queue.stop()
        self.client.gone()
        self.client.queue = None

    def _wait_for_idleness(self) -> None:
        if self.hub.settings.idle_timeout:
            self.hub.wheel.set(self, self.hub.settings.idle_timeout)
        else:
            self.hub.wheel.clear(self)

    def on_due(self, now: float) -> None:
        """The timer ended: close a client that was idle for too long."""
        if self._entrance is not None:
            self.client.close(IDLE)
            return
        timeout = self.hub.settings.idle_timeout
        idle = now - max(self.heard, self.outlet.sent_at)
        if idle >= timeout:
            self.client.close(IDLE)
        else:
            self.hub.wheel.set(self, timeout - idle)

    # Lines.

    def _execute(self, raw: bytes) -> float:
        """Execute a line and return 0, or return the seconds for which it must wait."""
        if not self.client.live:
            self.queue.close()
            return 0.0
        if self._entrance is not None and not (self._busy or self.hub.gate.wants_login):
            self._on_first_line()
            if self.queue.closed:
                return 0.0
        if self._busy:
            return UNTIL_TOLD
        if len(raw) > self.max_line:
            verb, argument = "too long", ""
        else:
            try:
                verb, argument = parse(raw.decode())
            except UnicodeDecodeError:
                verb, argument = "not UTF-8", ""
        if self._password_of is not None:
            verb, argument = "password", raw.decode("utf-8", "replace")
        elif self._entrance is not None and verb not in _BEFORE_LOGIN:
            verb = "too early"
        if verb in ("say", "json"):
            return self._publish(verb, argument, len(raw))
        if verb == "leave" and self.hub.settings.empty_line != "ignore":
            self.quit()
            return 0.0
        # Commands have a rate of their own, as large as that of publishing.
        wait = self.queue.command_wait()
        if not wait:
            try:
                self._command(verb, argument)
            except CommandError as error:
                self._refuse(error)
        return wait

    def _publish(self, verb: str, argument: str, size: int) -> float:
        """Publish a line, and return 0; or the seconds for which it must wait."""
        try:
            if self.channel is None:
                raise CommandError(NOT_SUBSCRIBED, channel=self.hub.settings.default_channel)
            data = Data.of_json(argument) if verb == "json" else Data.of_text(argument, size)
        except CommandError as error:
            wait = self.queue.command_wait()
            if not wait:
                self._refuse(error)
            return wait
        wait = self.hub.door.publish(self.client, self.channel, data, self._published)
        if not wait:
            log.debug(
                "%s says in %s: %r",
                self.client.name,
                self.channel,
                argument,
                extra=about("said", self.client, channel=self.channel),
            )
        return wait

    def _say_many(self, lines: Sequence[bytes]) -> int:
        """Publish the first of several lines together, if they are plain text; their number."""
        client, channel = self.client, self.channel
        if channel is None or self._busy or self._entrance is not None or self._password_of is not None:
            return 0
        if not client.live or log.isEnabledFor(logging.DEBUG):
            return 0
        said = []
        left = BATCH_BYTES
        for line in lines[: self.hub.rates.allowance(client)]:
            # 0xEF may begin a byte order mark.
            if not line or line[0] in b"/\xef" or line == b"ping" or len(line) > self.max_line or left < 0:
                break
            try:
                said.append(Data(line.decode(), None, len(line)))
            except UnicodeDecodeError:
                break
            left -= len(line)
        if len(said) < 2:
            return 0
        return self.hub.door.publish_many(client, channel, said, self._published_many)

    def _published_many(self, count: int, result: Position | CommandError) -> None:
        for _ in range(count if isinstance(result, CommandError) else 0):
            self._published(result)

    def _published(self, result: Position | CommandError) -> None:
        if isinstance(result, CommandError):
            self._refuse(result)

    def _command(self, verb: str, argument: str) -> None:
        """Raises CommandError."""
        texts = self.format.texts
        match verb:
            case "leave":
                pass  # an empty line that is ignored
            case "too long":
                raise CommandError(TOO_LARGE, limit=self.max_line)
            case "not UTF-8":
                self._complain(texts.not_utf8)
            case "unknown":
                self._complain(texts.unknown_command.format(command=argument[:40]))
            case "too early":
                self._complain(texts.login_first)
            case "password":
                self._log_in(Credentials(user=self._password_of or "", password=argument))
            case "nick" | "join" | "login" if not argument:
                self._complain(texts.usage.format(usage=COMMANDS[verb]))
            case "ping":
                self._answer("pong")
            case "help":
                self._answer(*texts.help)
            case "quit":
                self.quit()
            case "login":
                self._read_login(argument)
            case "nick":
                self.hub.rename(self.client, argument)
            case "join":
                if argument != self.channel:
                    self._join(argument)
            case "who":
                self._who()
            case "channels":
                self._channels()
            case "history":
                self._history(argument)

    # Logging in.

    def _admission(self, credentials: Credentials) -> Admission:
        client = self.client
        return Admission(client.protocol, client.host, client.address, credentials, client.id, client.headers)

    def _read_login(self, argument: str) -> None:
        """`/login token TOKEN`, `/login NAME PASSWORD`, or `/login NAME`, and the password is the next line."""
        user, _, secret = argument.partition(" ")
        if user == _TOKEN and secret:
            self._log_in(Credentials(token=secret.strip()))
        elif secret:
            self._log_in(Credentials(user=user, password=secret))
        else:
            self._password_of = user
            self._answer(self.format.texts.password)

    def _log_in(self, credentials: Credentials) -> None:
        self._password_of = None
        self._busy = True
        self.hub.gate.admit(self._admission(credentials), self._logged_in)

    def _logged_in(self, result: Identity | CommandError) -> None:
        self._busy = False
        client = self.client
        if not client.live:
            return
        try:
            if isinstance(result, CommandError):
                raise result
            self.hub.identify(self.client, result)
            log.info(
                "%s client %s from %s logged in as %s",
                client.protocol,
                client.name,
                client.address,
                result.user,
                extra=about("client_logged_in", client),
            )
            self._answer(self.format.texts.logged_in.format(user=safe(result.user)))
            entrance, self._entrance = self._entrance, None
            if entrance is not None:
                self._wait_for_idleness()
                self.client.announced = True
                self._enter(entrance)
        except CommandError as error:
            self._refuse(error)
        self.queue.go_on()

    # Answers.

    def _answer(self, *lines: str) -> None:
        """Write lines to this client alone, after earlier publications."""
        data = self.format.frame(list(lines))
        self.hub.turn.answer(lambda: self.outlet.write(data))

    def _complain(self, text: str) -> None:
        self._answer("! " + safe(text))

    def _refuse(self, error: CommandError) -> None:
        self.hub.counters.refusals[error.reason.key] += 1
        self._complain(self.format.texts.error(error))

    def _when(self, answered: Callable[[_T], None], refused: Callable[[CommandError], None] | None = None) -> Done[_T]:
        """A `done` for the door: it calls `answered`, or `refused`, which by default answers the client.

        Lines wait until it is called, and until `answered`, or a call that it began, calls `_done`.
        """

        def done(result: _T | CommandError) -> None:
            if isinstance(result, CommandError):
                (refused or self._refuse)(result)
                self._done()
            else:
                answered(result)

        self._busy = True
        return done

    def _done(self) -> None:
        self._busy = False
        self.queue.go_on()

    def _join(self, channel: str, refused: Callable[[CommandError], None] | None = None) -> None:
        """Change to `channel`. The client stays where it is until that is complete, and if it fails."""
        door = self.hub.door

        def joined(_: History) -> None:
            left, self.channel = self.channel, channel
            if left is not None:
                door.unsubscribe(self.client, left)
            self._done()

        door.subscribe(self.client, channel, self.format, self._when(joined, refused))

    def _who(self) -> None:
        texts = self.format.texts
        channel = self.channel or self.hub.settings.default_channel

        def found(infos: list[Info]) -> None:
            names = ", ".join(safe(each.name) for each in infos[:_LISTED])
            if len(infos) > _LISTED:
                names += texts.who_more.format(n=len(infos) - _LISTED)
            self._answer(texts.who.format(n=len(infos), channel=safe(channel), names=names))
            self._done()

        self.hub.door.presence(self.client, channel, self._when(found))

    def _channels(self) -> None:
        texts = self.format.texts
        door, client = self.hub.door, self.client
        found: list[tuple[str, int]] = []

        def look(channel: Channel) -> None:
            if len(channel) and door.may(client, Action.SUBSCRIBE, channel.name):
                found.append((channel.name, len(channel)))

        def answer() -> None:
            if not client.live:
                return
            text = ", ".join(texts.channel.format(channel=safe(name), n=n) for name, n in nsmallest(_LISTED, found))
            if len(found) > _LISTED:
                text += texts.who_more.format(n=len(found) - _LISTED)
            self._answer(texts.channels.format(channels=text) if found else texts.no_channels)
            self._done()

        self._busy = True
        self.queue.spend(len(door.channels) / LOOKED_AT)
        self.hub.slices.look_at(client.host, tuple(door.channels.values()), look, answer)

    def _history(self, argument: str) -> None:
        count = _HISTORY_DEFAULT
        if argument:
            if not (argument.isascii() and argument.isdigit()) or int(argument[:4]) < 1:
                self._complain(self.format.texts.usage.format(usage=COMMANDS["history"]))
                return
            count = min(int(argument[:4]), _HISTORY_MOST)
        channel = self.channel or self.hub.settings.default_channel
        done: Done[History] = self._when(lambda history: self._show_history(channel, history.publications[::-1]))
        self.hub.door.history(self.client, channel, done, limit=count, reverse=True)

    def _show_history(self, channel: str, publications: list[Publication]) -> None:
        if not publications:
            self._answer(self.format.texts.no_history.format(channel=safe(channel)))
            self._done()
            return

        def source() -> Iterator[bytes]:
            for each in publications:
                yield self.format.encode(channel, (each,))
            self._done()

        # As a backlog: it may be long, and is no reason to call the client slow.
        self.hub.turn.answer(lambda: self.outlet.write_backlog(source()))
