"""A connection that passes from one protocol to another."""

from __future__ import annotations

from typing import Any

from twisted.protocols.policies import ProtocolWrapper

#: The protocols offered to a TLS client that asks by ALPN. Twisted fails its handshake if there are none.
HTTP1_ALPN = [b"http/1.1"]


def hand_over(transport: Any, protocol: Any) -> None:
    """Let `protocol` receive the bytes of `transport` from now on, and call its `makeConnection`.

    Through TLS the transport is itself a wrapper around the protocol (TLSMemoryBIOProtocol), or has one
    as its protocol (startTLS); both keep the protocol that they serve as `wrappedProtocol`.
    """
    if isinstance(transport, ProtocolWrapper):
        transport.wrappedProtocol = protocol
    elif isinstance(transport.protocol, ProtocolWrapper):
        transport.protocol.wrappedProtocol = protocol
    else:
        transport.protocol = protocol
    protocol.makeConnection(transport)
