"""Slow clients over real sockets: the verdict, the log, and everybody else."""

from typing import Any

from twisted.internet.task import deferLater

from longconn.core.publication import Data, Info
from longconn.testing import LineClient
from tests.live.certificates import write_certificate
from tests.live.common import Case, reactor, until

_TEXT = "x" * 8_000


class SlowTests(Case):
    timeout = 60

    async def flood(self, over: Any, most: int = 5_000) -> int:
        """Publish, turn after turn, until something is over; how many."""
        for number in range(most):
            if over():
                return number
            self.hub.publish("lobby", Data.of_text(f"{number}|{_TEXT}"), Info("hub"), lambda result: None)
            await until_next_turn()
        self.fail("it never was over")
        return most

    def check_witness(self, lines: list[str], count: int) -> None:
        numbers = [int(line.split(": ")[1].split("|")[0]) for line in lines if "hub: " in line]
        self.assertEqual(numbers, list(range(count)))

    async def read_up_to(self, client: LineClient, count: int) -> None:
        """Until it has read the last publication, whoever was said to leave after it."""
        last = f"hub: {count - 1}|"
        await client.connection.until(lambda: any(line.startswith(last) for line in client.lines[-5:]))

    async def test_over_tcp(self) -> None:
        self.serve(send_queue=200_000, publish_rate=0, history_size=0)
        witness, web = await self.line_client(), await self.websocket_client()
        slow = self.bare_socket(receive_buffer=4_096)
        slow.sendall(b"ping\n")
        await until(lambda: len(self.hub.clients) == 3)
        warnings = self.warnings()
        count = await self.flood(lambda: warnings)
        name = f"127.0.0.1:{slow.getsockname()[1]}"
        self.assertIn(f"tcp client {name} from {name} is disconnected (3008 slow)", warnings[0])
        await self.read_up_to(witness, count)
        self.check_witness(witness.lines, count)
        await web.connection.until(lambda: str(web.messages[-1]).startswith(f"hub: {count - 1}|"))
        self.check_witness([str(each) for each in web.messages], count)
        self.assertEqual(len(self.hub.clients), 2)
        self.assertFalse(witness.closed)

    async def test_through_tls(self) -> None:
        key, certificate = write_certificate(self.folder())
        ssl = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
        self.serve("127.0.0.1:0", ssl, send_queue=200_000, publish_rate=0, history_size=0)
        secure = f"tls:127.0.0.1:{self.service.addresses[1][1].port}:trustRoots={certificate.parent}"
        witness, slow = await self.line_client(secure), await self.line_client(secure)
        plain = await self.line_client()
        slow.connection.transport.pauseProducing()
        warnings = self.warnings()
        count = await self.flood(lambda: warnings)
        self.assertIn(f"from {slow.address} is disconnected (3008 slow)", warnings[0])
        for client in (witness, plain):
            await self.read_up_to(client, count)
            self.check_witness(client.lines, count)
        self.assertEqual((len(warnings), len(self.hub.clients)), (1, 2))
        slow.connection.transport.resumeProducing()
        await slow.connection.until(lambda: slow.closed)

    async def test_of_websockets_and_streams(self) -> None:
        self.serve(send_queue=200_000, publish_rate=0, history_size=0)
        witness = await self.line_client()
        web = self.bare_socket(receive_buffer=4_096)
        web.sendall(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        events = self.bare_socket(receive_buffer=4_096)
        events.sendall(b"GET /channels/lobby/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: len(self.hub.clients) == 3)
        warnings = self.warnings()
        count = await self.flood(lambda: len(warnings) == 2)
        self.assertEqual({each.split()[0] for each in warnings}, {"websocket", "sse"})
        await self.read_up_to(witness, count)
        self.check_witness(witness.lines, count)


async def until_next_turn() -> None:
    await deferLater(reactor, 0)
