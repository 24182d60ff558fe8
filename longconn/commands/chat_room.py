"""A chat: one client in one channel at a time, what others do there, and what is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from longconn.clients import (
    Client,
    ClientError,
    ConnectionState,
    Event,
    HistoryPage,
    Joined,
    Left,
    Lost,
    Member,
    OutcomeUnknown,
    Publication,
    Refused,
    State,
    Subscription,
)
from longconn.commands.chat_lines import COMMANDS, Screen, said, told, understood, wrong
from longconn.commands.messages import no_constant

#: Lines of history that are shown on joining, and to /history without a number; and the most.
_HISTORY = 20
_MOST_HISTORY = 100
#: Names that /who lists.
_MOST_NAMES = 100
#: Characters of a text that tell which one it is.
_MOST_START = 60


class Room:
    """What is said in the client's channel, on a screen. `on_end` is called with why, when one of them is lost."""

    def __init__(
        self, reactor: Any, client: Client, name: str, screen: Screen, on_end: Callable[[ClientError | OSError], None]
    ) -> None:
        self.name = name
        self.channel = ""
        #: who is here, by the client's id; None where the server does not tell
        self.members: dict[str, Member] | None = None
        self._reactor = reactor
        self._client = client
        self._screen = screen
        self._on_end = on_end
        self._subscription: Subscription | None = None
        self._reading: Deferred[None] | None = None
        # Somebody who left a moment ago, and perhaps only took another name.
        self._gone: Member | None = None

    # Channels.

    async def join(self, channel: str) -> None:
        """Enter a channel, show what was said there last, and leave the one before. Raises ClientError."""
        page = await self._last(channel, _HISTORY)
        since = page.position if page is not None and page.position.epoch else None
        # From the position of the history on: nothing is missed in between, and nothing shown twice.
        subscription = await self._client.subscribe(channel, since=since, join_leave=True)
        before, self._subscription = self._subscription, subscription
        self.channel = channel
        if before is not None:
            await before.unsubscribe()
            await self._screen.show(told(f"now in {channel}"))
        await self._show_history(page)
        await self.count()
        self._reading = Deferred.fromCoroutine(self._read(subscription))
        self._reading.addErrback(self._lost, subscription)

    async def _last(self, channel: str, number: int) -> HistoryPage | None:
        """The last publications; None where there is no history, or not for us."""
        try:
            return await self._client.history(channel, limit=number, reverse=True)
        except Refused:
            return None

    async def _show_history(self, page: HistoryPage | None) -> None:
        for publication in reversed(page.publications if page is not None else []):
            for line in said(publication):
                await self._screen.show(line)

    async def count(self) -> None:
        """Ask who is here."""
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

    # What others do.

    async def _on_event(self, event: Event) -> None:
        gone, self._gone = self._gone, None
        if isinstance(event, Joined):
            await self._on_joined(event.member, gone)
            return
        if gone is not None:
            await self._screen.show(told(f"{gone.name} left"))
        if isinstance(event, Publication):
            for line in said(event):
                await self._screen.show(line)
        elif isinstance(event, Left):
            self._on_left(event.member)
        elif isinstance(event, Lost):
            text = f"some of what was said in {event.channel} is lost: the server does not have it any more"
            await self._screen.show(wrong(text))

    async def _on_joined(self, member: Member, gone: Member | None) -> None:
        if self.members is not None:
            self.members[member.client] = member
        self._screen.refresh()
        if gone is not None and gone.client == member.client:
            await self._screen.show(told(f"{gone.name} is now {member.name}"))
            return
        if gone is not None:
            await self._screen.show(told(f"{gone.name} left"))
        if member.named and member.client != self._client.id:
            await self._screen.show(told(f"{member.name} joined"))

    def _on_left(self, member: Member) -> None:
        """Told at once, unless it comes back under another name in the same breath. Only who has a name is told."""
        if self.members is not None:
            self.members.pop(member.client, None)
        self._screen.refresh()
        if not member.named:
            return
        self._gone = member
        self._reactor.callLater(0, self._tell_gone, member)

    def _tell_gone(self, member: Member) -> None:
        if self._gone is member:
            self._gone = None
            # Where nothing can be shown any more, the next event ends it.
            self._screen.show(told(f"{member.name} left")).addErrback(lambda failure: failure.trap(OSError))

    def on_state(self, state: State) -> None:
        """The connection changed."""
        self._screen.refresh()
        if state.state is ConnectionState.CONNECTED and self.channel:
            # Who came and went meanwhile is nowhere told.
            Deferred.fromCoroutine(self.count()).addErrback(lambda failure: failure.trap(ClientError))

    # What is typed.

    async def do(self, line: str) -> None:
        """What a typed line asks for; what does not work is shown."""
        verb, argument = understood(line)
        try:
            if verb == "wrong":
                await self._screen.show(wrong(argument))
            elif verb == "say":
                await self._client.publish(self.channel, argument)
            elif verb:
                await getattr(self, f"_{verb}")(argument)
        except ClientError as error:
            text = str(error)
            if verb in ("say", "json"):  # it is not in the line editor any more
                text += f"; {'perhaps ' * isinstance(error, OutcomeUnknown)}not said: {_start(argument)}"
            await self._screen.show(wrong(text))

    @property
    def connected(self) -> bool:
        """Whether what is said now is heard now."""
        return self._client.state.state is ConnectionState.CONNECTED

    async def catch_up(self) -> None:
        """Until all came that was said before now."""
        with suppress(ClientError):  # refused; or the connection is lost now, and nothing more comes
            await self._client.presence(self.channel)

    async def _nick(self, name: str) -> None:
        await self._client.rename(name)
        self.name = name
        self._screen.refresh()

    async def _join(self, channel: str) -> None:
        if channel == self.channel:
            await self._screen.show(wrong(f"already in {channel}"))
        else:
            await self.join(channel)

    async def _who(self, _: str) -> None:
        members = await self._client.presence(self.channel)
        names = [each.name for each in members]
        more = f", and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        await self._screen.show(told(f"{len(names)} in {self.channel}: {', '.join(names[:_MOST_NAMES])}{more}"))

    async def _history(self, argument: str) -> None:
        number = int(argument) if argument.isascii() and argument.isdecimal() and len(argument) < 5 else 0
        if argument and not 1 <= number <= _MOST_HISTORY:
            await self._screen.show(wrong(f"/history takes a number from 1 to {_MOST_HISTORY}"))
            return
        page = await self._client.history(self.channel, limit=number or _HISTORY, reverse=True)
        await self._show_history(page)
        if not page.publications:
            await self._screen.show(told(f"nothing was said in {self.channel} lately"))

    async def _json(self, text: str) -> None:
        try:
            value = json.loads(text, parse_constant=no_constant)
        except (ValueError, RecursionError) as error:
            await self._screen.show(wrong(f"not JSON: {error}"))
            return
        await self._client.publish(self.channel, value)

    async def _help(self, _: str) -> None:
        for usage, text in COMMANDS.values():
            await self._screen.show(told(f"{usage:<14} {text}"))


def _start(text: str) -> str:
    """A text, or the start of it that tells which it is."""
    line = text.splitlines()[0]
    return text if text == line and len(line) <= _MOST_START else line[:_MOST_START] + "…"
