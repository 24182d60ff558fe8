"""The channels with subscribers that a client may join: what `/channels` lists."""

from __future__ import annotations

from collections.abc import Callable
from heapq import nsmallest

from longconn.core.channel import Channel
from longconn.core.client import Client
from longconn.core.command_queue import LOOKED_AT
from longconn.core.hub import Hub
from longconn.core.namespaces import Action

#: Channels that are listed at most.
MOST_LISTED = 200


def visible_channels(hub: Hub, client: Client, done: Callable[[list[tuple[str, int]], int], None]) -> None:
    """Look at all channels, in as many turns of the reactor as it takes; what it costs is the client's.

    `done` gets the first `MOST_LISTED` names with their numbers of subscribers, in order, and how many there are in
    all. It is not called for a client that has gone meanwhile.
    """
    door = hub.door
    found: list[tuple[str, int]] = []

    def look(channel: Channel) -> None:
        if len(channel) and door.may(client, Action.SUBSCRIBE, channel.name):
            found.append((channel.name, len(channel)))

    def answer() -> None:
        if client.live:
            done(nsmallest(MOST_LISTED, found), len(found))

    if client.queue is not None:
        client.queue.spend(len(door.channels) / LOOKED_AT)
    hub.slices.look_at(client.host, tuple(door.channels.values()), look, answer)
