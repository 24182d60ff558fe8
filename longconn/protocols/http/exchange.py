"""One request and its answer, on whichever site of twisted.web."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote_to_bytes

from twisted.python.failure import Failure

from longconn.core.client import Caller
from longconn.core.disconnects import Disconnect
from longconn.core.errors import BAD_REQUEST, CommandError
from longconn.core.hub import Hub
from longconn.core.identity import Identity
from longconn.core.json_text import write
from longconn.core.log import about, log
from longconn.core.names import NameRequest, check_resume
from longconn.core.namespaces import Action
from longconn.core.publication import Position
from longconn.protocols.http.errors import Headers, HTTPError, as_http_error, body_of, headers_of, refusal_of_client
from longconn.protocols.http.large_answer import SMALL_ANSWER, LargeAnswers
from longconn.protocols.http.request import body_limit
from longconn.wire.origin import RequestOrigin
from longconn.wire.sse import EventFormat, read_position

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_PARAMETERS = 50
#: Parameters for the id of the last event, of polyfills that cannot set its header: npm's `event-source-polyfill`
#: (Yaffle's) and Mercure's clients.
_LAST_EVENT_ID = ("lastEventId", "lastEventID", "Last-Event-ID")


class RequestConnection(Protocol):
    """What is known of a request's connection: `local` and `secure` as in `RequestOrigin`."""

    host: str
    address: str
    local: bool
    secure: bool
    certificate: str


