"""Small programs that were written against other servers, as they are but for port and path."""

import http.client
from typing import Any

import treq
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThread
from twisted.protocols.basic import LineReceiver
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from websockets.sync.client import connect

from longconn import LongConnService, Settings
from longconn.core.publication import Data, Info
from tests.live.common import Case, reactor, until


class Printer(Protocol):
    """Only connects and prints what comes."""

    def __init__(self) -> None:
        self.printed = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.printed += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)


class Pinger(Protocol):
    """Writes `ping` without a line end and waits for any reply before the next."""

    transport: Any

    def __init__(self, times: int) -> None:
        self.left = times
        self.replies: list[bytes] = []
        self.done: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(b"ping")

    def dataReceived(self, data: bytes) -> None:
        self.replies.append(data)
        self.left -= 1
        if self.left > 0:
            self.transport.write(b"ping")
        elif not self.done.called:
            self.done.callback(None)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)


class GroupChat(LineReceiver):
    """Reads joins, what others say and leaves; speaks in lines; leaves by an empty one."""

    transport: Any

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.name = "{0.host}:{0.port}".format(self.transport.getHost())

    def lineReceived(self, line: bytes) -> None:
        self.heard.append(line.decode("utf-8"))

    def say(self, text: str) -> None:
        self.sendLine(text.encode("utf-8"))

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)


class TCPProgramTests(Case):
    async def run_program(self, protocol: Any) -> Any:
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port), protocol)

        def stop() -> Any:
            protocol.transport.abortConnection()
            return protocol.lost

        self.addCleanup(stop)
        return protocol

    async def test_one_that_only_connects_and_prints_what_comes(self) -> None:
        self.serve()
        printer = await self.run_program(Printer())
        await until(lambda: len(self.hub.clients) == 1)
        self.hub.publish("lobby", Data.of_text("news"), Info("desk"), lambda result: None)
        await until(lambda: printer.printed == b"desk: news\r\n")

    async def test_one_that_pings_without_a_line_end_while_others_talk(self) -> None:
        self.serve()
        pinger = await self.run_program(Pinger(5))
        talker = await self.line_client()
        while not pinger.done.called:
            talker.say("talk")
            count = len(talker.lines)
            await talker.connection.until(lambda count=count: len(talker.lines) > count)
        await pinger.done
        replies = b"".join(pinger.replies)
        # It hears of the join as well if its own first bytes were read before.
        joined = f"* {talker.address} joined".encode()
        heard = set(replies.split(b"\r\n")) - {b"pong", b"", joined}
        self.assertEqual(heard, {f"{talker.address}: talk".encode()})
        alone = await self.run_program(Pinger(3))
        talker.connection.close()
        await alone.done
        self.assertIn(b"pong\r\n", alone.replies)

    async def test_a_group_chat_in_chinese(self) -> None:
        self.serve("127.0.0.1:0", locale="zh")
        first, second = await self.run_program(GroupChat()), await self.run_program(GroupChat())
        await until(lambda: len(self.hub.clients) == 2)
        first.say("大家好")
        await until(lambda: len(second.heard) == 2)
        second.say("你好")
        await until(lambda: len(first.heard) == 3)
        second.sendLine(b"")
        await second.lost
        await until(lambda: len(first.heard) == 4)
        self.assertEqual(second.heard, [f"{first.name}进入房间", f"{first.name}说:大家好", f"{second.name}说:你好"])
        heard = [
            f"{first.name}说:大家好",
            f"{second.name}进入房间",
            f"{second.name}说:你好",
            f"{second.name}离开了房间",
        ]
        self.assertEqual(first.heard, heard)

    async def test_on_a_port_for_chat_lines_it_is_told_of_from_the_start(self) -> None:
        self.service = LongConnService(reactor, Settings(locale="zh", shutdown_timeout=1), tcp=["127.0.0.1:0"])
        self.service.startService()
        self.addCleanup(self.service.stopService)
        first = await self.run_program(GroupChat())
        second = await self.run_program(GroupChat())
        await until(lambda: first.heard == [f"{second.name}进入房间"])


