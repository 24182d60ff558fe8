"""A chat room: one client in one channel at a time. Shows the channel's events, and executes typed lines."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from longconn.clients import (
    Client,
    ClientError,
    ConnectionFailed,
    ConnectionState,
    Event,
    HistoryPage,
    Joined,
    JSONValue,
    Left,
    Lost,
    Member,
    NotLongconn,
    OutcomeUnknown,
    Publication,
    Refused,
    State,
    Subscription,
)
from longconn.commands.chat_lines import COMMANDS, Screen, error_line, event_line, message_lines, notice, parse_input
from longconn.commands.messages import BadDataError, parse_json
from longconn.wire.chat import safe

#: Publications that are shown on joining, and by /history without a number; and the most that it shows.
_HISTORY = 20
_MOST_HISTORY = 100
#: Names that /who lists at most.
_MOST_NAMES = 100
#: Characters of a text that an error quotes.
_MOST_START = 60
#: Names that are remembered of those that spoke.
_MOST_SPEAKERS = 200
# The words of the page (`longconn/web/room.js`).
LOST = "Some messages could not be recovered."
MAY_BE_LOST = "What was said meanwhile may be missing."
_NOT_SENT = "It was not sent"
_PERHAPS_SENT = "It may not have been sent"


class Room:
    """Shows the client's channel on a screen. `on_end` is called when the subscription or the screen fails."""

    def __init__(
        self, reactor: Any, client: Client, name: str, screen: Screen, on_end: Callable[[ClientError | OSError], None]
    ) -> None:
        self.name = name
        self.channel = ""
        #: by the client's id; None if the server does not give presence
        self.members: dict[str, Member] | None = None
        #: channels that were seen here or listed
        self.known_channels: list[str] = []
        #: texts that were entered and are not published yet
        self.unsent: list[str] = []
        self._reactor = reactor
        self._client = client
        self._screen = screen
        self._on_end = on_end
        self._subscription: Subscription | None = None
        self._reading: Deferred[None] | None = None
        # A member that left in this turn of the reactor. It has taken another name if it joins in the same turn.
        self._gone: Member | None = None
        # Those that spoke, the last one last.
        self._speakers: dict[str, None] = {}

    def names(self) -> list[str]:
        """Names in the channel but the own one: those that spoke, the last first, and the others that are there."""
        others = sorted(each.name for each in (self.members or {}).values() if each.named)
        found = dict.fromkeys([*reversed(self._speakers), *others])
        return [each for each in found if each != self.name]

    # Channels.

    async def join(self, channel: str) -> None:
        """Enter a channel, show its last messages, and leave the channel before. Raises ClientError."""
        page = await self._last_messages(channel, _HISTORY)
        since = page.position if page is not None and page.position.epoch else None
        # From the position of the history: no message is missed or shown twice.
        subscription = await self._client.subscribe(channel, since=since, join_leave=True)
        before, self._subscription = self._subscription, subscription
        self.channel = channel
        self._know([channel])
        self._speakers.clear()
        if before is not None:
            await before.unsubscribe()
            await self._screen.show(event_line(f"now in {channel}"))
        await self._show_history(page)
        await self.load_members()
        self._reading = Deferred.fromCoroutine(self._read(subscription))
        self._reading.addErrback(self._lost, subscription)

    async def _last_messages(self, channel: str, number: int) -> HistoryPage | None:
        """The last publications; None if the server refuses them."""
        try:
            return await self._client.history(channel, limit=number, reverse=True)
        except Refused:
            return None

    async def _show_history(self, page: HistoryPage | None) -> None:
        for publication in reversed(page.publications if page is not None else []):
            await self._show_publication(publication)

    async def _show_publication(self, publication: Publication) -> None:
        if publication.name:
            name = safe(publication.name)
            self._speakers.pop(name, None)
            self._speakers[name] = None
            if len(self._speakers) > _MOST_SPEAKERS:
                del self._speakers[next(iter(self._speakers))]
        for line in message_lines(publication):
            await self._screen.show(line)

    def _know(self, channels: list[str]) -> None:
        self.known_channels = sorted({*self.known_channels, *channels})

    async def load_members(self) -> None:
        """Ask for the members."""
        try:
            self.members = {each.client: each for each in await self._client.presence(self.channel)}
        except Refused:
            self.members = None
        self._screen.refresh()

    async def _read(self, subscription: Subscription) -> None:
        async for event in subscription:
            await self._on_event(event)

    def _lost(self, failure: Failure, subscription: Subscription) -> None:
        error = failure.value
        if isinstance(error, OSError) or (subscription is self._subscription and isinstance(error, ClientError)):
            self._on_end(error)
        elif not isinstance(error, CancelledError | ClientError):
            failure.raiseException()

    # Events.

    async def _on_event(self, event: Event) -> None:
        gone, self._gone = self._gone, None
        if isinstance(event, Joined):
            await self._on_joined(event.member, gone)
            return
        if gone is not None:
            await self._screen.show(event_line(f"{gone.name} left"))
        if isinstance(event, Publication):
            await self._show_publication(event)
        elif isinstance(event, Left):
            self._on_left(event.member)
        elif isinstance(event, Lost):
            await self._screen.show(error_line(LOST if event.resumed.epoch else MAY_BE_LOST))

    async def _on_joined(self, member: Member, gone: Member | None) -> None:
        if self.members is not None:
            self.members[member.client] = member
        self._screen.refresh()
        if gone is not None and gone.client == member.client:
            await self._screen.show(event_line(f"{gone.name} is now {member.name}"))
            return
        if gone is not None:
            await self._screen.show(event_line(f"{gone.name} left"))
        if member.named and member.client != self._client.id:
            await self._screen.show(event_line(f"{member.name} joined"))

    def _on_left(self, member: Member) -> None:
        """Show that a member with a name left, unless it joins again in this turn, under another name."""
        if self.members is not None:
            self.members.pop(member.client, None)
        self._screen.refresh()
        if not member.named:
            return
        self._gone = member
        self._reactor.callLater(0, self._show_gone, member)

    def _show_gone(self, member: Member) -> None:
        if self._gone is member:
            self._gone = None
            # If the screen is gone, showing the next event fails, too, and ends the chat.
            self._screen.show(event_line(f"{member.name} left")).addErrback(lambda failure: failure.trap(OSError))

    def on_state(self, state: State) -> None:
        """The connection changed."""
        self._screen.refresh()
        if state.state is ConnectionState.CONNECTED and self.channel:
            # Joins and leaves are not recovered.
            Deferred.fromCoroutine(self.load_members()).addErrback(lambda failure: failure.trap(ClientError))

    # Input.

    async def add_unsent(self, text: str) -> None:
        """A text was entered; say so if it has to wait."""
        self.unsent.append(text)
        if not self.connected:
            await self._screen.show(notice(f"goes out when the connection is back: {_start(text)}"))

    def remove_unsent(self, text: str) -> None:
        """A text was published, or the chat has said why not."""
        self.unsent.remove(text)
        self._screen.refresh()

    async def do(self, line: str) -> None:
        """Carry out a typed line, and show its error."""
        verb, argument = parse_input(line)
        try:
            if verb == "error":
                await self._screen.show(error_line(argument))
            elif verb == "say":
                await self._publish(argument)
            elif verb:
                await getattr(self, f"_{verb}")(argument)
        except ClientError as error:
            text = str(error)
            if verb in ("say", "json"):  # the line editor has cleared its line
                text = not_sent(argument, text, isinstance(error, OutcomeUnknown))
            await self._screen.show(error_line(text))

    async def _publish(self, data: JSONValue) -> None:
        """Publish, as soon as there is a connection. What was typed goes out once: it is not sent again."""
        while True:
            await self._client.connected()
            with suppress(ConnectionFailed):  # the connection was lost again before it could be sent
                return await self._client.publish(self.channel, data)

    @property
    def connected(self) -> bool:
        """Whether the client is connected."""
        return self._client.state.state is ConnectionState.CONNECTED

    async def catch_up(self) -> None:
        """Wait until all messages came that were published before now: the answer to a command follows them."""
        with suppress(ClientError):  # refused, which is an answer; or the connection is lost, and nothing more comes
            await self._client.presence(self.channel)

    async def _nick(self, name: str) -> None:
        await self._client.rename(name)
        self.name = name
        self._screen.refresh()

    async def _join(self, channel: str) -> None:
        if channel == self.channel:
            await self._screen.show(error_line(f"already in {channel}"))
        else:
            await self.join(channel)

    async def _who(self, _: str) -> None:
        members = await self._client.presence(self.channel)
        names = [each.name for each in members]
        more = f", and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        await self._screen.show(notice(f"{len(names)} in {self.channel}: {', '.join(names[:_MOST_NAMES])}{more}"))

    async def _channels(self, _: str) -> None:
        answer = await self._client.rpc("chat.channels", None)
        try:
            found = [(str(each["name"]), int(each["num_clients"])) for each in answer["channels"]]
            more = int(answer["num_channels"]) - len(found)
        except (KeyError, TypeError, ValueError):
            raise NotLongconn("the server does not tell its channels") from None
        self._know([name for name, _ in found])
        text = ", ".join(f"{name} ({count})" for name, count in found) + (f", and {more} more" if more > 0 else "")
        await self._screen.show(notice(text or "there are no channels"))

    async def _history(self, argument: str) -> None:
        number = int(argument) if argument.isascii() and argument.isdecimal() and len(argument) < 5 else 0
        if argument and not 1 <= number <= _MOST_HISTORY:
            await self._screen.show(error_line(f"/history takes a number from 1 to {_MOST_HISTORY}"))
            return
        page = await self._client.history(self.channel, limit=number or _HISTORY, reverse=True)
        await self._show_history(page)
        if not page.publications:
            await self._screen.show(notice(f"nothing is kept from earlier in {self.channel}"))

    async def _json(self, text: str) -> None:
        try:
            value = parse_json(text)
        except BadDataError as error:
            await self._screen.show(error_line(str(error)))
            return
        await self._publish(value)

    async def _help(self, _: str) -> None:
        for usage, text in COMMANDS.values():
            await self._screen.show(notice(f"{usage:<14} {text}"))


def not_sent(typed: str, why: str, perhaps: bool = False) -> str:
    """What the chat says of a text that was not published, or `perhaps` was."""
    return f"{_PERHAPS_SENT if perhaps else _NOT_SENT}: {why}: {_start(typed)}"


def _start(text: str) -> str:
    """A text, or its start."""
    line = text.splitlines()[0]
    return text if text == line and len(line) <= _MOST_START else line[:_MOST_START] + "…"
