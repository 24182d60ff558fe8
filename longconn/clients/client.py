"""The client: one server, its channels, whatever the transport."""

from __future__ import annotations

import random as random_numbers
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from longconn.clients.address import parse_address
from longconn.clients.backoff import Backoff
from longconn.clients.centrifugo import ALREADY_SUBSCRIBED, TOO_MANY_REQUESTS, Command, Push
from longconn.clients.connection import Connection, ConnectionConfiguration
from longconn.clients.delayed_calls import DelayedCalls
from longconn.clients.errors import ClientError, Closed, NotLongconn, Refused
from longconn.clients.events import (
    ConnectionState,
    HistoryPage,
    JSONObject,
    JSONValue,
    Member,
    Position,
    State,
)
from longconn.clients.recovery import RecoveryPosition, read_history, read_members
from longconn.clients.subscription import Subscription
from longconn.clients.tokens import Token
from longconn.clients.transports.base import TransportConfiguration, find_transports
from longconn.clients.transports.json_frames import check_json

_T = TypeVar("_T")
log = Logger()


class Client:
    """A conversation with one server, over as many connections as it takes. Made by `connect`.

    What it returns fails with a ClientError. A command waits for a connection, and then for its answer, for `timeout`
    seconds each. Where an answer was lost with its connection, what changes nothing is asked again; what does change
    something (`publish`, `rename`, `rpc`) fails with OutcomeUnknown, and is never sent twice.
    """

    def __init__(
        self,
        url: str,
        configuration: TransportConfiguration,
        options: ConnectionConfiguration,
        on_state: Callable[[State], None] | None,
    ) -> None:
        """Raises AddressError."""
        address = parse_address(url)
        self.url = url
        self.timeout = configuration.timeout
        self._reactor = configuration.reactor
        self._random = options.random
        self._wishes = options
        self._subscriptions: dict[str, Subscription] = {}
        # Subscriptions of which much waits unread.
        self._behind: set[Subscription] = set()
        self._for_connected: list[Deferred[None]] = []
        self._for_closed: list[Deferred[State]] = []
        self._on_state = on_state
        self._connection = Connection(address, find_transports(address), configuration, options, self)

    @property
    def state(self) -> State:
        """How the connection is."""
        return self._connection.state

    @property
    def id(self) -> str:
        """What the server calls this client, on its present or last connection; "" before there was one."""
        return self._connection.id

    def connected(self) -> Deferred[None]:
        """Fires when there is a connection; fails when there will be none any more."""
        if self._connection.up:
            return succeed(None)
        if self.state.state is ConnectionState.CLOSED:
            return fail(self.state.error or Closed("closed"))
        waiting: Deferred[None] = Deferred(self._for_connected.remove)
        self._for_connected.append(waiting)
        return waiting

    def closed(self) -> Deferred[State]:
        """Fires when the client has ended for good, with why. Never fails."""
        if self.state.state is ConnectionState.CLOSED:
            return succeed(self.state)
        waiting: Deferred[State] = Deferred(self._for_closed.remove)
        self._for_closed.append(waiting)
        return waiting

    def close(self) -> Deferred[None]:
        """End it: subscriptions end, commands fail with Closed. Fires when nothing of it is left. Never fails."""
        closed = self.closed()
        self._connection.end(Closed("closed"))
        return closed.addCallback(lambda state: None)

    # Channels.

    def subscribe(
        self,
        channel: str,
        *,
        since: Position | None = None,
        recover: bool = True,
        join_leave: bool = False,
        token: Token = "",
    ) -> Deferred[Subscription]:
        """Subscribe, and stay so over lost connections; fires once that is so for the first time.

        `since`: go on from that position; a `Lost` comes first where the server cannot. `recover`: go on from the last
        position after a lost connection, too; else what was missed is neither asked for nor told. `join_leave`: tell
        who comes and goes, where the channel's options have that. `token`: as for `connect`. There is one subscription
        to a channel: a second one is refused (105).
        """
        if channel in self._subscriptions:
            return fail(Refused(ALREADY_SUBSCRIBED, f"already in {channel}"))
        if self.state.state is ConnectionState.CLOSED:
            return fail(self.state.error or Closed("closed"))
        recovery = RecoveryPosition(channel, since, recover, join_leave)
        first: Deferred[Subscription] = Deferred(lambda _: subscription.give_up())
        subscription = Subscription(self, DelayedCalls(self._reactor), recovery, token, self._random, first)
        self._subscriptions[channel] = subscription
        if self._connection.up:
            command = subscription.request()
            if command is not None:
                self.say(command)
        return first

    def publish(self, channel: str, data: JSONValue) -> Deferred[None]:
        """Publish a JSON value. Fires when the server has taken it."""
        return self._do("publish", {"channel": channel, "data": data}, lambda result: None)

    def presence(self, channel: str) -> Deferred[list[Member]]:
        """Who is subscribed now, in the order of names."""
        return self._do("presence", {"channel": channel}, read_members, repeatable=True)

    def history(
        self, channel: str, *, limit: int = 0, since: Position | None = None, reverse: bool = False
    ) -> Deferred[HistoryPage]:
        """At most `limit` publications after `since`, or before it in reverse. 0: the position alone; -1: all."""
        body: JSONObject = {"channel": channel, "limit": limit}
        if since is not None:
            body["since"] = {"epoch": since.epoch, "offset": since.offset}
        if reverse:
            body["reverse"] = True
        return self._do("history", body, lambda result: read_history(channel, result), repeatable=True)

    def rename(self, name: str) -> Deferred[None]:
        """Take another name, now and on later connections. Fails with Refused where it is bad or taken."""

        def renamed(result: JSONValue) -> None:
            self._wishes.name = name

        return self.rpc("chat.rename", {"name": name}).addCallback(renamed)

    def rpc(self, method: str, data: JSONValue) -> Deferred[JSONValue]:
        """Call what the server's program offers by that name; fires with what it returns."""
        return self._do("rpc", {"method": method, "data": data}, lambda result: result.get("data"))

    def _do(
        self, method: str, body: JSONObject, read: Callable[[JSONObject], _T], repeatable: bool = False
    ) -> Deferred[_T]:
        """Ask the server. A refusal that says "try again" is tried again while there is time."""
        try:
            check_json(body.get("data"))
        except ClientError as error:
            return fail(error)
        backoff = Backoff(self._random)

        def answered(answer: JSONObject | ClientError) -> None:
            if command.given_up:
                return
            if isinstance(answer, Refused) and answer.temporary and (repeatable or answer.code == TOO_MANY_REQUESTS):
                delay = backoff.delay()
                if self._reactor.seconds() + delay < command.deadline:
                    self._connection.request_later(command, delay)
                    return
            if isinstance(answer, ClientError):
                done.errback(answer)
                return
            try:
                value = read(answer)
            except NotLongconn as error:
                done.errback(error)
            else:
                done.callback(value)

        def give_up(_: Deferred[_T]) -> None:
            command.given_up = True

        done: Deferred[_T] = Deferred(give_up)
        command = Command(method, body, answered, repeatable)
        self._connection.request(command)
        return done

    # For the connection.

    def on_up(self) -> Sequence[Command]:
        commands = [each.request() for each in tuple(self._subscriptions.values())]
        return [each for each in commands if each is not None]

    def on_down(self, error: ClientError) -> None:
        for each in tuple(self._subscriptions.values()):
            each.on_down(error)

    def on_push(self, push: Push) -> None:
        subscription = self._subscriptions.get(push.channel)
        if subscription is not None:
            subscription.on_push(push)

    def on_answered(self) -> None:
        self._connection.hold(bool(self._behind))

    def on_end(self, error: ClientError) -> None:
        for each in tuple(self._subscriptions.values()):
            each.end(error)
        connected, self._for_connected = self._for_connected, []
        for waiting in connected:
            waiting.errback(error)
        closed, self._for_closed = self._for_closed, []
        for ended in closed:
            ended.callback(self.state)

    def on_state(self, state: State) -> None:
        if self._on_state is not None:
            try:
                self._on_state(state)
            except Exception:  # what goes wrong in the program is not to stop us
                log.failure("on_state")
        if state.state is ConnectionState.CONNECTED:
            connected, self._for_connected = self._for_connected, []
            for waiting in connected:
                waiting.callback(None)

    # For subscriptions.

    @property
    def is_up(self) -> bool:
        """Whether commands can be sent now."""
        return self._connection.up

    def say(self, command: Command) -> None:
        self._connection.say(command)

    def renew(self, error: ClientError) -> None:
        self._connection.renew(error)

    def forget(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription.channel, None)

    def on_unread(self, subscription: Subscription, much: bool) -> None:
        (self._behind.add if much else self._behind.discard)(subscription)
        self._connection.hold(bool(self._behind))


