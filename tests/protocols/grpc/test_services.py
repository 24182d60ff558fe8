"""Calls that are not clients: Publish, Presence, History; the greeting, health and reflection."""

from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import Message

from longconn.core.namespaces import ChannelOptions, Namespaces
from longconn.protocols.grpc.services.standard import message
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc_status import StatusCode
from tests.protocols.grpc.kit import Case, FakeCall, Keys

NAMED = {
    "secret": ChannelOptions(allow_subscribe_for_client=False),
    "users": ChannelOptions(allow_publish_for_anonymous=False, allow_history_for_anonymous=False),
    "news": ChannelOptions(allow_publish_for_client=False, allow_publish_for_subscriber=False),
    "still": ChannelOptions(presence=False, history_size=0),
}


class PublishTests(Case):
    def refused(self, **fields: Any) -> tuple[StatusCode, str]:
        return self.refusal("Publish", pb.PublishRequest(**{"channel": "lobby", "text": "x"} | fields))

    def test_text_reaches_everybody(self) -> None:
        chat = self.server.line_client()
        events = self.server.http_client().get("/channels/lobby/events")
        page = self.server.websocket_client("/ws")
        for each in (chat, events, page):
            each.read()
        request = pb.PublishRequest(channel="lobby", text='disk "full"', name="cron")
        position = self.answer("Publish", request, pb.PublishResponse).position
        self.assertEqual(chat.read(), ['cron: disk "full"'])
        self.assertEqual(page.read(), ['cron: disk "full"'])
        (event,) = events.read()
        self.assertEqual(event.id, f"{position.epoch}:1")
        self.assertEqual((event.json()["data"], event.json()["name"]), ('disk "full"', "cron"))
        self.assertEqual(position.offset, 1)

    def test_json_is_kept_as_it_was_written(self) -> None:
        self.answer(
            "Publish", pb.PublishRequest(channel="c", data=' {"b": 1.50, "a": "\\u00fc", "a": 0}'), pb.PublishResponse
        )
        (found,) = self.answer("History", pb.HistoryRequest(channel="c"), pb.HistoryResponse).publications
        self.assertEqual(found.data, '{"b":1.50,"a":"\\u00fc","a":0}')
        self.assertEqual((found.name, found.client, found.user), ("guest-1", "", ""))

    def test_publishes_that_are_refused(self) -> None:
        invalid = StatusCode.INVALID_ARGUMENT
        self.assertEqual(self.refused(text=None), (invalid, "bad request: publish without data or text"))
        self.assertEqual(self.refused(text=None, data="hello"), (invalid, "not valid: JSON"))
        self.assertEqual(self.refused(text=None, data=""), (invalid, "not valid: JSON"))
        self.assertEqual(self.refused(channel="two words")[0], invalid)
        self.assertEqual(self.refused(channel="")[0], invalid)
        self.assertEqual(self.refused(name="127.0.0.1")[0], invalid)
        ann = self.server.line_client()
        ann.say("/nick ann")
        ann.read()
        self.assertEqual(self.refused(name="ann"), (StatusCode.ALREADY_EXISTS, "the name ann is taken"))
        self.assertEqual(self.hub.counters.publications, 0)

    def test_size(self) -> None:
        self.serve(max_message=10)
        too_large = (StatusCode.RESOURCE_EXHAUSTED, "too large: at most 10 bytes")
        self.assertEqual(self.refused(text="ü" * 6), too_large)
        self.assertEqual(self.refused(text=None, data=f'"{"x" * 9}"'), too_large)
        self.publish("lobby", "ü" * 5)

    def test_rate_of_an_address(self) -> None:
        self.serve(publish_rate=2, publish_burst=3)
        for _ in range(3):
            self.publish("lobby", "x")
        self.publish("lobby", "x", address="192.0.2.2:1")
        call = self.call("Publish", pb.PublishRequest(channel="lobby", text="x"))
        self.assertEqual(call.ended, (StatusCode.RESOURCE_EXHAUSTED, "too many requests"))
        assert call.status is not None
        self.assertIn(("grpc-retry-pushback-ms", "500"), call.status.metadata)
        self.server.advance(0.5)
        self.publish("lobby", "x")

    def test_every_unary_call_has_a_rate(self) -> None:
        """It is that of the caller's address, ten times that of a client; what was looked at counts too."""
        greeting = ("/helloworld.Greeter/SayHello", message("helloworld.HelloRequest")(name="ann"))
        health = ("/grpc.health.v1.Health/Check", message("grpc.health.v1.HealthCheckRequest")())
        presence, history = pb.PresenceRequest(channel="lobby"), pb.HistoryRequest(channel="lobby")
        for path, request in (greeting, health, ("Presence", presence), ("History", history)):
            self.serve(publish_rate=0.2, publish_burst=1)
            ends = [self.call(path, request) for _ in range(11)]
            self.assertEqual([each.ended and each.ended[0] for each in ends], [0] * 10 + [8], path)
            assert ends[10].status is not None
            self.assertIn(("grpc-retry-pushback-ms", "500"), ends[10].status.metadata)
            self.assertEqual(self.call(path, request, address="192.0.2.2:1").ended, (0, ""))
            self.server.advance(0.5)
            self.assertEqual(self.call(path, request).ended, (0, ""))

    def test_a_call_that_looks_at_much_costs_more(self) -> None:
        self.serve(publish_rate=1, publish_burst=2, publish_bytes=0, max_message=1_000_000)
        for address in ("192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1"):
            self.publish("lobby", "x" * 300_000, address=address)
        request = pb.HistoryRequest(channel="lobby")
        self.assertEqual([self.call("History", request).ended[0] for _ in range(3)], [0, 0, 8])  # type: ignore[index]

    def test_requests_that_do_not_parse(self) -> None:
        call = self.call("Publish")
        call.send_bytes(b"\xff\xff")
        call.half_close()
        self.assertEqual(call.ended, (StatusCode.INTERNAL, "not a longconn.v1.PublishRequest"))


