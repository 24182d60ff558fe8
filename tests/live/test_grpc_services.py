"""The services over real sockets with grpcio's client, in one channel with all other protocols."""

import json
from collections.abc import Sequence
from typing import Any

import grpc
import jwt
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from longconn.core.namespaces import ChannelOptions, Namespaces
from longconn.core.publication import Data, Info
from longconn.protocols.grpc.services.standard import POOL, message
from longconn.v1 import longconn_pb2 as pb
from tests.live.common import Case, until
from tests.live.grpc_stock import Requests, Stock, Stream

SECRET = "a secret that is long enough for HS256"


def texts(messages: list[Any]) -> list[str]:
    return [each.publication.data for each in messages if each.WhichOneof("event") == "publication"]


def spoken(lines: Sequence[Any]) -> list[str]:
    """Chat lines, without joins, leaves and answers."""
    return [each for each in lines if not each.startswith(("*", "pong"))]


class GrpcCase(Case):
    def stock(self, *file: Any) -> Stock:
        stock = Stock(self.port, *file)
        self.addCleanup(stock.close)
        return stock

    def subscribe(self, stock: Stock, channel: str = "lobby", **request: Any) -> Stream:
        return stock.open("Subscribe", pb.SubscribeRequest(channel=channel, **request))

    async def publish(self, stock: Stock, text: str, channel: str = "lobby", **request: Any) -> pb.Position:
        answer = await stock.ask("Publish", pb.PublishRequest(channel=channel, text=text, **request))
        position: pb.Position = answer.position
        return position

    async def refusal(self, stock: Stock, method: str, request: Any, token: str = "") -> grpc.RpcError:
        metadata = [("authorization", f"Bearer {token}")] if token else []
        error: grpc.RpcError = await self.assertFailure(stock.ask(method, request, metadata), grpc.RpcError)
        return error


class CrossingTests(GrpcCase):
    async def test_all_protocols_read_one_order(self) -> None:
        self.serve()
        nc, web = await self.line_client(), await self.websocket_client("/ws?name=mia")
        events = await self.stream("/channels/lobby/events")
        stock = self.stock()
        reader = self.subscribe(stock)
        requests = Requests(
            pb.ConnectRequest(id=1, connect={"name": "ada"}), pb.ConnectRequest(id=2, subscribe={"channel": "lobby"})
        )
        self.addCleanup(requests.close)
        program = stock.open("Connect", requests)
        await gatherResults([until(lambda: reader.messages), until(lambda: len(program.messages) == 2)])
        for number in range(5):
            nc.say(f"nc {number}")
            web.say(f"web {number}")
            requests.add(pb.ConnectRequest(id=3 + number, publish={"channel": "lobby", "text": f"connect {number}"}))
            await self.publish(stock, f"publish {number}", name="cron")
        count = 20
        await until(lambda: len(texts(reader.messages)) == len(texts(program.messages)) == count)
        order = [each.publication for each in reader.messages[1:]]
        self.assertEqual([each.offset for each in order], list(range(1, count + 1)))
        said = [f"{each.name}: {each.data[1:-1]}" for each in order]
        names = {each.split(": ")[1].split(" ")[0]: each.split(": ")[0] for each in said}
        self.assertEqual(names, {"nc": nc.address, "web": "mia", "connect": "ada", "publish": "cron"})
        pushed = [each.publication for each in program.messages if each.WhichOneof("event") == "publication"]
        self.assertEqual(pushed, order)
        await nc.connection.until(lambda: len(spoken(nc.lines)) == count)
        self.assertEqual(spoken(nc.lines), said)
        await web.connection.until(lambda: len(spoken(web.messages)) == count)
        self.assertEqual(spoken(web.messages), said)

        def read() -> list[Any]:
            return [each.json() for each in events.events() if each.event == "message" and each.data]

        await events.connection.until(lambda: len(read()) == count)  # type: ignore[attr-defined]
        expected = [(each.name, json.loads(each.data)) for each in order]
        self.assertEqual([(each["name"], each["data"]) for each in read()], expected)


