"""URLs of servers."""

from twisted.trial.unittest import SynchronousTestCase

from longconn.clients import AddressError
from longconn.clients.address import parse_address


class AddressTests(SynchronousTestCase):
    def test_parts(self) -> None:
        for url, netloc, path in (
            ("tcp://localhost", "localhost:9999", ""),
            ("wss://Example.ORG/x?y=1", "example.org:443", "/x?y=1"),
            ("http://[::1]:80/", "[::1]:80", "/"),
            ("grpc://[::1]", "[::1]:9999", ""),
            ("tcp://[fe80::1%25eth0]:1", "[fe80::1%eth0]:1", ""),
            ("tcp://[fe80::1%eth0]:1", "[fe80::1%eth0]:1", ""),
            ("ws://bücher.example:1", "xn--bcher-kva.example:1", ""),
        ):
            address = parse_address(url)
            self.assertEqual((address.netloc, address.path), (netloc, path))

    def test_the_host_of_headers(self) -> None:
        for url, host in (("ws://[::1]:1", "[::1]"), ("ws://[fe80::1%25eth0]:1", "[fe80::1]"), ("ws://h:1", "h")):
            self.assertEqual(parse_address(url).uri_host, host)

    def test_malformed_urls(self) -> None:
        wrong = "localhost:9999 tcp:// tcp://h:x tcp://h:0 tcp://h:65536 ws://u:p@h ws://h#f tcp://[::1 ://h tcp://h^i"
        wrong += " tcp://[::zz]:1 tcp://[1:2]:3 tcp://::1"
        for url in (*wrong.split(), "", "ws://h/a b", "tcp://a b", "tcp://h\r\nx", "ws://h/\u00e9"):
            with self.assertRaises(AddressError) as caught:
                parse_address(url)
            self.assertNotIn("\n", str(caught.exception))
