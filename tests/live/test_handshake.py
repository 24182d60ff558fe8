"""A TLS handshake has a deadline, and who did not make it is nobody."""

from tests.live.certificates import write_certificate
from tests.live.common import Case, until


class HandshakeTests(Case):
    async def test_a_connection_without_one_is_let_go_and_was_no_client(self) -> None:
        key, certificate = write_certificate(self.folder())
        self.serve(
            f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}", handshake_timeout=1, idle_timeout=3600
        )
        silent, garbled = await self.dial(), await self.dial()
        garbled.send(b"GET / HTTP/1.1\r\n\r\n")
        met: set[str] = set()

        def over() -> bool:
            met.update(self.hub.clients)
            return silent.closed and garbled.closed

        await until(over)
        self.assertEqual((met, self.hub.places.guests), (set(), 0))

    async def test_in_time_it_is_served(self) -> None:
        key, certificate = write_certificate(self.folder())
        self.serve(f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}", handshake_timeout=1)
        secure = f"tls:127.0.0.1:{self.port}:trustRoots={certificate.parent}"
        client = await self.line_client(secure)
        client.say("through TLS")
        await client.connection.until(lambda: any(line.endswith(": through TLS") for line in client.lines))
        self.assertEqual(self.hub.places.guests, 0)