class HTTPExchange:
    """A request of twisted.web (`request`), with the `host` and `address` that the hub knows its client by.

    The answer is given once, at once or turns later. It is dropped if the client has gone.
    """

    def __init__(self, large_answers: LargeAnswers, request: Any, connection: RequestConnection) -> None:
        self.hub = large_answers.hub
        self._large_answers = large_answers
        self.request = request
        self.connection = connection
        self.host = host = connection.host
        self.address = address = connection.address
        #: the caller, for requests that publish nothing; those that do speak by `Hub.request`
        self.caller = Caller(host, address, address)
        #: who the request comes from; None until it is known
        self.identity: Identity | None = None
        #: whether an EventSource reads the answer
        self.has_event_source = False
        #: the connection ended before the answer did
        self.lost = False
        self._query: dict[str, str] | None = None

    def become(self, identity: Identity) -> None:
        """The request comes from this user."""
        self.identity = identity
        self.caller.identify(identity)

    # The request.

    def header(self, name: str) -> str:
        """The last value of a header; empty if there is none."""
        value = self.request.getHeader(name.encode())
        return "" if value is None else value.decode("utf-8", "replace")

    def headers(self, name: str) -> list[str]:
        """All values of a header."""
        values = self.request.requestHeaders.getRawHeaders(name.encode()) or []
        return [each.decode("utf-8", "replace") for each in values]

    def origin(self) -> RequestOrigin:
        """The headers that the rules on origins and hosts need."""
        return RequestOrigin(
            hosts=self.headers("host"),
            origins=self.headers("origin"),
            fetch_site=self.header("sec-fetch-site"),
            fetch_mode=self.header("sec-fetch-mode"),
            local=self.connection.local,
            secure=self.connection.secure,
            must_name_host=self.request.clientproto != b"HTTP/1.0",
        )

    def path(self) -> list[str]:
        """The segments of the path below the resource. Raises HTTPError(400) for malformed escapes."""
        segments = self.request.postpath
        # twisted.web has split the path and then decoded it leniently: the segments as they came are decoded here.
        raw = self.request.path.split(b"/")[-len(segments) :] if segments else []
        if len(raw) != len(segments) or any(map(_differ, raw, segments)):
            raw = [each.replace(b"%", b"%25") for each in segments]  # a resource above this one changed the path
        return [_decode(each) for each in raw]

    def parameter(self, name: str) -> str | None:
        """One of `?name=value`. Raises HTTPError(400) for a query that is malformed or has a name twice."""
        if self._query is None:
            self._query = _parse_query(self.request.uri.partition(b"?")[2])
        return self._query.get(name)

    def since(self, last_event_id: bool = False) -> Position | None:
        """The position of `?since=`; that of the last event's id goes first if it counts. None without either.

        Raises CommandError(BAD_REQUEST) if it is malformed.
        """
        text = (self._last_event_id() if last_event_id else "") or self.parameter("since")
        position = read_position(text) if text else None
        if text and position is None:
            raise CommandError(BAD_REQUEST, what="a position is EPOCH:OFFSET")
        return position

    def name_request(self) -> NameRequest | None:
        """The name of `?name=`, with the secret of `?resume=`; None without one.

        Raises CommandError(BAD_REQUEST) for a secret that is none.
        """
        name, resume = self.parameter("name"), check_resume(self.parameter("resume") or "")
        return None if name is None else NameRequest(name, resume)

    def check_client(self, channel: str | None, name: NameRequest | None, fits: Callable[[], None]) -> None:
        """Call `fits` if a client called `name` could connect and subscribe to `channel` (each may be None).

        Otherwise answer with the refusal.
        """
        hub = self.hub

        def checked(result: object) -> None:
            try:
                if isinstance(result, CommandError):
                    raise result
                if name is not None:
                    hub.claim(name.name, self.caller.user, name.resume)
                hub.places.check(self.host)
            except CommandError as error:
                self.fail(refusal_of_client(error))
            else:
                fits()

        # A client that has still to prove who it is is asked for its right then.
        if channel is None or (self.identity is None and not hub.gate.is_open):
            checked(None)
        else:
            hub.door.check(self.caller, Action.SUBSCRIBE, channel, checked)

    def _last_event_id(self) -> str:
        """The id of the last event that a reader of server-sent events received; empty if it does not say."""
        found = self.header("last-event-id")
        for name in () if found else _LAST_EVENT_ID:
            found = found or self.parameter(name) or ""
        return found

    def body(self) -> bytes:
        """The body. Raises HTTPError(413) if it is over its limit: a site of another program may let that through."""
        content = self.request.content
        content.seek(0)
        limit = body_limit(self.hub.settings, self.header("content-type"))
        data: bytes = content.read(limit + 1)
        if len(data) > limit:
            raise HTTPError(413, f"the body is larger than {limit} bytes")
        return data

    def guard(self, respond: Callable[..., None], *parameters: str) -> None:
        """Call `respond` with this exchange; whatever it raises is answered."""
        try:
            respond(self, *parameters)
        except (CommandError, HTTPError) as error:
            self.fail(error)
        except Exception:
            log.exception(
                "could not answer %r of %s",
                self.request.uri,
                self.address,
                extra=about("internal_error", address=self.address, protocol="http"),
            )
            if self.request.startedWriting:
                self.request.loseConnection()
            else:
                self.fail(HTTPError(500, "internal error"))

    # The answer.

    def watch(self, on_lost: Callable[[], None] | None = None) -> None:
        """Note, and call `on_lost`, if the connection ends before the answer is complete."""

        def lost(reason: Failure) -> None:
            self.lost = True
            if on_lost is not None:
                on_lost()

        self.request.notifyFinish().addErrback(lost).addErrback(_log_failure)

    def notice_end(self) -> None:
        """For an answer that takes long: notice it, too, if the client closes the connection.

        The client may have closed one direction only (`HTTPConnection.ask_at_end`). Other sites do not allow that.
        """
        ask_at_end = getattr(self.request.channel, "ask_at_end", None)
        if ask_at_end is not None:
            ask_at_end()

    def answer(self, status: int, body: bytes, content_type: str, headers: Headers = ()) -> None:
        """Answer with `body`; with 503 if it is large, and too much waits to be sent already."""
        if self.lost:
            return
        if not self.has_room(len(body)):
            return
        request = self.request
        request.setResponseCode(status, HTTPStatus(status).phrase.encode())
        request.setHeader("Content-Type", content_type)
        request.setHeader("Content-Length", str(len(body)))
        for name, value in headers:
            request.setHeader(name, value)
        if self._is_large(len(body)):
            self._large_answers.send(request, self.host, body)
        else:
            request.write(body)
            request.finish()

    def has_room(self, size: int) -> bool:
        """Whether an answer with a body of `size` bytes may wait for its reader; else 503 is answered."""
        if not self._is_large(size) or self._large_answers.fit(self.host, size):
            return True
        self.fail(HTTPError(503, "too much waits to be sent; try again"))
        return False

    def _is_large(self, size: int) -> bool:
        return size > SMALL_ANSWER and self.request.method != b"HEAD"

    def text(self, status: int, text: str, headers: Headers = ()) -> None:
        """Answer with text."""
        self.answer(status, text.encode(), "text/plain; charset=utf-8", headers)

    def json(self, status: int, value: object) -> None:
        """Answer with a value as JSON."""
        self.answer(status, write(value) + b"\n", "application/json")

    def fail(self, error: CommandError | HTTPError, **extra: object) -> None:
        """Answer with a refusal; `extra` are further members of the answer's `error`."""
        answer = as_http_error(error, **extra)
        self.hub.counters.refusals[
            error.reason.key if isinstance(error, CommandError) else f"http_{answer.status}"
        ] += 1
        headers = headers_of(answer)
        if self.has_event_source and answer.status in (429, 503):
            self._refuse_event_source(answer, headers)
            return
        if answer.status == 401 and isinstance(error, CommandError):
            headers += _challenges(self.hub)
        self.answer(answer.status, body_of(answer), "application/json", headers)

    def _refuse_event_source(self, error: HTTPError, headers: Headers) -> None:
        """Tell an EventSource of a refusal that passes by an event in a stream that ends: it asks again then.

        Every status but 200 is final to it (WHATWG HTML, section 9.2.2). `docs/decisions/0041-refusals-of-events.md`
        has what browsers and npm's `eventsource` do.
        """
        pause = next((int(value) for name, value in headers if name == "Retry-After" and value.isdigit()), 1)
        disconnect = Disconnect(error.code, "", str(error))
        farewell = _EVENTS.farewell(disconnect, 1000 * pause + random.randrange(_RETRY_SPREAD))
        self.answer(200, farewell, _EVENTS.content_type)


