"""The server API's JSON: what a request holds, and how results and errors are written.

    request   {"channel": "c", "data": …}          reply   {"result": {…}}  or  {"error": {"code", "message"}}
    batch     {"commands": [{"publish": {…}}, …]}          {"replies": [{"publish": {…}}, {"error": {…}}, …]}

Unknown members are ignored. Names, numbers and messages are those of Centrifugo's server API
(centrifugal/centrifugo, `internal/apiproto/api.proto`, `errors.go`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from longconn.core import errors
from longconn.core.errors import CommandError, Reason
from longconn.core.publication import Data, History, Info, Position
from longconn.server_api.operations import NodeInfo
from longconn.wire import json_spans as slices
from longconn.wire.centrifugo import dump, fields, publications_json

_MESSAGES: dict[Reason, str] = {
    errors.INTERNAL: "internal server error",
    errors.UNAUTHORIZED: "unauthorized",
    errors.UNKNOWN_CHANNEL: "unknown channel",
    errors.METHOD_NOT_FOUND: "not found",
    errors.LIMIT_EXCEEDED: "limit exceeded",
    errors.BAD_REQUEST: "bad request",
    errors.NOT_AVAILABLE: "not available",
    errors.TOO_MANY_REQUESTS: "too many requests",
    errors.UNRECOVERABLE: "unrecoverable position",
}


class MalformedError(ValueError):
    """A request is no JSON object, or has a member of a wrong type."""


@dataclass(frozen=True, slots=True)
class Request:
    """An object of a request: its values, and where it begins in the text that it was read from."""

    values: dict[str, Any]
    source: str
    start: int = 0

    def text(self, name: str) -> str:
        """A string; empty without one. Raises MalformedError, as all that read members do."""
        return _text(name, self.values[name]) if self._has(name, str) else ""

    def texts(self, name: str) -> list[str]:
        return [_text(name, each) for each in self.values[name]] if self._has(name, list) else []

    def number(self, name: str, low: int = 0) -> int:
        value: int = self.values[name] if self._has(name, int) else 0
        if not low <= value < 2**63:
            raise MalformedError(f"{name} is no whole number from {low}")
        return value

    def flag(self, name: str) -> bool:
        return self._has(name, bool) and self.values[name] is True

    def inner(self, name: str) -> Request | None:
        """An object inside; None without one."""
        if not self._has(name, dict):
            return None
        span = self._span(name)
        return None if span is None else Request(self.values[name], self.source, span[0])

    def elements(self, name: str) -> Iterable[tuple[Any, slices.Span]]:
        """The values of an array, each with where it is written."""
        span = self._span(name) if self._has(name, list) else None
        if span is None:
            return ()
        try:
            return zip(self.values[name], slices.elements(self.source, span[0]), strict=True)
        except RecursionError:
            raise MalformedError("the body nests too deeply") from None

    def data(self, name: str) -> Data | None:
        """Any JSON value, as it was written; None without one. Raises CommandError(BAD_DATA)."""
        raw = slices.part(self.source, self._span(name))
        return None if raw is None else Data.of_json(raw)

    def refuse(self, *names: str) -> None:
        """Raises CommandError(NOT_AVAILABLE) if one of the members that are not supported is set."""
        for name in names:
            if self.values.get(name):
                raise CommandError(errors.NOT_AVAILABLE, what=name)

    def _span(self, name: str) -> slices.Span | None:
        try:
            return slices.member(self.source, self.start, name)
        except RecursionError:  # it was read once, from where a little more of the stack was left
            raise MalformedError("the body nests too deeply") from None

    def _has(self, name: str, kind: type) -> bool:
        value = self.values.get(name)
        if value is not None and type(value) is not kind:
            raise MalformedError(f"{name} is no {_KINDS[kind]}")
        return value is not None


_KINDS = {str: "string", list: "array", int: "whole number", bool: "boolean", dict: "object"}


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise MalformedError(f"{name} holds what is no string")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a character
        raise MalformedError(f"{name} has a lone surrogate") from None
    return value


def read(body: bytes) -> Request:
    """A request's body. Raises MalformedError."""
    try:
        text = body.decode()
        value = slices.loads(text)
    except (ValueError, RecursionError):
        raise MalformedError("the body is no JSON") from None
    if not isinstance(value, dict):
        raise MalformedError("the body is no object")
    return Request(value, text)


def read_commands(request: Request) -> list[tuple[int, Request | None]]:
    """The commands of a batch, each with its length; None for a null. Raises MalformedError."""
    commands: list[tuple[int, Request | None]] = []
    for value, (start, end) in request.elements("commands"):
        if value is not None and not isinstance(value, dict):
            raise MalformedError("a command is no object")
        commands.append((end - start, None if value is None else Request(value, request.source, start)))
    return commands


# Errors.


def reason_of(error: CommandError) -> Reason:
    """What an error is to this API: it has no numbers of ours."""
    return error.reason if error.reason in _MESSAGES else errors.BAD_REQUEST


def error_json(error: CommandError) -> bytes:
    reason = reason_of(error)
    return dump({"code": reason.code, "message": _MESSAGES[reason]})


def response(result: bytes | CommandError) -> bytes:
    """What answers one command."""
    if isinstance(result, CommandError):
        return b'{"error":%b}' % error_json(result)
    return b'{"result":%b}' % result


def reply(method: str, result: bytes | CommandError) -> bytes:
    """What answers one command of a batch."""
    if isinstance(result, CommandError):
        return b'{"error":%b}' % error_json(result)
    return b'{"%b":%b}' % (method.encode(), result)


# Results.


def position_result(position: Position) -> bytes:
    return fields(offset=position.offset, epoch=position.epoch)


def broadcast_result(results: Iterable[Position | CommandError]) -> bytes:
    responses = [response(each if isinstance(each, CommandError) else position_result(each)) for each in results]
    return b'{"responses":[' + b",".join(responses) + b"]}"


def stats_result(infos: list[Info]) -> bytes:
    return dump({"num_clients": len(infos), "num_users": len({each.user for each in infos})})


def history_result(history: History) -> bytes:
    position = history.position
    return b'{"publications":%b,"epoch":%b,"offset":%d}' % (
        publications_json(history.publications),
        dump(position.epoch),
        position.offset,
    )


def channels_result(channels: dict[str, int]) -> bytes:
    return dump({"channels": {name: {"num_clients": count} for name, count in channels.items()}})


def info_result(info: NodeInfo) -> bytes:
    node = {
        name: getattr(info, name)
        for name in ("uid", "name", "version", "num_clients", "num_users", "num_channels", "num_subs", "uptime")
    }
    # The interval is that in which the items were counted: all the time.
    node["metrics"] = {"interval": info.uptime, "items": info.items}
    return dump({"nodes": [node]})
