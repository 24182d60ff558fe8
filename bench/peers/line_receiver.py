"""A chat made with Twisted's ``LineReceiver``: ``lineReceived`` loops over all clients with ``sendLine``.

    python bench/peers/line_receiver.py PORT [LIFETIME]

Port 0 picks a free port. The port is printed. It ends on SIGTERM or after LIFETIME seconds (600). It sets TCP_NODELAY,
which a LineReceiver does not by itself. Without it the benchmark would measure Nagle's algorithm, not the fan-out.
"""

from __future__ import annotations

import sys

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import reactor  # noqa: E402
from twisted.internet.protocol import Factory  # noqa: E402
from twisted.protocols.basic import LineReceiver  # noqa: E402


class Chat(LineReceiver):
    """The protocol of one client."""

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.factory.clients.add(self)

    def connectionLost(self, reason: object = None) -> None:
        self.factory.clients.discard(self)

    def lineReceived(self, line: bytes) -> None:
        for client in self.factory.clients:
            client.sendLine(line)


class ChatFactory(Factory):
    """Holds all clients."""

    protocol = Chat

    def __init__(self) -> None:
        self.clients: set[Chat] = set()


if __name__ == "__main__":
    port = reactor.listenTCP(int(sys.argv[1]), ChatFactory(), interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.callLater(float(sys.argv[2]) if len(sys.argv) > 2 else 600.0, reactor.stop)
    reactor.run()
