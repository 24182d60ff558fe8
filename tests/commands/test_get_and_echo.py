"""`longconn get`, `longconn probe` and `longconn echo`, against the real server and others."""

import json
import re
from base64 import b64encode
from hashlib import sha1
from typing import Any

from twisted.internet.protocol import Factory, Protocol

from longconn import Data, Info
from longconn.commands.parser import complete_url
from tests.commands.kit import Case, reactor, until

_RESPONSE = re.compile(r"(\d+)  port (\d+)  \d+\.\d ms  (new|reused)")


class Foreign(Protocol):
    """Sends `first` as a greeting and `answer` to any bytes, and then closes the connection if `ends`."""

    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        self.factory.received = b""
        if self.factory.first:
            self.say(self.factory.first)

    def dataReceived(self, data: bytes) -> None:
        self.factory.received += data
        if self.factory.answer is not None:
            self.say(self.factory.answer)

    def say(self, data: bytes) -> None:
        self.transport.write(data)
        if self.factory.ends:
            self.transport.loseConnection()


class HostileWebSocket(Protocol):
    """Accepts the handshake, and sends `data` then."""

    factory: Any
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        if data.startswith(b"GET "):
            key = re.search(rb"Sec-WebSocket-Key: (\S+)", data, re.IGNORECASE)
            assert key is not None
            accept = b64encode(sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            self.transport.write(head + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + self.factory.data)
        else:
            self.factory.received += data


class ForeignCase(Case):
    def foreign(self, first: bytes = b"", answer: bytes | None = None, ends: bool = False) -> str:
        """The HOST:PORT of a server of another protocol."""
        self.factory: Any = Factory.forProtocol(Foreign)
        self.factory.first, self.factory.answer, self.factory.ends = first, answer, ends
        port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"127.0.0.1:{port.getHost().port}"

    async def refusing(self) -> str:
        """A HOST:PORT where no server listens."""
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        where = f"127.0.0.1:{port.getHost().port}"
        await port.stopListening()
        return where


class GetTests(ForeignCase):
    """The body of a response."""

    async def test_a_body(self) -> None:
        self.serve()
        for url in (f"{self.port}/PrintHello", f"http://{self.port}/PrintHello"):
            status, out, err = await self.run_command("get", url)
            self.assertEqual((status, out, err), (0, "hello word", ""))
        status, out, err = await self.run_command("get", f"{self.port}/nothing")
        self.assertEqual(status, 1)
        self.assertEqual(list(json.loads(out)), ["error"])
        self.assertEqual(err, f"longconn: http://localhost:{self.port}/nothing: status 404 (Not Found)\n")

    async def test_a_stream_is_printed_as_it_comes(self) -> None:
        self.serve()
        command = self.command("get", f"{self.port}/channels/news/stream")
        await until(lambda: self.hub.channels)
        self.hub.publish("news", Data.of_text("hello"), Info("ann"), lambda result: None)
        await command.prints('"data":"hello"', "\n")
        self.assertFalse(command.ended)

    async def test_a_terminal_gets_text(self) -> None:
        head = b"HTTP/1.1 799 Odd\r\nContent-Length: 10\r\n\r\n"
        where = self.foreign(answer=head + b"a\x1b\xff\r\nb\t\xc3\xbc!")
        status, out, err = await self.run_command("get", where, interactive=True)
        self.assertEqual((status, out), (1, "a\ufffd\ufffd\nb\t\u00fc!\n"))
        self.assertEqual(err, f"longconn: http://{where}: status 799\n")

    async def test_wrong_command_lines_and_servers(self) -> None:
        where = await self.refusing()
        await self.assert_one_line(f"longconn: {where}: connection refused\n", "get", where)
        await self.assert_one_line("longconn: 'ftp://x/' is no URL", "get", "ftp://x/")
        broken = self.foreign(answer=b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", ends=True)
        await self.assert_one_line("the connection was lost in the middle of a response", "get", broken)


class ProbeTests(ForeignCase):
    """Times of responses."""

    def setUp(self) -> None:
        self.serve()
        self.url = f"http://127.0.0.1:{self.port}/PrintHello"

    async def test_one(self) -> None:
        status, out, err = await self.run_command("probe", self.url)
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(out, rf"^{_RESPONSE.pattern}\n$")

    async def test_rounds_over_kept_connections(self) -> None:
        options = ("--connections=3", "--times=3", "--every=0.01")
        status, out, _ = await self.run_command("probe", *options, self.url)
        found = [match.groups() for match in map(_RESPONSE.fullmatch, out.splitlines()) if match is not None]
        self.assertEqual(status, 0)
        self.assertEqual([each[2] for each in found], ["new"] * 3 + ["reused"] * 6)
        ports = {each[1] for each in found}
        self.assertEqual(len(ports), 3)
        for each in range(3):
            self.assertEqual({port for _, port, _ in found[3 * each : 3 * each + 3]}, ports)

    async def test_rounds_keep_their_time(self) -> None:
        started = reactor.seconds()
        await self.run_command("probe", "--times=3", "--every=0.1", self.url)
        self.assertGreater(reactor.seconds() - started, 0.2)

    async def test_for_ever(self) -> None:
        command = self.command("probe", "--times=0", "--every=0.01", self.url)
        await command.prints(*["reused"] * 10)
        self.assertFalse(command.ended)

    async def test_json_and_a_bad_status(self) -> None:
        where = f"127.0.0.1:{self.port}"
        status, out, err = await self.run_command("probe", "--json", f"{where}/nothing")
        self.assertEqual((status, err), (1, ""))
        value = json.loads(out)
        self.assertEqual(sorted(value), ["port", "reused", "seconds", "status"])
        self.assertEqual((value["status"], value["reused"]), (404, False))

    async def test_a_password(self) -> None:
        where = self.foreign(answer=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        status, _, _ = await self.run_command("probe", where, "--user", "ann:se:cret")
        self.assertEqual(status, 0)
        self.assertIn(b"Authorization: Basic YW5uOnNlOmNyZXQ=\r\n", self.factory.received)
        await self.assert_one_line("--user is NAME:PASSWORD", "probe", where, "--user", "ann", usage=True)

    async def test_wrong_command_lines_and_servers(self) -> None:
        where = await self.refusing()
        await self.assert_one_line(f"longconn: {where}: connection refused\n", "probe", where)
        await self.assert_one_line("longconn: 'ftp://x/' is no URL", "probe", "ftp://x/")
        line = "longconn: the URL has a user or password: give them as --user NAME:PASSWORD\n"
        for url in ("http://u:p@localhost:42001/", "u@localhost"):
            await self.assert_one_line(line, "probe", url)
        await self.assert_one_line("is no URL: Port out of range 0-65535", "probe", "http://localhost:99999/")
        await self.assert_one_line("the answer is not HTTP", "probe", self.foreign(answer=b"220 mail\r\n", ends=True))
        await self.assert_one_line("no answer for 0.05 s", "probe", self.foreign(), "--timeout=0.05")

    async def test_a_failed_request_does_not_end_the_others(self) -> None:
        where = self.foreign(answer=b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na", ends=True)
        status, out, err = await self.run_command("probe", where, "--times=3", "--every=0.01")
        self.assertEqual((status, out), (1, ""))
        self.assertEqual(err, "longconn: the connection was lost in the middle of a response\n" * 3)

    async def test_a_closed_output(self) -> None:
        command = self.command("probe", "--times=0", "--every=0.01", self.url)
        await command.prints("new")
        command.out.broken = True
        self.assertEqual((await command.status, command.err.text), (141, ""))


class IPv6Tests(Case):
    """Every command, with every kind of URL that it takes, at a server whose address is an IPv6 literal."""

    async def test_every_command_takes_a_literal(self) -> None:
        self.serve("[::1]:0")
        where = f"[::1]:{self.port}"
        clients = [where, *(f"{scheme}://{where}" for scheme in ("tcp", "ws", "http", "grpc"))]
        clients.append(f"http://{where}/connection/sse")
        commands = [("probe", f"{each}/PrintHello") for each in (where, f"http://{where}")]
        commands += [("echo", "-s", each, "--times=1") for each in (where, f"tcp://{where}", f"ws://{where}")]
        commands += [("pub", "-s", each, "lobby", "x") for each in clients]
        for command in commands:
            status, _, err = await self.run_command(*command)
            self.assertEqual((status, err), (0, ""), command)
        for each in clients:
            command = self.command("sub", "-s", each, "lobby")
            await until(lambda: "lobby" in self.hub.channels)
            chat = self.command("chat", "-s", each, "lobby", "--name=ann", lines=[b"hello"])
            self.assertEqual(await chat.status, 0, chat.err.text)
            await command.prints("ann: hello")
            command.status.cancel()
            await until(lambda: not self.hub.clients)

    def test_short_forms(self) -> None:
        for text, url in (
            ("::1", "tcp://[::1]"), ("[::1]:80", "tcp://[::1]:80"), (":80", "tcp://localhost:80"),
            ("h:1", "tcp://h:1"), ("ws://[::1]", "ws://[::1]"), ("fe80::1%eth0", "tcp://[fe80::1%eth0]"),
        ):  # fmt: skip
            self.assertEqual(complete_url(text, "tcp"), url)


class EchoTests(ForeignCase):
    def setUp(self) -> None:
        self.serve()

    async def test_lines(self) -> None:
        chatter = await self.line_client()
        command = self.command("echo", *self.at, "--every=0.02", "--times=5")
        await command.prints("1: ")
        chatter.say("what is said meanwhile is no pong")
        self.assertEqual(await command.status, 0)
        *trips, summary = command.out.lines
        self.assertEqual([re.sub(r"\d+\.\d{3}", "T", each) for each in trips], [f"{n}: T ms" for n in range(1, 6)])
        times = [float(each.split()[1]) for each in trips]
        numbers = [float(each) for each in re.findall(r"\d+\.\d+", summary)]
        self.assertEqual((numbers[0], numbers[2]), (min(times), max(times)))
        self.assertLess(abs(numbers[1] - sum(times) / 5), 0.002)

    async def test_messages(self) -> None:
        for url in (f"ws://127.0.0.1:{self.port}", f"ws://127.0.0.1:{self.port}/websocket"):
            status, out, err = await self.run_command("echo", "-s", url, "--every=0", "--times=3", "--json")
            self.assertEqual((status, err), (0, ""))
            self.assertEqual([json.loads(each)["number"] for each in out.splitlines()], [1, 2, 3])

    async def test_the_server_of_the_environment(self) -> None:
        environ = {"LONGCONN_URL": f"127.0.0.1:{self.port}"}
        status, _, _ = await self.run_command("echo", "--every=0", environ=environ)
        self.assertEqual(status, 0)

    async def test_wrong_command_lines_and_servers(self) -> None:
        where = await self.refusing()
        await self.assert_one_line(f"longconn: {where}: connection refused", "echo", "-s", where)
        await self.assert_one_line("http:// is none of", "echo", "-s", "http://localhost")
        await self.assert_one_line("no path", "echo", "-s", "tcp://localhost:1/path")
        await self.assert_one_line(
            "no longconn server: it answered 'SSH-2.0-x'", "echo", "-s", self.foreign(b"SSH-2.0-x\r\n")
        )
        await self.assert_one_line("no answer for 0.05 s", "echo", "-s", self.foreign(), "--timeout=0.05")
        where = f"ws://{self.foreign()}"
        await self.assert_one_line("no WebSocket for 0.05 s", "echo", "-s", where, "--timeout=0.05")
        nothing = f"ws://127.0.0.1:{self.port}/nothing"
        await self.assert_one_line("no WebSocket: ", "echo", "-s", nothing)
        chat = f"ws://127.0.0.1:{self.port}/ws"
        await self.assert_one_line(f"longconn: {chat} does not echo", "echo", "-s", chat)

    async def test_a_hostile_server_does_not_fill_the_memory(self) -> None:
        mebibyte = b"x" * 1024 * 1024
        for answer in (mebibyte, b"HTTP/1.1 101 Switching Protocols\r\nX-A: " + mebibyte):
            where = self.foreign(answer=answer)
            await self.assert_one_line("no WebSocket: its answer does not end", "echo", "-s", f"ws://{where}")
        very_large = b"\x81\x7f" + (2**40).to_bytes(8, "big")
        endless = b"\x01\x00" + b"\x00\x7e\xff\xff" + b"x" * 65_535 + b"\x00\x01x" * 10
        for data in (very_large, endless):
            await self.assert_one_line("does not echo: ", "echo", "-s", f"ws://{self.hostile(data)}")
        # Of many pings in one read the last is answered.
        where = self.hostile(b"\x89\x00" * 10_000 + b"\x89\x04last")
        command = self.command("echo", "-s", f"ws://{where}", "--timeout=0.2")
        self.assertEqual(await command.status, 1)
        self.assertLess(len(self.factory.received), 200)

    def hostile(self, data: bytes) -> str:
        self.factory = Factory.forProtocol(HostileWebSocket)
        self.factory.data, self.factory.received = data, b""
        port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"127.0.0.1:{port.getHost().port}"

    async def test_the_server_goes(self) -> None:
        command = self.command("echo", *self.at, "--every=0.01", "--times=0")
        await command.prints("3: ")
        await self.service.stopService()
        self.assertEqual(await command.status, 1)
        self.assertIn("in all: least", command.out.lines[-1])
        self.assertEqual(len(command.err.lines), 1)
