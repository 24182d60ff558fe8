"""Methods of the server API that concern all nodes: the results of the nodes become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from heapq import nlargest
from typing import Any

from msgspec.json import decode

from longconn.core.json_text import write
from longconn.server_api.messages import DEFAULT_LIMIT, APIChannels, APIClients

#: Makes one result of the request and the results of the nodes, the own one first.
Merge = Callable[[Any, Sequence[Any]], Any]

_CLIENT_RANKS: dict[str, Callable[[dict[str, Any]], float]] = {
    "queued": lambda client: client["queued"],
    "channels": lambda client: client["num_channels"],
    "oldest": lambda client: client["age"],
    "newest": lambda client: -client["age"],
}


def merged(merge: Merge, request: Any, results: Sequence[bytes]) -> bytes:
    """The result of all nodes, as JSON."""
    return write(merge(request, [decode(each) for each in results]))


def nothing(request: object, results: Sequence[Any]) -> Any:
    """The method has no result."""
    return {}


def sum_of_clients(request: object, results: Sequence[Any]) -> Any:
    return {"num_clients": sum(each["num_clients"] for each in results)}


def all_nodes(request: object, results: Sequence[Any]) -> Any:
    return {"nodes": [node for each in results for node in each["nodes"]]}


def channels(request: APIChannels, results: Sequence[Any]) -> Any:
    """Subscribers are summed up. Each node counts the publications that it delivers; the largest number counts."""
    if request.order is None and request.limit is None:
        counts: Counter[str] = Counter()
        for each in results:
            counts.update({name: channel["num_clients"] for name, channel in each["channels"].items()})
        return {"channels": {name: {"num_clients": count} for name, count in counts.items()}}
    found: dict[str, dict[str, Any]] = {}
    for channel in [each for result in results for each in result["channels"]]:
        known = found.setdefault(channel["name"], {"name": channel["name"], "num_clients": 0, "num_publications": 0})
        known["num_clients"] += channel["num_clients"]
        known["num_publications"] = max(known["num_publications"], channel["num_publications"])
    rank = "num_publications" if request.order == "publications" else "num_clients"
    first = nlargest(
        DEFAULT_LIMIT if request.limit is None else request.limit, found.values(), key=lambda channel: channel[rank]
    )
    # A node names no more channels than were asked for: some of the others may be the same.
    number = max([len(found), *(each["num_channels"] for each in results)])
    return {"num_channels": number, "channels": first}


def clients(request: APIClients, results: Sequence[Any]) -> Any:
    found = [client for each in results for client in each["clients"]]
    rank = _CLIENT_RANKS[request.order or "queued"]
    first = nlargest(DEFAULT_LIMIT if request.limit is None else request.limit, found, rank)
    return {"num_clients": sum(each["num_clients"] for each in results), "clients": first}
