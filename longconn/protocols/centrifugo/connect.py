"""A structured client on its way in: the subscriptions that the server makes for it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

from longconn.core.channel import Subscription
from longconn.core.client import Client
from longconn.core.errors import CommandError
from longconn.core.hub import Hub, log
from longconn.core.tokens import Granted
from longconn.wire.centrifugo import Command


class Arriving(Protocol):
    """The session (`longconn.protocols.centrifugo.session.Session`)."""

    hub: Hub
    client: Client

    def subscribe(self, channel: str, body: dict[str, Any], done: Any, granted: Any = None) -> None: ...

    def arrived(self, command: Command, subs: dict[str, bytes]) -> None: ...


class Arrival:
    """Subscribes the client to `granted` channels, then answers its connect with all their results.

    `asked` has what the client says of some of them, a SubscribeRequest each: where in them it stands.
    A channel that cannot be subscribed to is left out, and logged. What comes back in a channel
    before all are complete waits for the answer, which a client expects first.
    """

    def __init__(
        self,
        session: Arriving,
        command: Command,
        granted: Mapping[str, Granted],
        asked: Mapping[str, dict[str, Any]],
    ) -> None:
        self._session = session
        self._command = command
        self._granted = granted
        self._asked = asked
        self._subs: dict[str, bytes] = {}
        self._missing = len(granted) + 1
        self._early: list[tuple[Subscription, bytes]] = []

    def start(self) -> None:
        """Subscribe to all; the last answer, or the lack of any, completes it."""
        session = self._session
        for channel, grant in self._granted.items():
            done = partial(self._done, channel)
            try:
                session.subscribe(channel, self._asked.get(channel, {}), done, grant)
            except CommandError as error:
                done(error)
            subscription = session.client.subscriptions.get(channel)
            if subscription is not None:
                subscription.write = partial(self._wait, subscription)
        self._one_less()

    def _wait(self, subscription: Subscription, data: bytes) -> None:
        self._early.append((subscription, data))

    def _done(self, channel: str, result: bytes | CommandError) -> None:
        if isinstance(result, CommandError):
            client = self._session.client
            log.warning("%s client from %s is not in %r: %s", client.protocol, client.address, channel, result)
        else:
            self._subs[channel] = result
        self._one_less()

    def _one_less(self) -> None:
        self._missing -= 1
        if not self._missing and self._session.client.live:
            self._session.arrived(self._command, self._subs)
            self._session.hub.turn.answer_first(self._release)

    def _release(self) -> None:
        """The answer is written; what waited for it follows."""
        client = self._session.client
        for subscription in client.subscriptions.values():
            subscription.write = client.outlet.write
        for _, data in self._early:
            client.outlet.write(data)
        self._early.clear()
