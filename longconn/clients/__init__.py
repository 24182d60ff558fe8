"""Clients of longconn, and of other servers of Centrifugo's client protocol in JSON. All have one interface::

    client = connect("ws://localhost:9999", reactor=reactor)
    news = await client.subscribe("news")
    await client.publish("news", {"free": 1.5})
    async for event in news:
        print(event)

A client connects again after a lost connection, and its subscriptions go on from their positions. A `Lost` among the
events says that something could not be recovered. If a program does not read its events, the client stops reading from
the server, and drops nothing.

Everything returns Deferreds and runs on the reactor that is handed in.
"""

from longconn.clients.certificates import ClientCertificate, load_authorities, load_certificate
from longconn.clients.client import Client, connect
from longconn.clients.errors import (
    AddressError,
    CertificateError,
    CertificateFileError,
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
    JSONText,
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
    "CertificateFileError",
    "Client",
    "ClientCertificate",
    "ClientError",
    "Closed",
    "ConnectionFailed",
    "ConnectionState",
    "Disconnected",
    "Event",
    "HistoryPage",
    "JSONText",
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
    "load_authorities",
    "load_certificate",
]