class ConversationTests(GrpcCase):
    async def test_all_methods(self) -> None:
        self.serve()
        stock = self.stock()
        reader = self.subscribe(stock, name="bo")
        (answer,) = await reader.first(1)
        position = await self.publish(stock, "one", name="cron")
        self.assertEqual(position, pb.Position(epoch=answer.subscribed.position.epoch, offset=1))
        history = await stock.ask("History", pb.HistoryRequest(channel="lobby"))
        self.assertEqual([each.data for each in history.publications], ['"one"'])
        presence = await stock.ask("Presence", pb.PresenceRequest(channel="lobby"))
        self.assertEqual([each.name for each in presence.clients], ["bo"])
        reader.cancel()
        await until(lambda: not self.hub.clients)

    async def test_commands_and_answers(self) -> None:
        self.serve()
        requests = Requests(
            pb.ConnectRequest(id=1, connect={}),
            pb.ConnectRequest(id=2, subscribe={"channel": "lobby"}),
            pb.ConnectRequest(id=3, publish={"channel": "lobby", "data": "[1,2]"}),
            pb.ConnectRequest(id=4, history={"channel": "lobby"}),
            pb.ConnectRequest(id=5, presence={"channel": "lobby"}),
            pb.ConnectRequest(id=6, publish={"channel": "two words", "text": "x"}),
            pb.ConnectRequest(id=7, ping={}),
            pb.ConnectRequest(id=8, unsubscribe={"channel": "lobby"}),
        )
        requests.close()
        program = self.stock().open("Connect", requests)
        self.assertEqual(await program.end(), grpc.StatusCode.OK)
        found = {each.id: each for each in program.messages if each.id}
        kinds = [found[id].WhichOneof("event") for id in range(1, 9)]
        expected = ["connected", "subscribed", "published", "history", "presence", "error", "pong", "unsubscribed"]
        self.assertEqual(kinds, expected)
        self.assertEqual(found[6].error.code, 151)
        self.assertEqual(texts(program.messages), ["[1,2]"])
        self.assertEqual(self.hub.clients, {})

    async def test_a_stream_resumes(self) -> None:
        self.serve(history_size=50)
        stock = self.stock()
        reader = self.subscribe(stock)
        await reader.first(1)
        for number in range(10):
            await self.publish(stock, str(number))
        seen = (await reader.first(11))[-1].publication
        reader.cancel()
        await reader.end()
        for number in range(10, 60):
            self.hub.publish("lobby", Data.of_text(str(number)), Info("hub"), lambda result: None)
        resumed = self.subscribe(stock, since=pb.Position(epoch=seen.epoch, offset=seen.offset))
        answer, *missed = await resumed.first(51)
        self.assertTrue(answer.subscribed.recovered)
        self.assertEqual([each.publication.offset for each in missed], list(range(11, 61)))
        await self.publish(stock, "live")
        self.assertEqual((await resumed.first(52))[-1].publication.offset, 61)
        late = self.subscribe(stock, since=pb.Position(epoch=seen.epoch, offset=5))
        answer, *kept = await late.first(51)
        self.assertEqual((answer.subscribed.was_recovering, answer.subscribed.recovered), (True, False))
        self.assertEqual([each.publication.offset for each in kept], list(range(12, 62)))

    async def test_a_client_that_does_not_read_is_disconnected_and_others_are_not(self) -> None:
        self.serve(send_queue=300_000, history_size=0)
        stock, other = self.stock(), self.stock()
        witness = self.subscribe(other)
        await witness.first(1)
        # Nobody takes its messages: what the library reads ahead is bounded by its window.
        slow = stock.channel.unary_stream("/longconn.v1.LongConn/Subscribe")(
            pb.SubscribeRequest(channel="lobby").SerializeToString()
        )
        self.addCleanup(slow.cancel)
        await until(lambda: len(self.hub.clients) == 2)
        warnings = self.warnings()
        count = 0
        while not warnings and count < 5_000:
            for _ in range(10):
                self.hub.publish("lobby", Data.of_text("x" * 8_000), Info("hub"), lambda result: None)
            count += 10
            await until(lambda: len(witness.messages) > count - 10)  # noqa: B023
        self.assertIn("is disconnected (3008 slow)", warnings[0])
        self.assertEqual(await deferToThread(slow.code), grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertIsNone(witness.status)


class StatusTests(GrpcCase):
    async def test_refusals(self) -> None:
        shut = Namespaces(named={"shut": ChannelOptions(allow_subscribe_for_client=False)})
        self.serve(max_message=10, publish_rate=1, publish_burst=6, namespaces=shut)
        stock = self.stock()
        code = grpc.StatusCode
        for method, request, status, number in (
            ("Publish", pb.PublishRequest(channel="two words", text="x"), code.INVALID_ARGUMENT, "151"),
            ("Publish", pb.PublishRequest(channel="a", data="x"), code.INVALID_ARGUMENT, "155"),
            ("Publish", pb.PublishRequest(channel="a", text="x" * 11), code.RESOURCE_EXHAUSTED, "154"),
            ("Presence", pb.PresenceRequest(channel="shut:a"), code.PERMISSION_DENIED, "103"),
            ("History", pb.HistoryRequest(channel="no:a"), code.NOT_FOUND, "102"),
        ):
            error = await self.refusal(stock, method, request)
            self.assertEqual((error.code(), dict(error.trailing_metadata())["longconn-code"]), (status, number))
        subscribe = self.subscribe(stock, "shut:a")
        self.assertEqual(await subscribe.end(), code.PERMISSION_DENIED)
        self.assertEqual(subscribe.details, "permission denied: subscribe to shut:a")
        for _ in range(3):  # each refused publication counted as one
            await self.publish(stock, "x")
        with self.assertRaises(grpc.RpcError) as caught:
            for _ in range(10):
                await self.publish(stock, "x")
        self.assertEqual(caught.exception.code(), code.RESOURCE_EXHAUSTED)

    async def test_tokens(self) -> None:
        self.serve(token_hmac_secret_key=SECRET)
        stock = self.stock()
        ask = ("Publish", pb.PublishRequest(channel="lobby", text="x"))
        for token in ("", "x", jwt.encode({"sub": "ada", "exp": 1}, SECRET, "HS256")):
            self.assertEqual((await self.refusal(stock, *ask, token)).code(), grpc.StatusCode.UNAUTHENTICATED)
        token = jwt.encode({"sub": "ada"}, SECRET, "HS256")
        metadata = [("authorization", f"Bearer {token}")]
        await stock.ask(*ask, metadata)
        history = await stock.ask("History", pb.HistoryRequest(channel="lobby"), metadata)
        self.assertEqual([each.user for each in history.publications], ["ada"])


class StandardTests(GrpcCase):
    async def test_greeting(self) -> None:
        self.serve()
        for file in ("helloworld.proto", "hello.proto"):
            stock = self.stock(POOL.FindFileByName(file))
            answer = await stock.ask("SayHello", message("helloworld.HelloRequest")(name="you"))
            self.assertEqual(answer.message, "Hello you!")

    async def test_reflection_by_the_stock_client(self) -> None:
        self.serve()
        database = ProtoReflectionDescriptorDatabase(self.stock().channel)
        services = await deferToThread(database.get_services)
        self.assertEqual(set(services), {path.split("/")[1] for path in self.service._grpc.services})

        def learn() -> Any:
            """Describe a service by reflection alone."""
            found = DescriptorPool(database).FindServiceByName("longconn.v1.LongConn")
            return sorted((each.name, each.input_type.full_name) for each in found.methods)

        methods = await deferToThread(learn)
        own = pb.DESCRIPTOR.services_by_name["LongConn"].methods
        self.assertEqual(methods, sorted((each.name, each.input_type.full_name) for each in own))

    async def test_health_at_a_shutdown(self) -> None:
        self.serve(shutdown_delay=1.0)
        stock = self.stock()
        health = health_pb2_grpc.HealthStub(stock.channel)
        request = health_pb2.HealthCheckRequest(service="longconn.v1.LongConn")

        async def check() -> int:
            return int((await deferToThread(health.Check, request, timeout=10)).status)

        watch = Stream(health.Watch(request))
        unknown = Stream(health.Watch(health_pb2.HealthCheckRequest(service="x")))
        reader = self.subscribe(stock)
        self.assertEqual(await check(), health_pb2.HealthCheckResponse.SERVING)
        await gatherResults([until(lambda each=each: each.messages) for each in (watch, unknown, reader)])
        stopped = self.service.stopService()
        # Not ready, but serving.
        await watch.first(2)
        self.assertEqual(await check(), health_pb2.HealthCheckResponse.NOT_SERVING)
        await self.publish(stock, "x")
        await reader.first(2)
        self.assertEqual([each.status for each in watch.messages], [1, 2])
        self.assertEqual([each.status for each in unknown.messages], [3])
        await stopped
        for each in (watch, unknown, reader):
            self.assertEqual(await each.end(), grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(reader.details, "shutdown")