class TokenTests(Case):
    def setUp(self) -> None:
        self.serve(Keys(), anonymous="yes", namespaces=Namespaces(named=NAMED))

    def refused(self, channel: str, token: str = "") -> tuple[StatusCode, str]:
        return self.refusal("Publish", pb.PublishRequest(channel=channel, text="x"), token=token)

    def test_rights(self) -> None:
        denied = StatusCode.PERMISSION_DENIED
        self.assertEqual(self.refused("users:a"), (denied, "permission denied: publish in users:a"))
        self.assertEqual(self.refused("news:a", "ada")[0], denied)
        self.assertEqual(self.refused("unknown:a"), (StatusCode.NOT_FOUND, "unknown channel unknown:a"))
        self.publish("users:a", "x", token="bo")
        request = pb.HistoryRequest(channel="users:a")
        self.assertEqual(self.refusal("History", request)[0], denied)
        (found,) = self.answer("History", request, pb.HistoryResponse, token="bo").publications
        self.assertEqual((found.user, found.data), ("bo", '"x"'))

    def test_channels_that_a_token_grants(self) -> None:
        request = pb.HistoryRequest(channel="secret:ada")
        self.assertEqual(self.refusal("History", request, token="bo")[0], StatusCode.PERMISSION_DENIED)
        self.answer("History", request, pb.HistoryResponse, token="ada")

    def test_bad_tokens(self) -> None:
        unauthenticated = StatusCode.UNAUTHENTICATED
        self.assertEqual(self.refused("a", "forged"), (unauthenticated, "invalid token"))
        self.assertEqual(self.refused("a", "old"), (unauthenticated, "token expired"))
        self.serve()
        self.assertEqual(self.refused("a", "ada"), (unauthenticated, "invalid token"))

    def test_another_authorization_scheme(self) -> None:
        call = FakeCall(self.hub, "", [("authorization", "Basic YTpi")], "192.0.2.1:1")
        call.send(pb.PresenceRequest(channel="a"))
        call.half_close()
        call.run(self.services["/longconn.v1.LongConn/Presence"])
        self.assertEqual(call.ended, (StatusCode.UNAUTHENTICATED, "unauthorized"))

    def test_without_a_token_where_one_is_required(self) -> None:
        self.serve(Keys())
        self.assertEqual(self.refused("a"), (StatusCode.UNAUTHENTICATED, "unauthorized"))
        self.publish("a", "x", token="bo")
        for path, request in (
            ("Subscribe", pb.SubscribeRequest(channel="a")),
            ("Connect", pb.ConnectRequest(connect={})),
        ):
            self.assertEqual(self.refusal(path, request), (StatusCode.UNAUTHENTICATED, "unauthorized"))


class PresenceTests(Case):
    def test_subscribers(self) -> None:
        ann = self.server.line_client()
        ann.say("/nick ann")
        ann.read()
        self.subscribe("lobby", channel_name="bo")
        found = self.answer("Presence", pb.PresenceRequest(channel="lobby"), pb.PresenceResponse)
        self.assertEqual([each.name for each in found.clients], ["ann", "bo"])
        self.assertEqual({each.client for each in found.clients}, set(self.hub.clients))

    def test_an_empty_channel(self) -> None:
        self.assertEqual(self.answer("Presence", pb.PresenceRequest(channel="x"), pb.PresenceResponse).clients, [])

    def test_presence_turned_off(self) -> None:
        self.serve(namespaces=Namespaces(named=NAMED))
        self.assertEqual(
            self.refusal("Presence", pb.PresenceRequest(channel="still:a")),
            (StatusCode.FAILED_PRECONDITION, "not available: presence"),
        )