_EVENTS = EventFormat(chunked=False)
#: Milliseconds of the largest random addition to the time after which an EventSource asks again.
_RETRY_SPREAD = 4000


def _challenges(hub: Hub) -> list[tuple[str, str]]:
    """What a request may prove itself by. A browser asks for a name and a password if it reads `Basic`."""
    basic = 'Basic realm="longconn", charset="UTF-8"'  # RFC 7617, section 2.1
    offered = [basic] if hub.gate.passwords is not None else []
    if hub.gate.verifier is not None or not offered:  # a 401 has at least one (RFC 9110, section 15.5.2)
        offered.append('Bearer realm="longconn"')  # RFC 6750, section 3
    return [("WWW-Authenticate", each) for each in offered]


def _log_failure(failure: Failure) -> None:
    log.error("an HTTP client left: %s", failure.getTraceback(), extra=about("internal_error", protocol="http"))


def _differ(raw: bytes, decoded: bytes) -> bool:
    return unquote_to_bytes(raw) != decoded


def _decode(segment: bytes) -> str:
    if _BAD_ESCAPE.search(segment):
        raise HTTPError(400, "a % in the path is followed by two hexadecimal digits")
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise HTTPError(400, "the path is not UTF-8") from None


def _parse_query(query: bytes) -> dict[str, str]:
    try:
        if _BAD_ESCAPE.search(query):
            raise ValueError
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict", max_num_fields=_PARAMETERS)
    except ValueError:  # UnicodeDecodeError too
        raise HTTPError(400, "the query is malformed or not UTF-8") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise HTTPError(400, "a parameter of the query stands there twice")
        values[name] = value
    return values