class HTTPProgramTests(Case):
    async def test_a_pool_of_kept_connections_meets_the_same_two_ports(self) -> None:
        self.serve()
        pool = HTTPConnectionPool(reactor, persistent=True)
        self.addCleanup(pool.closeCachedConnections)
        agent = Agent(reactor, pool=pool)
        url = f"http://127.0.0.1:{self.port}/PrintHello".encode()
        seen: list[list[tuple[str, str]]] = []
        for _ in range(4):
            answers = await gatherResults([agent.request(b"GET", url) for _ in range(2)])
            bodies = await gatherResults([readBody(each) for each in answers])
            self.assertEqual(bodies, [b"hello word"] * 2)
            headers = [each.headers.getRawHeaders("X-Connection")[0] for each in answers]
            seen.append(sorted(tuple(each.split("; request=")) for each in headers))
        ports = [[peer for peer, _ in each] for each in seen]
        self.assertEqual(len(set(ports[0])), 2)
        self.assertEqual(ports, [ports[0]] * 4)
        self.assertEqual([[count for _, count in each] for each in seen], [[str(number)] * 2 for number in range(1, 5)])

    async def test_treq_with_its_defaults(self) -> None:
        self.serve()
        pool = HTTPConnectionPool(reactor)
        self.addCleanup(pool.closeCachedConnections)
        url = f"http://127.0.0.1:{self.port}/channels/lobby"
        answer = await treq.post(url, json={"disk": "full"}, pool=pool)
        self.assertEqual((answer.code, (await answer.json())["offset"]), (200, 1))
        answer = await treq.get(url, params={"since": "x"}, pool=pool)
        self.assertEqual(answer.code, 400)
        await answer.content()

    async def test_a_body_in_pieces_of_4096_bytes_to_its_end(self) -> None:
        self.serve()
        texts = ["x" * 3_000 + str(number) for number in range(20)]
        since = ""
        for text in texts:
            answers: list[Any] = []
            self.hub.publish("lobby", Data.of_text(text), Info("hub"), answers.append)
            since = since or f"{answers[0].epoch}:0"
        port = self.port

        def program() -> bytes:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", f"/channels/lobby?since={since}")
            response = connection.getresponse()
            data = b""
            while True:
                piece = response.read(4096)
                if not piece:
                    break
                data += piece
            connection.close()
            return data

        data = await deferToThread(program)
        self.assertGreater(len(data), 60_000)
        for text in texts:
            self.assertIn(text.encode(), data)


class WebSocketProgramTests(Case):
    async def test_one_that_sends_to_echo_and_reads_the_answer(self) -> None:
        self.serve()
        port = self.port

        def program(path: str) -> list[Any]:
            answers = []
            with connect(f"ws://127.0.0.1:{port}{path}", open_timeout=10, close_timeout=10) as socket:
                for message in ("hello", "x" * 50_000, "房间", b"\x00\xff", ""):
                    socket.send(message)
                    answers.append(socket.recv(timeout=10))
                socket.ping().wait(10)
            return answers

        for path in ("/echo", "/websocket"):
            answers = await deferToThread(program, path)
            self.assertEqual(answers, ["hello", "x" * 50_000, "房间", b"\x00\xff", ""])

    async def test_one_that_chats(self) -> None:
        self.serve()
        line = await self.line_client()
        port = self.port

        def program() -> list[Any]:
            with connect(
                f"ws://localhost:{port}/ws?name=web", open_timeout=10, origin="http://localhost:3000"
            ) as socket:  # type: ignore[arg-type]
                socket.send("hello")
                return [socket.recv(timeout=10)]

        self.assertEqual(await deferToThread(program), ["web: hello"])
        await line.connection.until(lambda: "* web left" in line.lines)
        self.assertEqual(line.lines[1:], ["* web joined", "web: hello", "* web left"])
