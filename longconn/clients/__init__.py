"""Clients of longconn, and of what speaks Centrifugo's client protocol in JSON: one interface, whatever the transport::

    client = connect("ws://localhost:9999", reactor=reactor)
    news = await client.subscribe("news")
    await client.publish("news", {"free": 1.5})
    async for event in news:
        print(event)

A connection that is lost is made anew, and subscriptions go on from where they were; what cannot be recovered is told
by a `Lost` among the events. Where events wait unread the server is read more slowly, and nothing is dropped.

All return Deferreds and run on the reactor that is handed in.
"""

from longconn.clients.client import Client, connect
from longconn.clients.errors import (
    AddressError,
    CertificateError,
    ClientError,
    Closed,
    ConnectionFailed,
    Disconnected,
    NotLongconn,
    OutcomeUnknown,
    Refused,
)
from longconn.clients.events import (
    ConnectionState,
    Event,
    HistoryPage,
    Joined,
    JSONValue,
    Left,
    Lost,
    Member,
    Position,
    Publication,
    State,
)
from longconn.clients.subscription import Subscription

__all__ = [
    "AddressError",
    "CertificateError",
    "Client",
    "ClientError",
    "Closed",
    "ConnectionFailed",
    "ConnectionState",
    "Disconnected",
    "Event",
    "HistoryPage",
    "JSONValue",
    "Joined",
    "Left",
    "Lost",
    "Member",
    "NotLongconn",
    "OutcomeUnknown",
    "Position",
    "Publication",
    "Refused",
    "State",
    "Subscription",
    "connect",
]
