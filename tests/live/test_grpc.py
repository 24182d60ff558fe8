"""gRPC over real sockets, with the stock clients (grpcio, blocking and asynchronous) as the judges."""

import json
import sys
import time
import tracemalloc
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater

from longconn import ChatFactory, GrpcFactory, Hub, LiveSite, LongConnService, Settings, SharedPortFactory
from longconn.core.publication import Data, Info
from longconn.protocols.grpc.call import GrpcCall, Services
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc_status import StatusCode, StatusError
from tests.live.certificates import write_certificate
from tests.live.common import Case, reactor, until
from tests.live.programs import ROOT

SUBSCRIBE = "/longconn.v1.LongConn/Subscribe"
LOBBY = pb.SubscribeRequest(channel="lobby").SerializeToString().hex()

WANTED: dict[str, Any] = {
    "unary": "hello",
    "empty": "",
    "large": 4 * 1024 * 1024,
    "gzip": True,
    "client stream": "1000000",
    "server stream": 1000,
    "both": ["a", "b"],
    "metadata": [[["one", "1"], ["raw-bin", "00ff"]], "yes", ["OK", "", {"last": "so", "last-bin": "ff00"}]],
    "status": ["FAILED_PRECONDITION", "not this way: 100 % ä", {"why": "so"}],
    "status of a stream": ["FAILED_PRECONDITION", "not this way: 100 % ä", {"why": "so"}],
    "bug": ["UNKNOWN", "internal error", {}],
    "unknown": ["UNIMPLEMENTED", "there is no method /t/Nothing", {}],
    "too large": ["RESOURCE_EXHAUSTED", "a message of 4194305 bytes; at most 4194304 are received", {}],
    "deflate": "UNIMPLEMENTED",
    "deadline": "DEADLINE_EXCEEDED",
    "deadline of a stream": "DEADLINE_EXCEEDED",
    "two for one": "UNIMPLEMENTED",
}


class Program(ProcessProtocol):
    """A client in a process of its own. `ready` fires when it prints that it is; `result` has its last line."""

    transport: Any

    def __init__(self, *arguments: str) -> None:
        self.ready: Deferred[None] = Deferred()
        self.result: Deferred[Any] = Deferred()
        self._out = b""
        command = [sys.executable, "-m", "tests.live.grpc_clients", *arguments]
        environ = {"PYTHONPATH": str(ROOT), "GRPC_VERBOSITY": "NONE"}
        reactor.spawnProcess(
            self, sys.executable, command, env=environ, path=str(ROOT), childFDs={0: "w", 1: "r", 2: 2}
        )

    def outReceived(self, data: bytes) -> None:
        self._out += data
        if b"ready\n" in self._out and not self.ready.called:
            self.ready.callback(None)

    def processEnded(self, reason: Any) -> None:
        lines = self._out.splitlines()
        if lines and lines[-1].startswith(b"{"):
            self.result.callback(json.loads(lines[-1]))
        else:
            self.result.errback(AssertionError(f"the client ended: {reason.value}"))
        if not self.ready.called:
            self.ready.errback(AssertionError("the client ended before it was ready"))
            self.ready.addErrback(lambda failure: None)


class Tests(Case):
    timeout = 40

    def setUp(self) -> None:
        self.open = self.most = 0
        self.ends: list[float] = []
        self.services = Services(
            {
                "/t/Echo": self.echo, "/t/Count": self.count, "/t/Many": self.many, "/t/Both": self.both,
                "/t/Metadata": self.metadata, "/t/Refused": self.refused, "/t/Bug": self.bug, "/t/Stall": self.stall,
                "/t/Ends": self.ends_it, "/t/Seen": self.seen, "/t/Slow": self.slow,
            }
        )  # fmt: skip

    # What is called.

    async def echo(self, call: GrpcCall) -> None:
        call.write(await call.read_one())

    async def count(self, call: GrpcCall) -> None:
        size = 0
        while (message := await call.read()) is not None:
            size += len(message)
        call.write(b"%d" % size)

    async def many(self, call: GrpcCall) -> None:
        for number in range(int(await call.read_one())):
            call.write(b"%d" % number * 100)
            await call.drained()

    async def both(self, call: GrpcCall) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        call.on_end(self._closed)
        while (message := await call.read()) is not None:
            call.write(message)
            await call.drained()

    def _closed(self) -> None:
        self.open -= 1

    async def seen(self, call: GrpcCall) -> None:
        call.write(json.dumps([self.open, len(self.factory.connections)]).encode())

    async def metadata(self, call: GrpcCall) -> None:
        await call.read_one()
        call.start([("first", "yes")])
        found = [(key, value if isinstance(value, str) else value.hex()) for key, value in call.metadata]
        call.write(json.dumps([each for each in found if each[0] in ("one", "raw-bin")]).encode())
        call.trailing += [("last", "so"), ("last-bin", b"\xff\0")]

    async def refused(self, call: GrpcCall) -> None:
        raise StatusError(StatusCode.FAILED_PRECONDITION, "not this way: 100 % ä", [("why", "so")])

    async def bug(self, call: GrpcCall) -> None:
        raise ZeroDivisionError

    async def stall(self, call: GrpcCall) -> None:
        call.on_end(lambda: self.ends.append(time.time()))
        call.start()
        await call.wait()

    async def ends_it(self, call: GrpcCall) -> None:
        call.write(b"%f" % time.time())
        raise StatusError(StatusCode.ABORTED)

    async def slow(self, call: GrpcCall) -> None:
        message = await call.read_one()
        await deferLater(reactor, 0.3)
        call.write(message)

    # Where.

    def listen(self, **settings: Any) -> str:
        """The shared port with the services of these tests."""
        hub = Hub(reactor, Settings(**settings))
        self.factory = GrpcFactory(hub, self.services)
        port = reactor.listenTCP(
            0, SharedPortFactory(ChatFactory(hub), LiveSite(hub), self.factory), interface="127.0.0.1", backlog=1000
        )

        async def stop() -> None:
            await port.stopListening()
            await until(lambda: not self.factory.connections)
            hub.stop()

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        return f"127.0.0.1:{port.getHost().port}"

    async def run_client(self, scenario: str, *arguments: str) -> Any:
        return await Program(scenario, *arguments).result


