"""`longconn echo`: round-trip times, by `ping` and `pong` lines or by messages to the WebSocket that echoes."""

from __future__ import annotations

import json
from argparse import Namespace

from longconn.clients.address import parse_address
from longconn.clients.errors import AddressError
from longconn.clients.transports.base import TransportConfiguration
from longconn.commands.connecting import load_certificates
from longconn.commands.parser import Parser, server_url
from longconn.commands.round_trips import LineRoundTrips, MessageRoundTrips, RoundTrips
from longconn.commands.running import Console, repeat


def parser() -> Parser:
    """The command line."""
    found = Parser(
        "echo",
        "Measure round-trip times: of a ping line and its pong for tcp:// and tls://, of a message to the WebSocket "
        "/echo, or the path of the URL, for ws:// and wss://.",
    )
    found.add_server()
    found.add_every(1.0, "seconds from one message to the next")
    found.add_times(4, "messages")
    found.add_timeout(10.0, "seconds to wait for a connection, and for an answer")
    found.add_argument("--json", action="store_true", help="write the lines as JSON")
    return found


async def main(console: Console, arguments: Namespace) -> int:
    """Measure `--times` round trips."""
    address = parse_address(server_url(arguments.server, console.environ))
    kinds: dict[str, type[RoundTrips]] = {
        "tcp": LineRoundTrips,
        "tls": LineRoundTrips,
        "ws": MessageRoundTrips,
        "wss": MessageRoundTrips,
    }
    if address.scheme not in kinds:
        raise AddressError(f"{address.scheme}:// is none of {', '.join(f'{each}://' for each in kinds)}")
    certificates = load_certificates(address, arguments)
    configuration = TransportConfiguration(console.reactor, timeout=arguments.timeout, **certificates)
    round_trips = kinds[address.scheme](address, configuration)
    times: list[float] = []

    async def measure() -> None:
        times.append(await round_trips.measure(len(times) + 1))
        await console.out.write(_line(len(times), times[-1], arguments.json))

    try:
        await round_trips.connect()
        await repeat(console.reactor, arguments.times, arguments.every, measure)
        return 0
    finally:
        round_trips.close()
        if times and not arguments.json:
            await console.out.write(_summary(times))


def _line(number: int, seconds: float, as_json: bool) -> str:
    if as_json:
        return json.dumps({"number": number, "seconds": round(seconds, 6)}, separators=(",", ":")) + "\n"
    return f"{number}: {seconds * 1000:.3f} ms\n"


def _summary(times: list[float]) -> str:
    least, mean, most = (1000 * each for each in (min(times), sum(times) / len(times), max(times)))
    return f"{len(times)} in all: least {least:.3f}, mean {mean:.3f}, most {most:.3f} ms\n"