class HistoryTests(Case):
    def history(self, **fields: Any) -> pb.HistoryResponse:
        return self.answer("History", pb.HistoryRequest(channel="lobby", **fields), pb.HistoryResponse)

    def offsets(self, **fields: Any) -> list[int]:
        return [each.offset for each in self.history(**fields).publications]

    def test_all_with_a_limit_and_since_a_position(self) -> None:
        self.serve(history_size=4)
        for each in range(1, 7):
            position = self.publish("lobby", str(each))
        found = self.history()
        self.assertEqual([each.data for each in found.publications], ['"3"', '"4"', '"5"', '"6"'])
        self.assertEqual((found.position, found.recovered), (position, True))
        self.assertEqual(self.offsets(limit=2), [5, 6])
        since = pb.Position(epoch=position.epoch, offset=3)
        self.assertEqual(self.offsets(since=since), [4, 5, 6])
        self.assertEqual(self.offsets(since=since, limit=1), [4])
        self.assertEqual(self.offsets(since=pb.Position(offset=5)), [6])

    def test_a_lost_position_is_not_recovered(self) -> None:
        self.serve(history_size=2)
        for _ in range(5):
            epoch = self.publish("lobby", "x").epoch
        for lost in (pb.Position(epoch=epoch, offset=1), pb.Position(epoch="another", offset=4)):
            found = self.history(since=lost)
            self.assertFalse(found.recovered)
            self.assertEqual([each.offset for each in found.publications], [4, 5])

    def test_a_channel_without_history(self) -> None:
        found = self.history()
        self.assertEqual((found.publications, found.position.offset, found.recovered), ([], 0, True))
        self.assertTrue(found.position.epoch)


class GreeterTests(Case):
    def test_hello(self) -> None:
        request = message("helloworld.HelloRequest")(name="you")
        for path in ("/helloworld.Greeter/SayHello", "/helloworld.HelloService/SayHello", "/HelloService/SayHello"):
            self.assertEqual(self.answer(path, request, message("helloworld.HelloReply")).message, "Hello you!")


class HealthTests(Case):
    path = "/grpc.health.v1.Health/"
    response = message("grpc.health.v1.HealthCheckResponse")

    def request(self, service: str) -> Any:
        return message("grpc.health.v1.HealthCheckRequest")(service=service)

    def check(self, service: str = "") -> int:
        return int(self.answer(self.path + "Check", self.request(service), self.response).status)

    def states(self, call: FakeCall) -> list[int]:
        return [each.status for each in call.read_all(self.response)]

    def test_check(self) -> None:
        services = ("", "longconn.v1.LongConn", "grpc.health.v1.Health", "HelloService")
        self.assertEqual([self.check(each) for each in services], [1, 1, 1, 1])
        self.hub.ready = False
        self.assertEqual([self.check(each) for each in services], [2, 2, 2, 2])

    def test_an_unknown_service(self) -> None:
        for each in ("nothing", "longconn.v1", "longconn.v1.LongConn/Publish"):
            found = self.refusal(self.path + "Check", self.request(each))
            self.assertEqual(found, (StatusCode.NOT_FOUND, "unknown service"))
            call = self.call(self.path + "Watch", self.request(each))
            self.assertEqual((self.states(call), call.ended), ([3], None))

    def test_watchers_are_told(self) -> None:
        calls = [self.call(self.path + "Watch", self.request(each)) for each in ("", "longconn.v1.LongConn")]
        self.assertEqual([self.states(each) for each in calls], [[1], [1]])
        self.hub.ready = False
        self.assertEqual([self.states(each) for each in calls], [[2], [2]])
        self.hub.ready = False
        calls[0].cancel()
        self.hub.ready = True
        self.assertEqual([self.states(each) for each in calls], [[], [1]])
        calls[1].cancel()
        self.assertEqual(self.hub.ready_watchers, set())


