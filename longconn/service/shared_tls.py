"""TLS on the shared port: the certificates of the settings, and newer ones when their files change."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.protocols.tls import TLSMemoryBIOFactory

from longconn.config.certificates import ServerCertificates
from longconn.core.errors import ConfigError
from longconn.core.hub import Hub
from longconn.core.log import about, log
from longconn.protocols.connection.set_up import AnyServerFactory
from longconn.protocols.port.tls_handshake import HandshakeFactory

#: Seconds between two looks at the files.
_LOOK_EVERY = 10


class SharedTLS:
    """Takes connections that begin with a TLS handshake, and gives what is inside to protocols of `wrapped`.

    Raises ConfigError for files that cannot be used.
    """

    def __init__(self, hub: Hub, wrapped: Any) -> None:
        self._hub = hub
        self._certificates = ServerCertificates(hub.settings)
        self._stamp = self._certificates.stamp()
        #: for a port that takes TLS alone
        make: Any = TLSMemoryBIOFactory  # its types ask for whole interfaces, of which it uses parts
        self.factory: Any = make(self._certificates, False, _OwnALPN(HandshakeFactory(hub, wrapped)), hub.clock)
        self.factory.noisy = False
        #: when the next look is due (`Timed` in core/timers.py)
        self.due = 0

    def build(self, addr: IAddress | None) -> Any:
        """The protocol of a connection that has begun a handshake."""
        return self.factory.buildProtocol(addr)

    def start(self) -> None:
        """Look at the files from now on."""
        self._hub.wheel.set(self, _LOOK_EVERY)

    def stop(self) -> None:
        """Look no more."""
        self._hub.wheel.clear(self)

    def on_due(self, now: float) -> None:
        """The timer ended: read the files if one has changed."""
        stamp = self._certificates.stamp()
        if stamp != self._stamp:
            self.reload()
        self.start()

    def reload(self) -> None:
        """Read the files, for connections from now on. If that fails, the old certificates serve on."""
        self._stamp = self._certificates.stamp()
        try:
            self._certificates.reload()
        except ConfigError as error:
            log.error("the old certificates serve on: %s", error, extra=about("certificates_unreadable"))
        else:
            log.info("new connections get the certificates as they are now", extra=about("certificates_read"))


class _OwnALPN(AnyServerFactory):
    """Hides that a factory names protocols for ALPN: Twisted would put them in place of those of the certificates."""

    noisy = False

    def __init__(self, wrapped: HandshakeFactory) -> None:
        self._wrapped = wrapped

    def doStart(self) -> None:
        super().doStart()  # type: ignore[no-untyped-call]
        self._wrapped.doStart()

    def doStop(self) -> None:
        super().doStop()  # type: ignore[no-untyped-call]
        self._wrapped.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._wrapped.buildProtocol(addr)