class CallTests(Tests):
    async def test_every_kind_of_call(self) -> None:
        target = self.listen()
        with self.assertLogs("longconn", "ERROR") as logs:
            found = await gatherResults(
                [Program(each, target).result for each in ("kinds", "kinds-async")], consumeErrors=True
            )
        for each in found:
            self.assertEqual(each, WANTED)
        self.assertEqual(["ZeroDivisionError" in each for each in logs.output], [True, True])
        # Deadlines, too, have ended what they were for.
        await until(lambda: len(self.ends) == 4)

    async def test_through_tls(self) -> None:
        key, certificate = write_certificate(self.folder())
        endpoint = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
        service = LongConnService(reactor, Settings(shutdown_timeout=1), grpc=(endpoint,))
        service._grpc.services.update(self.services)
        service.startService()
        self.addCleanup(service.stopService)
        with self.assertLogs("longconn", "ERROR"):
            found = await self.run_client("secure", f"127.0.0.1:{service.addresses[0][1].port}", str(certificate))
        self.assertEqual(found, WANTED)

    async def test_a_thousand_streams_on_one_connection(self) -> None:
        found = await self.run_client("thousand", self.listen())
        self.assertEqual(found, {"right": 1000, "ended": 1000, "codes": ["OK"], "seen": [1000, 1]})

    async def test_a_hundred_connections(self) -> None:
        found = await self.run_client("hundred", self.listen())
        self.assertEqual(found, {"right": 200, "ended": 200, "codes": ["OK"], "seen": [200, 100]})

    async def test_cancellation_is_seen_at_once_by_both_sides(self) -> None:
        target = self.listen()
        for scenario, count in (("cancel", 5), ("cancel-blocking", 3)):
            self.ends.clear()
            found = await self.run_client(scenario, target)
            await until(lambda count=count: len(self.ends) == count)
            waits = [seen - said for said, seen in zip(found["cancelled"], self.ends, strict=True)]
            # The fastest one: others may have the machine for a while, but what waits for a timer always does.
            self.assertLess(min(waits), 0.1, waits)
            self.assertEqual("ended" in found, scenario == "cancel")
            if "ended" in found:
                self.assertEqual({code for code, _ in found["ended"]}, {"ABORTED"})
                self.assertLess(min(wait for _, wait in found["ended"]), 0.1)


class ClientTests(Tests):
    async def test_a_client_that_does_not_read(self) -> None:
        service = self.serve()
        # Not the resident size: that may have been larger before, in another test of this process.
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        program = Program("deaf", f"127.0.0.1:{self.port}", SUBSCRIBE, LOBBY)
        await program.ready
        await until(lambda: len(service.hub.clients) == 2)
        warnings = self.warnings()
        text = "x" * 30_000
        published = 0
        while not warnings:
            # As fast as the one that reads does: it must not become slow itself.
            await until(lambda: all(each.queued < 500_000 for each in self.readers()))
            service.hub.publish("lobby", Data.of_text(text), Info("hub"), lambda result: None)
            published += 1
            await deferLater(reactor, 0)
        service.hub.publish("lobby", Data.of_text("the last"), Info("hub"), lambda result: None)
        found = await program.result
        self.assertEqual(len(warnings), 1, warnings)
        self.assertIn("3008 slow", warnings[0])
        # The answer to the call, and every publication.
        self.assertEqual(found["count"], published + 2)
        self.assertEqual(found["rogue"][0], "RESOURCE_EXHAUSTED")
        self.assertLess(tracemalloc.get_traced_memory()[1], 30 * 1024 * 1024)

    def readers(self) -> list[Any]:
        """The outlets of all calls except the one with the longest queue."""
        outlets = [each.outlet for each in self.hub.clients.values()]
        return sorted(outlets, key=lambda each: each.queued)[:-1]

    async def test_shutdown_while_streaming(self) -> None:
        service = self.serve(shutdown_timeout=600)  # far beyond this test's own
        service._grpc.services.update(self.services)
        program = Program("listen", f"127.0.0.1:{self.port}", SUBSCRIBE, LOBBY)
        await program.ready
        await service.stopService()
        found = await program.result
        self.assertEqual(found["slow"], "slow")
        self.assertEqual(found["stream"], ["UNAVAILABLE", "shutdown", {"longconn-code": "3001"}])
        self.assertEqual(found["watch"], ["UNAVAILABLE", "shutdown", {"longconn-code": "3001"}])
        self.assertEqual(found["late"], "UNAVAILABLE")