class ReflectionTests(Case):
    def ask(self, version: str, **what: Any) -> Any:
        """The only response to a request."""
        request = message(f"grpc.reflection.{version}.ServerReflectionRequest")(host="here", **what)
        found = self.answer(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request,
            message(f"grpc.reflection.{version}.ServerReflectionResponse"),
        )
        self.assertEqual((found.valid_host, found.original_request), ("here", request))
        return found

    def files(self, **what: Any) -> list[FileDescriptorProto]:
        found = self.ask("v1", **what).file_descriptor_response.file_descriptor_proto
        return [FileDescriptorProto.FromString(each) for each in found]

    def test_services(self) -> None:
        async def nothing(call: Any) -> None: ...

        self.services["/of.a.Program/Method"] = nothing
        for version in ("v1", "v1alpha"):
            found = self.ask(version, list_services="*").list_services_response.service
            self.assertEqual(
                [each.name for each in found],
                [
                    "HelloService",
                    "grpc.health.v1.Health",
                    "grpc.reflection.v1.ServerReflection",
                    "grpc.reflection.v1alpha.ServerReflection",
                    "helloworld.Greeter",
                    "helloworld.HelloService",
                    "longconn.v1.LongConn",
                    "of.a.Program",
                ],
            )

    def test_every_method_is_described(self) -> None:
        """The descriptors have exactly the methods that are served."""
        described = set()
        for name in {path.split("/")[1] for path in self.services}:
            (*_, file) = reversed(self.files(file_containing_symbol=name))
            for service in file.service:
                full = f"{file.package}.{service.name}".lstrip(".")
                described |= {f"/{full}/{method.name}" for method in service.method}
        self.assertEqual(described, set(self.services))

    def test_files(self) -> None:
        (file,) = self.files(file_by_filename="longconn/v1/longconn.proto")
        names = [field.json_name for each in file.message_type for field in each.field]
        self.assertIn("wasRecovering", names)
        for each in file.message_type:
            for field in each.field:
                field.ClearField("json_name")  # protoc leaves them out of modules
        self.assertEqual(file.SerializeToString(), pb.DESCRIPTOR.serialized_pb)
        names = [each.name for each in self.files(file_by_filename="hello.proto")]
        self.assertEqual(names, ["hello.proto", "helloworld.proto"])

    def test_symbols(self) -> None:
        for symbol, name in (
            ("longconn.v1.LongConn", "longconn/v1/longconn.proto"),
            ("longconn.v1.LongConn.Publish", "longconn/v1/longconn.proto"),
            ("longconn.v1.Publication", "longconn/v1/longconn.proto"),
            ("longconn.v1.Publication.data", "longconn/v1/longconn.proto"),
            ("grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc/health/v1/health.proto"),
            ("grpc.reflection.v1alpha.ServerReflection", "grpc/reflection/v1alpha/reflection.proto"),
            ("helloworld.Greeter", "helloworld.proto"),
        ):
            self.assertEqual(self.files(file_containing_symbol=symbol)[0].name, name)

    def test_unknown_files_and_symbols(self) -> None:
        for what in (
            {"file_by_filename": "nothing.proto"},
            {"file_containing_symbol": "longconn.v1.Nothing"},
            {"file_containing_symbol": "longconn.v1.LongConn.Nothing"},
            {"file_containing_symbol": ""},
            {"file_containing_extension": {"containing_type": "longconn.v1.Position", "extension_number": 100}},
            {"all_extension_numbers_of_type": "longconn.v1.Nothing"},
        ):
            error = self.ask("v1", **what).error_response
            self.assertEqual((error.error_code, error.error_message), (StatusCode.NOT_FOUND, "not found"), what)
        self.assertEqual(self.ask("v1").error_response.error_code, StatusCode.INVALID_ARGUMENT)

    def test_extensions(self) -> None:
        found = self.ask("v1", all_extension_numbers_of_type="longconn.v1.Position")
        self.assertEqual(found.all_extension_numbers_response.base_type_name, "longconn.v1.Position")
        self.assertEqual(found.all_extension_numbers_response.extension_number, [])

    def test_several_requests_in_one_call(self) -> None:
        request = message("grpc.reflection.v1.ServerReflectionRequest")
        call = self.call("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        questions: list[Message] = [request(host=str(each), list_services="") for each in range(5)]
        call.send(*questions)
        found = call.read_all(message("grpc.reflection.v1.ServerReflectionResponse"))
        self.assertEqual([each.valid_host for each in found], ["0", "1", "2", "3", "4"])
        self.assertIsNone(call.ended)


class PoolTests(Case):
    def test_standard_messages_are_not_in_the_default_pool(self) -> None:
        """grpcio's own modules register theirs there."""
        for name in ("grpc.health.v1.HealthCheckRequest", "helloworld.HelloRequest"):
            self.assertIsNot(message(name).DESCRIPTOR.file.pool, descriptor_pool.Default())
