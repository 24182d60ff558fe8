"""Which function answers at a path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum


class Access(Enum):
    """When a path asks who a request comes from."""

    #: never: the path tells nothing that is not public, or has keys of its own
    PUBLIC = "public"
    #: before anything else
    USERS = "users"
    #: if the request brings credentials; if it does not, the protocol that is spoken then asks
    LATER = "later"


#: Is called with the exchange and the parameters of the path, in their order.
Responder = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Route:
    """The functions of a path, by method.

    Links to `harmless` paths are followed from pages of any site. Requests of `free` paths do not count against the
    rate of their address: they look at nothing, or their caller is checked by a key. The answer to an `is_for_events`
    path may be read by an EventSource.
    """

    get: Responder | None
    post: Responder | None = None
    harmless: bool = False
    free: bool = False
    access: Access = Access.USERS
    is_for_events: bool = False

    @property
    def allow(self) -> str:
        """The value of the header Allow (RFC 9110, section 10.2.1)."""
        methods = ["GET, HEAD"] if self.get is not None else []
        return ", ".join([*methods, "OPTIONS", *(["POST"] if self.post is not None else [])])


class Routes:
    """Routes by paths as `/channels/{channel}/events`; a parameter is one segment."""

    def __init__(self, table: Mapping[str, Route]) -> None:
        self.table = table
        self._exact: dict[tuple[str, ...], Route] = {}
        self._others: list[tuple[tuple[str, ...], Route]] = []
        for path, route in table.items():
            segments = tuple(path.removeprefix("/").split("/"))
            if any(map(_is_parameter, segments)):
                self._others.append((segments, route))
            else:
                self._exact[segments] = route

    def find(self, path: list[str]) -> tuple[Route, list[str]] | None:
        """The route of a path, and the values of its parameters; None if there is none."""
        route = self._exact.get(tuple(path))
        if route is not None:
            return route, []
        for segments, route in self._others:
            pairs = list(zip(segments, path, strict=False))
            if len(segments) == len(path) and all(_is_parameter(each) or each == given for each, given in pairs):
                return route, [given for each, given in pairs if _is_parameter(each)]
        return None


def _is_parameter(segment: str) -> bool:
    return segment.startswith("{")
