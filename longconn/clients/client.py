"""The client: one interface to the channels of a server, whatever the transport."""

from __future__ import annotations

import random as random_numbers
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from longconn.clients.address import parse_address
from longconn.clients.backoff import Backoff
from longconn.clients.centrifugo import ALREADY_SUBSCRIBED, TOO_MANY_REQUESTS, PendingCommand, ReceivedPush
from longconn.clients.certificates import ClientCertificate
from longconn.clients.connection import ConnectionConfiguration, ReconnectingConnection
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
from longconn.clients.recovery import RecoveryPosition, read_history, read_members, read_text, read_value
from longconn.clients.subscription import Subscription
from longconn.clients.tokens import Token
from longconn.clients.transports.base import TransportConfiguration, find_transports
from longconn.clients.transports.json_frames import raw_json

_T = TypeVar("_T")
log = Logger()


class Client:
    """A client of one server, over as many connections as it takes. Made by `connect`.

    Its Deferreds fail with a ClientError. A command waits for a connection, and then for its answer, for `timeout`
    seconds each. If an answer is lost with its connection, a command that changes nothing is sent again. One that
    changes something (`publish`, `rename`, `rpc`) fails with OutcomeUnknown, and is never sent twice.

    `async with` closes the client at its end, and waits until the connection is gone. It does not wait at its start.
    """

    def __init__(
        self,
        url: str,
        transport_configuration: TransportConfiguration,
        configuration: ConnectionConfiguration,
        on_state: Callable[[State], None] | None,
    ) -> None:
        """Raises AddressError."""
        address = parse_address(url)
        self.url = url
        self.timeout = transport_configuration.timeout
        self._reactor = transport_configuration.reactor
        self._configuration = configuration
        self._subscriptions: dict[str, Subscription] = {}
        self._waiting_for_connected: list[Deferred[None]] = []
        self._waiting_for_closed: list[Deferred[State]] = []
        self._program_on_state = on_state
        self._connection = ReconnectingConnection(
            address,
            find_transports(address),
            transport_configuration,
            configuration,
            on_connected=self._on_connected,
            on_push=self._on_push,
            on_state=self._on_state,
        )

    @property
    def state(self) -> State:
        """The state of the connection."""
        return self._connection.state

    @property
    def id(self) -> str:
        """The id that the server gave this client on its present or last connection; "" before the first one."""
        return self._connection.id

    def connected(self) -> Deferred[None]:
        """Fires when there is a connection. Fails when the client has ended for good."""
        if self._connection.up:
            return succeed(None)
        if self.state.state is ConnectionState.CLOSED:
            return fail(self.state.error or Closed("closed"))
        waiting: Deferred[None] = Deferred(self._waiting_for_connected.remove)
        self._waiting_for_connected.append(waiting)
        return waiting

    def closed(self) -> Deferred[State]:
        """Fires with the last state when the client has ended for good. Never fails."""
        if self.state.state is ConnectionState.CLOSED:
            return succeed(self.state)
        waiting: Deferred[State] = Deferred(self._waiting_for_closed.remove)
        self._waiting_for_closed.append(waiting)
        return waiting

    def close(self) -> Deferred[None]:
        """End subscriptions, and fail commands with Closed. Fires when the connection is gone. Never fails."""
        closed = self.closed()
        self._connection.end(Closed("closed"))
        return closed.addCallback(lambda state: None)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

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
        """Subscribe, and subscribe again after a lost connection. Fires when the first subscribe has succeeded.

        `since`: a position to go on from; a `Lost` comes first if the server cannot. `recover`: go on from the last
        position after a lost connection; without it, missed publications are neither asked for nor reported.
        `join_leave`: ask for `Joined` and `Left`, which the channel's options have to allow. `token`: as for `connect`.
        A channel has one subscription: a second one is refused (105).
        """
        if channel in self._subscriptions:
            return fail(Refused(ALREADY_SUBSCRIBED, f"already in {channel}"))
        if self.state.state is ConnectionState.CLOSED:
            return fail(self.state.error or Closed("closed"))
        recovery = RecoveryPosition(channel, since, recover, join_leave)
        first: Deferred[Subscription] = Deferred(lambda _: subscription.give_up())
        calls = DelayedCalls(self._reactor)
        subscription = Subscription(self._connection, calls, recovery, token, first, self._forget)
        self._subscriptions[channel] = subscription
        if self._connection.up:
            subscription.ask()
        return first

    def publish(self, channel: str, data: JSONValue) -> Deferred[None]:
        """Publish a JSON value; a `JSONText` as it is written. Fires when the server has accepted it."""
        return self._do("publish", {"channel": channel, "data": data}, lambda result: None)

    def presence(self, channel: str) -> Deferred[list[Member]]:
        """The members that are subscribed now, sorted by name."""
        return self._do("presence", {"channel": channel}, read_members, repeatable=True)

    def history(
        self, channel: str, *, limit: int = 100, since: Position | None = None, reverse: bool = False
    ) -> Deferred[HistoryPage]:
        """At most `limit` publications after `since`, or before it in reverse. 0: only the position; -1: all."""
        body: JSONObject = {"channel": channel, "limit": limit}
        if since is not None:
            body["since"] = {"epoch": since.epoch, "offset": since.offset}
        if reverse:
            body["reverse"] = True
        return self._do("history", body, lambda result: read_history(channel, result), repeatable=True)

    def rename(self, name: str) -> Deferred[None]:
        """Take another name, now and on later connections. Fails with Refused if the name is bad or taken."""

        def renamed(result: JSONValue) -> None:
            self._configuration.name = name

        return self.rpc("chat.rename", {"name": name}).addCallback(renamed)

    def rpc(self, method: str, data: JSONValue) -> Deferred[JSONValue]:
        """Call a method of the server's program. Fires with its result."""

        def read(result: JSONObject) -> JSONValue:
            return read_value(read_text(result["data"])) if "data" in result else None

        return self._do("rpc", {"method": method, "data": data}, read)

    def _do(
        self, method: str, body: JSONObject, read: Callable[[JSONObject], _T], repeatable: bool = False
    ) -> Deferred[_T]:
        """Send a command and read its result. A temporary refusal is tried again until the command's deadline."""
        try:
            if "data" in body:
                body["data"] = raw_json(body["data"])
        except ClientError as error:
            return fail(error)
        backoff = Backoff(self._configuration.random, self._reactor.seconds)

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
        command = PendingCommand(method, body, answered, repeatable)
        self._connection.request(command)
        return done

    # Callbacks of the connection.

    def _on_connected(self) -> Sequence[PendingCommand]:
        commands = [each.command() for each in tuple(self._subscriptions.values())]
        return [each for each in commands if each is not None]

    def _on_push(self, push: ReceivedPush) -> None:
        subscription = self._subscriptions.get(push.channel)
        if subscription is not None:
            subscription.on_push(push)

    def _on_state(self, state: State) -> None:
        if state.state is ConnectionState.RECONNECTING and state.error is not None:
            for each in tuple(self._subscriptions.values()):
                each.on_reconnecting(state.error)
        if self._program_on_state is not None:
            try:
                self._program_on_state(state)
            except Exception:  # an error in the program's callback must not stop the client
                log.failure("on_state")
        if state.state is ConnectionState.CONNECTED:
            connected, self._waiting_for_connected = self._waiting_for_connected, []
            for waiting in connected:
                waiting.callback(None)
        elif state.state is ConnectionState.CLOSED:
            self._on_end(state)

    def _on_end(self, state: State) -> None:
        error = state.error or Closed("closed")
        for each in tuple(self._subscriptions.values()):
            each.end(error)
        connected, self._waiting_for_connected = self._waiting_for_connected, []
        for waiting in connected:
            waiting.errback(error)
        closed, self._waiting_for_closed = self._waiting_for_closed, []
        for ended in closed:
            ended.callback(state)

    def _forget(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription.channel, None)


