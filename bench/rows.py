"""What is measured: the rows of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.servers import Dialect

SUBSCRIBERS = (1, 100, 1000, 5000)
IN_FLIGHT = (1, 16, 64)


@dataclass(frozen=True)
class Row:
    """One measurement: a mode of the load generator, with its options, over a dialect that a server may speak."""

    group: str
    name: str
    speaks: str
    mode: str
    figure: str  # of the generator's result
    unit: str
    options: Mapping[str, float] = field(default_factory=dict)
    size: int = 64  # bytes of a message
    quick: bool = True  # measured without --full, too
    more_is_better: bool = True


def message(size: int) -> str:
    """Return a text of a size, with the one mark that the generator counts."""
    return "~" + "".join(chr(ord("a") + number % 26) for number in range(size - 1))


def generator_options(row: Row, dialect: Dialect, seconds: float) -> dict[str, str | float]:
    """Return the options with which the generator makes a measurement."""
    text = message(row.size)
    options: dict[str, str | float] = {"seconds": seconds, **row.options}
    length = str(len(dialect.get("body", "").replace("TEXT", text)) * int(row.options.get("repeat", 1)))
    for name, value in dialect.items():
        options[name] = value.replace("TEXT", text).replace("LENGTH", length)
    return options


def _fan_out() -> list[Row]:
    return [
        Row(
            "fan-out",
            f"/ws, 1,000 subscribers, {in_flight} in flight",
            "ws",
            "stream",
            "deliveries_rate",
            "deliveries/s",
            {"connections": 1000, "in_flight": in_flight},
        )
        for in_flight in IN_FLIGHT
    ]


def _publishing() -> list[Row]:
    window = {"connections": 1, "in_flight": 256}
    lines = 1000
    return [
        Row("publishing", "TCP lines", "tcp", "stream", "messages_rate", "messages/s", window),
        Row("publishing", "/ws", "ws", "stream", "messages_rate", "messages/s", window),
        Row("publishing", "Centrifugo with reply", "centrifugo-reply", "stream", "messages_rate", "messages/s", window),
        Row("publishing", "POST, one by one", "post", "request", "rate", "messages/s", {"connections": 1}),
        Row(
            "publishing",
            "POST, 1,000 lines of x-ndjson",
            "ndjson",
            "request",
            "rate",
            "messages/s",
            {"connections": 1, "repeat": lines, "factor": lines},
        ),
    ]


def _requests() -> list[Row]:
    return [
        Row("HTTP", "GET, 64 kept connections", "get", "request", "rate", "requests/s", {"connections": 64}),
        Row("HTTP", "POST, 64 kept connections", "post", "request", "rate", "requests/s", {"connections": 64}),
    ]


def _openings() -> list[Row]:
    names = {"ws-open": "/ws", "tcp-open": "TCP", "sse-open": "SSE", "centrifugo-open": "Centrifugo with subscribe"}
    return [
        Row("opening", name, speaks, "openings", "rate", "openings/s", {"connections": 500})
        for speaks, name in names.items()
    ]


ROWS = (*_fan_out(), *_publishing(), *_requests(), *_openings())
