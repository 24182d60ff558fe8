"""Through TLS everything works, and nothing leaves in plain."""

from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.protocols.portforward import ProxyClient, ProxyClientFactory, ProxyFactory

from longconn.core.publication import Data, Info
from tests.live.certificates import write_certificate
from tests.live.common import Case, reactor, until

_SECRET = "a secret that must not be seen "


class Sniffer(ProxyFactory):
    """Passes connections on, and remembers what the server sent."""

    noisy = False

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self.seen = seen = bytearray()

        class Client(ProxyClient):
            def dataReceived(self, data: bytes) -> None:
                seen.extend(data)
                super().dataReceived(data)

        class ClientFactory(ProxyClientFactory):
            noisy = False
            protocol = Client

        self.protocol = type("Server", (self.protocol,), {"clientProtocolFactory": ClientFactory})


class TLSTests(Case):
    async def secure(self) -> tuple[str, bytearray]:
        """A TLS port behind somebody who listens in: the endpoint to connect to, and what was seen."""
        key, certificate = write_certificate(self.folder())
        self.serve(f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}")
        sniffer = Sniffer(self.port)
        listening: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(sniffer)
        self.addCleanup(listening.stopListening)
        return f"tls:127.0.0.1:{listening.getHost().port}:trustRoots={certificate.parent}", sniffer.seen

    async def test_no_plaintext_leaves(self) -> None:
        endpoint, seen = await self.secure()
        line = await self.line_client(endpoint)
        web = await self.websocket_client("/ws", endpoint)
        http = await self.http_client(endpoint)
        events, stream = await self.http_client(endpoint), await self.http_client(endpoint)
        streams = [events.get("/channels/lobby/events"), stream.get("/channels/lobby/stream")]
        for client, response in zip((events, stream), streams, strict=True):
            await client.connection.until(lambda response=response: response.status)
        for number in range(20):
            text = f"{_SECRET}{number} " + "y" * (number * 500)
            self.hub.publish("lobby", Data.of_text(text), Info("hub"), lambda result: None)
        answer = await self.answer(http, "POST", "/channels/lobby", f"{_SECRET}20")
        self.assertEqual(answer.status, 200)
        await line.connection.until(lambda: line.lines[-1].endswith("20"))
        await web.connection.until(lambda: str(web.messages[-1]).endswith("20"))
        for client, response in zip((events, stream), streams, strict=True):
            await client.connection.until(lambda response=response: f"{_SECRET}20" in response.text)
        line.say("/history")
        await line.connection.until(lambda: len([each for each in line.lines if _SECRET in each]) == 41)
        self.assertGreater(len(seen), 400_000)
        for word in (_SECRET.encode(), b"HTTP/1.1", b"pong", b"lobby", b"yyyyyyyy"):
            self.assertNotIn(word, seen)

    async def test_a_request_without_tls_gets_nothing(self) -> None:
        await self.secure()
        link = await self.dial()
        link.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await link.until(lambda: link.closed)
        self.assertNotIn(b"HTTP", bytes(link.received))

    async def test_a_silent_listener_and_late_requests_work_through_tls_too(self) -> None:
        endpoint, _ = await self.secure()
        http = await self.http_client(endpoint)
        await until(lambda: self.hub.clients)
        answer = await self.answer(http, "GET", "/PrintHello")
        self.assertEqual(answer.text, "hello word")
        web = await self.websocket_client("/echo", endpoint)
        web.say("x" * 60_000, b"\x00\xff")
        await web.connection.until(lambda: len(web.messages) == 2)
        self.assertEqual(web.messages, ["x" * 60_000, b"\x00\xff"])