def connect(
    url: str,
    *,
    reactor: Any,
    name: str | None = None,
    token: Token = "",
    reconnect: bool = True,
    trust_root: Any = None,
    on_state: Callable[[State], None] | None = None,
    timeout: float = 10.0,
    random: Callable[[], float] = random_numbers.random,
) -> Client:
    """A client of the server at `url`. It starts to connect at once; `Client.connected` tells when it has.

    `url`: `tcp://HOST:PORT`, `tls://`, `ws://HOST:PORT[/path]`, `wss://`, `grpc://HOST:PORT`, `http://` or `https://`.
    The last two take HTTP streaming, and server-sent events where that does not get through; a path that ends in
    `/connection/http_stream` or `/connection/sse` means that one alone.

    `name`: be a chat client of that name, announced to others. `token`: who one is, or a callable that gives a
    Deferred of it, asked before each connection and before it expires; where it fails with a ClientError other than
    ConnectionFailed, so does the client. `reconnect`: whether to try again, after 0.5 to 20 s, until `close` or until
    the server says not to. Before it has ever been connected, a server that does not speak the protocol and a
    certificate that does not fit end it, too. `trust_root`: whose certificates are trusted, as in
    `twisted.internet.ssl.optionsForClientTLS`; None for the system's. `on_state` is told of every change, but not of
    the first attempt. `timeout`: seconds, for connecting (where two transports are tried the first has half of them),
    and for what a command waits. `random`: numbers from 0 to 1.

    Raises AddressError for a URL that cannot be used.
    """
    return Client(
        url,
        TransportConfiguration(reactor, trust_root, timeout),
        ConnectionConfiguration(token, name, reconnect, random),
        on_state,
    )
