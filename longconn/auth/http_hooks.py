"""Hooks over HTTP: the application decides by answering POSTs, in the JSON form of Centrifugo's proxies.

A back end that was written for Centrifugo's connect, refresh, subscribe, publish, sub_refresh and rpc proxies works
unmodified (centrifugal/centrifugo, `internal/proxyproto/proxy.proto`). Requests use kept connections. Only so many are
under way at once, as many again wait for them ten times over, and each has its time. Whatever is not a decision (no
answer, a late one, another status than 200, something else than such JSON) refuses with a temporary error: nobody is
let in because the application is away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from longconn.core.broker import Done
from longconn.core.counters import Counters
from longconn.core.errors import INTERNAL, CommandError, ConfigError, shown
from longconn.core.hooks import Hook, HookDisconnectError, HookRefusalError, HookReply, HookRequest, Hooks
from longconn.core.identity import Granted
from longconn.core.log import about, log
from longconn.core.publication import Data
from longconn.core.settings import Settings

EVENTS = ("connect", "refresh", "subscribe", "publish", "sub_refresh", "rpc")
#: Requests that wait for others to be answered, for each that may be under way.
_WAITING = 10
#: Seconds for which an idle connection is kept.
_KEPT = 4
_MOST_BYTES = 1024 * 1024
_MOST_REASON = 123


class _HookError(Struct):
    code: int
    message: str = ""
    temporary: bool = False


class _HookDisconnect(Struct):
    code: int
    reason: str = ""


class _HookGrant(Struct):
    info: Raw = Raw()
    data: Raw = Raw()


class _HookResult(Struct):
    user: str | None = ""
    expire_at: float | None = None
    expired: bool = False
    info: Raw = Raw()
    data: Raw = Raw()
    channels: list[str] | None = None
    subs: dict[str, _HookGrant] | None = None
    skip_history: bool = False


class _HookAnswer(Struct):
    result: _HookResult | None = None
    error: _HookError | None = None
    disconnect: _HookDisconnect | None = None


_DECODER = msgspec.json.Decoder(_HookAnswer)


def http_hooks(settings: Settings, reactor: Any, counters: Counters) -> Hooks:
    """The hooks that `settings` name, counted in `counters`. Raises ConfigError for what is no URL."""
    urls = {event: getattr(settings, f"hook_{event}") for event in EVENTS}
    given = {event: url for event, url in urls.items() if url}
    for event, url in given.items():
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"hook_{event}: {shown(url, 100)} is no URL of the form http://HOST or https://HOST")
    if not given:
        return Hooks()
    requests = _HookRequests(settings, reactor, counters)
    hooks = {event: requests.hook(event, url) for event, url in given.items()}
    names = tuple(each.lower() for each in settings.hook_header)
    return Hooks(**hooks, header_names=names, stop=requests.pool.closeCachedConnections)


class _HookRequests:
    """The requests to the application, at most `limit` at once."""

    def __init__(self, settings: Settings, reactor: Any, counters: Counters) -> None:
        # treq takes half as long to import as all the rest, and most servers have no hooks.
        import treq

        self._treq = treq
        self._reactor = reactor
        self._counters = counters
        self._timeout = settings.hook_timeout
        self._limit = settings.hook_requests
        self._most_data = settings.max_message
        self._under_way = 0
        self._waiting: deque[Callable[[], None]] = deque()
        # The call that begins a request that waits, in a turn of its own: making one takes a millisecond, and those
        # that begin together are answered together.
        self._beginning: Any = None
        self.pool = pool = HTTPConnectionPool(reactor, persistent=True)
        pool.maxPersistentPerHost = self._limit
        # Shorter than common back ends keep a connection: one that they are about to close is not used.
        pool.cachedConnectionTimeout = _KEPT
        agent = Agent(reactor, connectTimeout=self._timeout, pool=pool)
        self._client = treq.client.HTTPClient(cast(IAgent, agent))

    def hook(self, event: str, url: str) -> Hook:
        """Asks the application at `url`."""

        def ask(request: HookRequest, done: Done[HookReply]) -> None:
            body = msgspec.json.encode(_body(event, request))
            asked = self._reactor.seconds()

            def start() -> None:
                left = self._timeout - (self._reactor.seconds() - asked)
                if left <= 0:
                    self._end()
                    self._fail(event, asked, "it did not answer the requests before in time", done)
                    return
                posted = Deferred.fromCoroutine(self._post(url, body, request, left))
                posted.addTimeout(left, self._reactor).addBoth(answered)

            def answered(result: bytes | Failure) -> None:
                self._end()
                if isinstance(result, Failure):
                    self._fail(event, asked, result.getErrorMessage() or type(result.value).__name__, done)
                    return
                try:
                    reply = self._read(event, result)
                except CommandError as error:
                    self._counters.hook(event, self._reactor.seconds() - asked, failed=False)
                    done(error)
                except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                    self._fail(event, asked, f"its answer is none: {error}", done)
                else:
                    self._counters.hook(event, self._reactor.seconds() - asked, failed=False)
                    done(reply)

            if self._under_way + len(self._waiting) >= (1 + _WAITING) * self._limit:
                self._fail(event, asked, "too many requests wait for it", done)
                return
            self._waiting.append(start)
            self._begin_later()

        return ask

    def _fail(self, event: str, asked: float, why: str, done: Done[HookReply]) -> None:
        self._counters.hook(event, self._reactor.seconds() - asked, failed=True)
        log.warning("the hook %s gave no decision: %s", event, " ".join(why.split())[:200], extra=about("hook_failed"))
        done(CommandError(INTERNAL))

    def _begin_later(self) -> None:
        if self._beginning is None and self._waiting and self._under_way < self._limit:
            self._beginning = self._reactor.callLater(0, self._begin)

    def _begin(self) -> None:
        self._beginning = None
        self._under_way += 1
        self._waiting.popleft()()
        self._begin_later()

    def _end(self) -> None:
        self._under_way -= 1
        self._begin_later()

    async def _post(self, url: str, body: bytes, request: HookRequest, timeout: float) -> bytes:
        headers = Headers({"Content-Type": ["application/json"]})
        for name, value in request.headers.items():
            headers.setRawHeaders(name, [value])
        response = await self._client.post(
            url, data=body, headers=headers, allow_redirects=False, timeout=timeout, reactor=self._reactor
        )
        data = bytearray()

        def collect(part: bytes) -> None:
            data.extend(part)
            if len(data) > _MOST_BYTES:
                raise ValueError(f"more than {_MOST_BYTES} bytes")

        await self._treq.collect(response, collect)
        if response.code != 200:
            raise ValueError(f"status {response.code}")
        return bytes(data)

    def _read(self, event: str, data: bytes) -> HookReply:
        """Raises CommandError if the application refuses, and ValueError for what is no decision."""
        reply = _DECODER.decode(data)
        if reply.disconnect is not None:
            code, reason = reply.disconnect.code, reply.disconnect.reason
            if not 3000 <= code < 5000 or len(reason.encode()) > _MOST_REASON:
                raise ValueError(f"a code is 3000 to 4999, a reason at most {_MOST_REASON} bytes")
            raise HookDisconnectError(code, reason)
        if reply.error is not None:
            if reply.error.code <= 0:
                raise ValueError("the code of an error is a positive number")
            raise HookRefusalError(reply.error.code, reply.error.message, reply.error.temporary)
        result = reply.result
        if result is None:
            raise ValueError("it has neither result, error nor disconnect")
        granted = dict.fromkeys(result.channels or (), Granted())
        granted |= {name: Granted(_json(each.info), _json(each.data)) for name, each in (result.subs or {}).items()}
        found = _json(result.data)
        if event == "publish" and len(found) > self._most_data:
            raise ValueError(f"its data are larger than {self._most_data} bytes")
        return HookReply(
            user=result.user or "",
            expires_at=result.expire_at or None,
            expired=result.expired,
            info=_json(result.info),
            data=found,
            subs=granted,
            skip_history=result.skip_history,
        )


def _body(event: str, request: HookRequest) -> dict[str, Any]:
    body: dict[str, Any] = {
        "client": request.client,
        "transport": request.protocol,
        "protocol": "json",
        "encoding": "json",
    }
    if event != "connect":
        body["user"] = request.user
    if request.channel:
        body["channel"] = request.channel
    if request.method:
        body["method"] = request.method
    if request.data:
        body["data"] = Raw(request.data)
    return body


def _json(raw: Raw) -> bytes:
    """Any JSON value, compact; empty without one."""
    written = bytes(raw)
    if written in (b"", b"null"):
        return b""
    try:
        return Data.of_json(written).json
    except CommandError as error:
        raise ValueError(str(error)) from None
