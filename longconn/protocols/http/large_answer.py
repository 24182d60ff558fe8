"""Large answers: what the kernel does not take of them at once counts as what waits for any other client."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.python.failure import Failure

from longconn.core.disconnects import Disconnect
from longconn.core.hub import Hub
from longconn.core.log import about, log
from longconn.protocols.connection.socket_outlet import SocketOutlet

#: Bytes of a body up to which twisted.web writes it.
SMALL_ANSWER = 16 * 1024
#: The answers to one address may have at most this part of `send_queue_total` (1 / _SHARE).
_SHARE = 4


class MultiplexedTransport:
    """A response's body as a transport, where its connection carries other responses too (HTTP/2)."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self.write = request.write
        self.registerProducer = request.registerProducer
        self.unregisterProducer = request.unregisterProducer
        self.abortConnection = request.channel.abortConnection

    def loseConnection(self) -> None:
        self._request.finish()


class LargeAnswers:
    """The answers of one resource that are larger than `SMALL_ANSWER`, until their last byte has gone out."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        #: bytes of the answers under way, by the host of the reader
        self.bytes_of: Counter[str] = Counter()

    def fit(self, host: str, size: int) -> bool:
        """Whether an answer of `size` bytes may be sent to a reader at `host` now.

        An answer that is larger than the share of an address is sent when the address has no other.
        """
        total = self.hub.settings.send_queue_total
        under_way = self.bytes_of[host]
        has_share = not under_way or under_way + size <= total // _SHARE
        return not total or (has_share and self.hub.queued + size <= total)

    def send(self, request: Any, host: str, body: bytes) -> None:
        """Send `body` as its reader takes it, and finish the request. Its status and headers are set already."""
        _LargeAnswer(self, request, host, len(body)).send(body)


class _LargeAnswer:
    """One answer. Its reader is cut off if it takes nothing for `write_timeout`."""

    def __init__(self, answers: LargeAnswers, request: Any, host: str, size: int) -> None:
        self._answers = answers
        self._request = request
        self._channel = request.channel
        self._host = host
        self._size = size
        self._is_multiplexed = request.channel.transport is None

    def send(self, body: bytes) -> None:
        request = self._request
        self._answers.bytes_of[self._host] += self._size
        request.notifyFinish().addErrback(self._on_lost)
        request.write(b"")  # the head
        transport = MultiplexedTransport(request) if self._is_multiplexed else self._channel.transport
        self._outlet = SocketOutlet(self._answers.hub, transport, self._on_close)
        self._outlet.send_all(body, self._on_sent)

    def _on_sent(self) -> None:
        self._forget()
        if not self._is_multiplexed:
            # The outlet was the transport's producer instead of the channel.
            self._channel.transport.registerProducer(self._channel, True)
            self._channel.resumeProducing()
        self._request.finish()

    def _on_close(self, disconnect: Disconnect) -> None:
        log.warning(
            "an HTTP answer to %s is cut off (%d %s)",
            self._host,
            disconnect.code,
            disconnect.text,
            extra=about("connection_closed", address=self._host, protocol="http", code=disconnect.code),
        )
        self._outlet.abort()

    def _on_lost(self, reason: Failure) -> None:
        self._forget()

    def _forget(self) -> None:
        self._outlet.detach()
        bytes_of = self._answers.bytes_of
        bytes_of[self._host] -= self._size
        if not bytes_of[self._host]:
            del bytes_of[self._host]
