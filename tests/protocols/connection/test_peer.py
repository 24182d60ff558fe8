"""The address of a peer."""

from itertools import count

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from longconn.protocols.connection.peer import host_of, peer_of


class HostTests(SynchronousTestCase):
    def test_ipv6_addresses_of_a_network_are_one_host(self) -> None:
        hosts = {
            "2001:db8::1": "2001:db8::/64",
            "2001:db8::ffff:1:2:3": "2001:db8::/64",
            "2001:db8:0:1::1": "2001:db8:0:1::/64",
            "fe80::1%eth0": "fe80::/64",
            "::1": "::1",
            "::ffff:192.0.2.1": "192.0.2.1",
            "no:address": "no:address",
        }
        self.assertEqual({each: host_of(IPv6Address("TCP", each, 1)) for each in hosts}, hosts)
        self.assertEqual(host_of(IPv4Address("TCP", "192.0.2.1", 1)), "192.0.2.1")
        self.assertEqual((host_of(UNIXAddress(None)), host_of(None)), ("", ""))

    def test_the_address_is_whole(self) -> None:
        transport = StringTransport(peerAddress=IPv6Address("TCP", "2001:db8::1", 50000))
        self.assertEqual(peer_of(transport, count(1)), ("2001:db8::/64", "[2001:db8::1]:50000"))