def connect(
    url: str,
    *,
    reactor: Any,
    name: str | None = None,
    token: Token = "",
    login: tuple[str, str] | None = None,
    reconnect: bool = True,
    trust_root: Any = None,
    certificate: ClientCertificate | None = None,
    on_state: Callable[[State], None] | None = None,
    timeout: float = 10.0,
    random: Callable[[], float] = random_numbers.random,
    label: str | None = None,
) -> Client:
    """A client of the server at `url`. It starts to connect at once; `Client.connected` fires when it has connected.

    `url`: `tcp://HOST:PORT`, `tls://`, `ws://HOST:PORT[/path]`, `wss://`, `grpc://HOST:PORT`, `grpcs://`, `http://` or
    `https://`. The last two use HTTP streaming, and server-sent events if HTTP streaming does not get through. A path
    that ends in `/connection/http_stream` or `/connection/sse` selects one of them.

    `name`: be a chat client with that name, which others see; after a cut the client gets it back at once. `label`, in
    its place: publish under that name, which other clients may do at the same time.

    `token`: a token, or a callable that returns a Deferred of one. It is called before each connection, and before the
    token expires. If it fails with a ClientError other than ConnectionFailed, the client ends with that error. `login`:
    a name and a password, for a server that checks these.

    `reconnect`: try again after 0.5 to 20 s, until `close`, or until the server says not to. Until the first
    connection, a server that does not speak the protocol, and a certificate that does not fit, end the client, too.
    `trust_root`: the trusted certificates, as `load_authorities` or `twisted.internet.ssl.optionsForClientTLS` has
    them; None for the system's. `certificate`: that of the client, by `load_certificate`.

    `on_state` is called after each change of the state, but not for the first attempt. `timeout`: seconds for
    connecting (the first of two transports has half of them), and for the answer to a command. `random` returns numbers
    from 0 to 1.

    Raises AddressError for a URL that cannot be used.
    """
    transport_configuration = TransportConfiguration(reactor, trust_root, timeout, login, certificate)
    connection = ConnectionConfiguration(token, name, reconnect, random, login, label)
    return Client(url, transport_configuration, connection, on_state)
