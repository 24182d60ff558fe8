"""The door: rights that change, and what it asks of the broker."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn import Hub, Settings
from longconn.core.broker import Done
from longconn.core.errors import PERMISSION_DENIED, TOO_LARGE, TOO_MANY_REQUESTS, CommandError
from longconn.core.identity import ANONYMOUS, Capability, Identity
from longconn.core.memory_broker import MemoryBroker
from longconn.core.namespaces import Action, ChannelOptions, Namespaces
from longconn.core.publication import Data, History, Info, Position
from longconn.server_api.operations import ServerAPI
from longconn.testing import FakeClock, MemoryServer
from tests.protocols.grpc import kit
from tests.server_api.kit import Program, Users


class CountingBroker(MemoryBroker):
    """Notes how many publications each answer hands out."""

    def __init__(self, clock: FakeClock, settings: Settings) -> None:
        super().__init__(clock, settings)
        self.handed_out: list[int] = []

    def history(self, channel: str, since: Position | None, limit: int, reverse: bool, done: Done[History]) -> None:
        def counted(result: History | CommandError) -> None:
            assert not isinstance(result, CommandError)
            self.handed_out.append(len(result.publications))
            done(result)

        super().history(channel, since, limit, reverse, counted)


class Case(SynchronousTestCase):
    def serve(self, **settings: Any) -> None:
        clock, made = FakeClock(), Settings(**settings)
        self.broker = CountingBroker(clock, made)
        self.server = MemoryServer(hub=Hub(clock, made, self.broker))
        self.addCleanup(self.server.stop)
        self.hub = self.server.hub


class RefusalTests(Case):
    def test_a_refused_publication_of_a_request_counts_against_the_rate_of_its_address(self) -> None:
        self.serve(publish_rate=1, publish_burst=3, max_message=10)
        answers: list[Any] = []

        def publish(text: str, host: str = "192.0.2.1") -> Any:
            caller = self.hub.request(host, f"{host}:1")
            self.hub.door.publish(caller, "lobby", Data.of_text(text), answers.append)
            result = answers.pop()
            return result.reason if isinstance(result, CommandError) else result.offset

        self.assertEqual([publish("x" * 11) for _ in range(50)], [TOO_LARGE] * 50)
        self.assertEqual([publish("hello"), publish("hello", "192.0.2.2")], [TOO_MANY_REQUESTS, 1])
        self.server.advance(1)  # fifty refusals are no debt
        self.assertEqual([publish("hello"), publish("hello")], [2, TOO_MANY_REQUESTS])


class RightTests(Case):
    """A right that was looked up holds until the user changes."""

    def setUp(self) -> None:
        options = ChannelOptions(allow_publish_for_anonymous=False)
        self.serve(namespaces=Namespaces(options), anonymous="yes")

    def test_a_user_may_publish_and_the_same_client_without_one_may_not(self) -> None:
        person = self.server.line_client()
        self.server.settle()
        (client,) = self.hub.clients.values()

        def say(text: str) -> list[str]:
            person.say(text)
            return person.read()

        denied = "! permission denied: publish in lobby"
        person.read()
        self.assertEqual(say("1"), [denied])
        self.hub.identify(client, Identity("ada"))
        self.assertEqual(say("2"), [f"* {person.address} is now ada", "ada: 2"])
        self.assertEqual(say("3"), ["ada: 3"])
        self.hub.identify(client, ANONYMOUS)
        self.assertEqual(say("4"), [f"* ada is now {person.address}", denied])

    def test_a_new_name_changes_no_right(self) -> None:
        person = self.server.line_client()
        self.server.settle()
        (client,) = self.hub.clients.values()
        self.hub.identify(client, Identity("ada"))
        person.say("1", "/nick ada", "2")
        self.assertEqual(person.read()[-1], "ada: 2")
        self.hub.identify(client, ANONYMOUS)
        results: list[Any] = []
        self.hub.door.publish(client, "lobby", Data.of_text("3"), results.append)
        self.assertIs(results[0].reason, PERMISSION_DENIED)


class CapabilityTests(Case):
    """Rights that a token gives, whatever the options of the channel say."""

    def test_each_action(self) -> None:
        closed = ChannelOptions(
            allow_subscribe_for_client=False, allow_publish_for_client=False, allow_publish_for_subscriber=False,
            allow_presence_for_client=False, allow_presence_for_subscriber=False, allow_history_for_client=False,
            allow_history_for_subscriber=False,
        )  # fmt: skip
        self.serve(namespaces=Namespaces(closed))
        door = self.hub.door
        asks: dict[Action, Any] = {
            Action.PUBLISH: lambda caller, channel, done: door.publish(caller, channel, Data.of_text("x"), done),
            Action.PRESENCE: door.presence,
            Action.HISTORY: door.history,
            Action.SUBSCRIBE: lambda caller, channel, done: door.check(caller, Action.SUBSCRIBE, channel, done),
        }
        for given in Action:
            caller = self.hub.request("10.0.0.1", "10.0.0.1:1")
            caller.identify(Identity("ada", capabilities=(Capability("news:", True, frozenset({given})),)))
            for action, ask in asks.items():
                for channel in ("news:a", "other"):
                    results: list[Any] = []
                    ask(caller, channel, results.append)
                    refused = isinstance(results[0], CommandError)
                    self.assertIs(refused, (action, channel) != (given, "news:a"), (given, action, channel))


class HistoryTests(Case):
    """A limited history asks the broker for that page, and for no more."""

    def setUp(self) -> None:
        self.serve(api_key="key", history_size=100, anonymous="yes")
        self.hub.gate.verifier = Users()
        for number in range(50):
            self.hub.publish("c", Data.of_text(str(number)), Info("x"), lambda position: None)

    def handed_out(self) -> list[int]:
        found, self.broker.handed_out = self.broker.handed_out, []
        return found

    def test_chat(self) -> None:
        person = self.server.line_client()
        person.say("/join c")
        person.read()
        self.handed_out()
        person.say("/history 3")
        self.assertEqual([each.rpartition(" ")[2] for each in person.read()], ["47", "48", "49"])
        self.assertEqual(self.handed_out(), [3])

    def test_centrifugo(self) -> None:
        program = Program(self.server)
        found = program.ask("history", {"channel": "c", "limit": 4, "reverse": True})["history"]["publications"]
        self.assertEqual([each["data"] for each in found], ["49", "48", "47", "46"])
        since = {"offset": 10, "epoch": ""}
        found = program.ask("history", {"channel": "c", "limit": 2, "since": since})["history"]["publications"]
        self.assertEqual([each["data"] for each in found], ["10", "11"])
        self.assertEqual(program.ask("history", {"channel": "c"})["history"]["publications"], [])
        self.assertEqual(self.handed_out(), [4, 2, 0])

    def test_the_server_api_and_programs(self) -> None:
        results: list[Any] = []
        ServerAPI(self.hub).history("c", results.append, limit=5)
        self.hub.history("c", results.append, limit=6, reverse=True)
        self.assertEqual([len(each.publications) for each in results], [5, 6])
        self.assertEqual(self.handed_out(), [5, 6])

    def test_a_position_alone_takes_no_publication(self) -> None:
        self.assertEqual(self.server.http_client().get("/channels/c").json()["offset"], 50)
        self.server.line_client().say("/join c")
        self.server.settle()
        self.assertEqual(set(self.handed_out()), {0})


class GrpcHistoryTests(kit.Case):
    def test_calls(self) -> None:
        clock, made = FakeClock(), Settings()
        broker = CountingBroker(clock, made)
        self.server = MemoryServer(hub=Hub(clock, made, broker))
        self.services = kit.services(self.hub)
        for number in range(20):
            self.publish("c", str(number))
        request = kit.pb.HistoryRequest(channel="c", limit=3)
        found = self.answer("History", request, kit.pb.HistoryResponse)
        self.assertEqual([each.data for each in found.publications], ['"17"', '"18"', '"19"'])
        self.assertEqual(broker.handed_out, [3])
