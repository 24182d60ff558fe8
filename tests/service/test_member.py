"""Local members: the program's own clients, on a clock that the tests move."""

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from longconn import Data, Hub, Info, LocalMember, LongConnService, Settings
from longconn.core.broker import Done
from longconn.core.client import Client
from longconn.core.disconnects import CLOSED, FORCE_DISCONNECT, SHUTDOWN, SLOW, Disconnect
from longconn.core.errors import CommandError
from longconn.core.memory_broker import MemoryBroker
from longconn.core.publication import History, Join, Leave, Position, Publication, Rename
from longconn.server_api.operations import ServerAPI, Target
from longconn.service.awaitable import AwaitableDeferred
from longconn.service.member import Lost, MemberClosed, MemberSubscription
from longconn.testing import FakeClock, MemoryServer
from tests.service.test_service import LOOPBACK


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.make()

    def make(self, **settings: Any) -> None:
        """A server with these settings in place of the one before."""
        self.server = MemoryServer(Settings(**settings))
        self.addCleanup(self.server.stop)
        self.hub: Hub = self.server.hub
        self.member = LocalMember(self.hub, "bot")
        self.heard: list[str] = []

    def settle(self) -> None:
        self.server.settle()

    def publish(self, text: str, channel: str = "lobby", keep: bool = True) -> None:
        self.hub.publish(channel, Data.of_text(text), Info("ann"), lambda result: None, keep)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
        """Let Twisted drive a coroutine."""
        return Deferred.fromCoroutine(coroutine)

    async def read(self, subscription: MemberSubscription[Any]) -> None:
        """Hear all events, as words."""
        async for event in subscription:
            self.heard.append(word(event))

    def listen(self, channel: str = "lobby", **options: Any) -> MemberSubscription[Any]:
        """Subscribe with a callback that hears all events."""
        return self.member.subscribe(channel, lambda event: self.heard.append(word(event)), **options)


def word(event: Any) -> str:
    match event:
        case Publication():
            return str(event.data.text)
        case Lost():
            return f"lost:{event.position.offset}-{event.resumed.offset}"
        case Join():
            return f"+{event.info.name}"
        case Leave():
            return f"-{event.info.name}"
        case Rename():
            return f"{event.old}>{event.info.name}"
    raise AssertionError(event)


class ClientTests(Case):
    def test_others_see_it_join_speak_and_leave(self) -> None:
        ann = self.server.line_client()
        ann.say("/nick ann")
        ann.read()
        self.member.subscribe("lobby")
        self.successResultOf(self.member.publish("lobby", "hello"))
        self.settle()
        self.member.leave("lobby")
        self.settle()
        self.assertEqual(ann.read(), ["* bot joined", "bot: hello", "* bot left"])

    def test_it_counts_as_a_client_with_a_name(self) -> None:
        self.assertEqual([each.name for each in self.hub.clients.values()], ["bot"])
        self.assertEqual([*self.hub.clients], [self.member.id])
        with self.assertRaises(CommandError) as raised:
            LocalMember(self.hub, "BOT")
        self.assertEqual(raised.exception.reason.key, "name_taken")
        with self.assertRaises(CommandError) as raised:
            LocalMember(self.hub, "a b")
        self.assertEqual(raised.exception.reason.key, "bad_name")
        self.assertEqual(len(self.hub.clients), 1)

    def test_the_limit_of_clients_applies(self) -> None:
        self.make(max_connections=1)
        with self.assertRaises(CommandError) as raised:
            LocalMember(self.hub, "other")
        self.assertEqual(raised.exception.reason.key, "limit_exceeded")

    def test_a_closed_member_leaves_its_name(self) -> None:
        self.member.close()
        self.assertEqual(self.hub.clients, {})
        LocalMember(self.hub, "bot")
        self.member.close()  # a second call has no effect
        self.assertEqual(len(self.hub.clients), 1)


class RequestTests(Case):
    def test_publish_takes_text_and_data(self) -> None:
        self.listen()
        first = self.successResultOf(self.member.publish("lobby", "one"))
        second = self.successResultOf(self.member.publish("lobby", Data.of_value({"ä": [1.5, None]})))
        self.assertEqual((second.epoch, second.offset), (first.epoch, first.offset + 1))
        found = self.successResultOf(self.member.history("lobby"))
        self.assertEqual([each.data.json for each in found.publications], [b'"one"', '{"ä":[1.5,null]}'.encode()])
        self.assertEqual({each.info.client for each in found.publications}, {self.member.id})

    def test_values_that_json_cannot_express(self) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        for value in ({1}, float("nan"), "\ud800", {"a": "\ud800"}, deep):
            with self.assertRaises(CommandError) as raised:
                Data.of_value(value)
            self.assertEqual(raised.exception.reason.key, "bad_data")
        while deep:
            deep = deep.pop()

    def test_presence_and_pages_of_history(self) -> None:
        self.member.subscribe("lobby")
        for text in ("one", "two", "three"):
            self.publish(text)
        self.assertEqual([each.name for each in self.successResultOf(self.member.presence("lobby"))], ["bot"])
        all_of_it = self.successResultOf(self.member.history("lobby"))
        page: History = self.successResultOf(
            self.member.history("lobby", since=Position(all_of_it.position.epoch, 1), limit=1)
        )
        self.assertEqual([each.data.text for each in page.publications], ["two"])

    def test_refusals_fail_the_deferred(self) -> None:
        for request in (
            self.member.publish("a b", "text"),
            self.member.publish("lobby", "\ud800"),
            self.member.presence("a b"),
            self.member.history("a b"),
        ):
            self.failureResultOf(request, CommandError)

    def test_a_closed_member_may_ask_for_nothing(self) -> None:
        self.member.close()
        for request in (self.member.publish("lobby", "x"), self.member.presence("lobby"), self.member.history("lobby")):
            self.assertIs(self.failureResultOf(request, MemberClosed).value.disconnect, CLOSED)
        self.failureResultOf(self.start(self.read(self.member.subscribe("lobby"))), MemberClosed)

    def test_rights_and_rates_do_not_apply(self) -> None:
        self.make(publish_rate=1, publish_burst=1, publish_bytes=1, max_subscriptions=1, channel_rate=1, max_message=1)
        self.listen("#1,2")  # a channel of the users 1 and 2
        for number in range(300):
            self.listen(f"room-{number}")
            self.successResultOf(self.member.publish(f"room-{number}", f"text {number}"))
        self.settle()
        self.assertEqual(len(self.heard), 300)
        self.assertEqual(len(self.hub.channels), 301)


class CallbackTests(Case):
    def test_publications_come_in_order_at_the_end_of_the_turn(self) -> None:
        self.listen()
        self.publish("one")
        self.publish("two")
        self.assertEqual(self.heard, [])
        self.server.clock.turn()
        self.assertEqual(self.heard, ["one", "two"])

    def test_a_callback_runs_after_all_channels_have_sent(self) -> None:
        """What a callback publishes, be it much, does not overtake what others are yet to be sent."""
        ann = self.server.line_client()
        ann.read()

        def answer(publication: Publication) -> None:
            if publication.info.name != "bot":
                self.member.publish("lobby", "x" * 70_000)

        # Its wire format is older in the channel than that of the second client.
        self.member.subscribe("lobby", answer)
        ben = self.server.websocket_client()
        ben.read()
        self.publish("question")
        self.settle()
        for reader in (ann, ben):
            texts = [each.partition(": ")[2][:8] for each in reader.read() if ": " in each]
            self.assertEqual(texts, ["question", "xxxxxxxx"])

    def test_a_backlog_comes_first(self) -> None:
        for text in ("one", "two", "three"):
            self.publish(text)
        position = self.successResultOf(self.member.history("lobby", limit=0)).position
        subscription = self.listen(since=Position(position.epoch, 1))
        self.publish("four")
        self.assertEqual(self.heard, [])
        self.settle()
        self.assertEqual(self.heard, ["two", "three", "four"])
        self.assertEqual(subscription.position, Position(position.epoch, 4))

    def test_a_lost_position_is_told_first(self) -> None:
        self.make(history_size=2)
        for text in ("one", "two", "three", "four"):
            self.publish(text)
        self.listen(since=Position("", 1))
        self.settle()
        self.assertEqual(self.heard, ["lost:1-2", "three", "four"])

    def test_a_lost_position_without_history(self) -> None:
        subscription = self.listen(since=Position("other", 7))
        self.settle()
        self.assertEqual(self.heard, ["lost:7-0"])
        self.assertEqual(subscription.position, self.successResultOf(self.member.history("lobby")).position)

    def test_joins_and_leaves_if_asked_for(self) -> None:
        quiet = LocalMember(self.hub, "quiet")
        silence: list[Any] = []
        quiet.subscribe("lobby", silence.append)
        self.settle()
        self.listen(join_leave=True)
        self.settle()
        other = LocalMember(self.hub, "other")
        other.subscribe("lobby")
        self.settle()
        other.close()
        self.settle()
        self.assertEqual(self.heard, ["+other", "-other"])  # its own join is not told
        self.assertEqual(silence, [])

    def test_an_exception_ends_the_subscription_and_nothing_else(self) -> None:
        other = LocalMember(self.hub, "other")
        others: list[str] = []

        def broken(publication: Publication) -> None:
            self.heard.append(f"broken by {publication.data.text}")
            raise ValueError("the callback")

        self.member.subscribe("lobby", broken)
        self.listen("news")
        other.subscribe("lobby", lambda publication: others.append(str(publication.data.text)))
        with self.assertLogs("longconn", logging.ERROR) as logs:
            for text in ("one", "two"):
                self.publish(text)
                self.publish(text, "news")
            self.settle()
        self.assertIn("the callback", logs.output[0])
        self.assertEqual(self.heard, ["broken by one", "one", "two"])
        self.assertEqual(others, ["one", "two"])
        self.assertEqual([each.name for each in self.hub.presence("lobby")], ["other"])
        self.assertIsNone(self.member.disconnect)

    def test_a_callback_that_leaves_is_not_called_again(self) -> None:
        def once(publication: Publication) -> None:
            self.heard.append(str(publication.data.text))
            self.member.leave("lobby")

        self.member.subscribe("lobby", once)
        self.publish("one")
        self.publish("two")
        self.settle()
        self.assertEqual(self.heard, ["one"])

    def test_what_came_before_leaving_and_subscribing_again_is_not_given(self) -> None:
        self.listen()
        self.publish("one")
        self.assertTrue(self.member.leave("lobby"))
        self.assertFalse(self.member.leave("lobby"))
        self.listen()
        self.publish("two")
        self.settle()
        self.assertEqual(self.heard, ["two"])

    def test_a_refused_subscribe_is_logged_and_told(self) -> None:
        with self.assertLogs("longconn", logging.ERROR):
            refused = self.listen("a b")
        self.failureResultOf(self.start(refused.subscribed()), CommandError)
        self.successResultOf(self.start(self.listen("lobby").subscribed()))

    def test_a_second_subscription_of_a_channel_is_refused_and_the_first_stays(self) -> None:
        self.listen()
        second = self.start(self.read(self.member.subscribe("lobby")))
        self.settle()
        self.assertEqual(self.failureResultOf(second, CommandError).value.reason.key, "already_subscribed")
        self.publish("one")
        self.settle()
        self.assertEqual(self.heard, ["one"])

    def test_much_in_one_turn_is_not_slow(self) -> None:
        self.make(send_queue=1000)
        self.listen()
        for _ in range(10):
            self.publish("x" * 500)
        self.settle()
        self.assertEqual(len(self.heard), 10)

    def test_a_callback_does_not_iterate(self) -> None:
        self.failureResultOf(self.start(self.read(self.listen())), TypeError)


class IteratorTests(Case):
    def test_publications_come_in_order_at_the_end_of_the_turn(self) -> None:
        self.publish("before")
        subscription = self.member.subscribe("lobby")
        self.settle()
        self.assertEqual(subscription.position, self.successResultOf(self.member.history("lobby")).position)
        reading = self.start(self.read(subscription))
        self.publish("one")
        self.publish("two")
        self.assertEqual(self.heard, [])
        self.server.clock.turn()
        self.assertEqual(self.heard, ["one", "two"])
        self.assertNoResult(reading)

    def test_it_goes_on_from_a_position(self) -> None:
        for text in ("one", "two"):
            self.publish(text)
        epoch = self.successResultOf(self.member.history("lobby")).position.epoch
        subscription = self.member.subscribe("lobby", since=Position(epoch, 1))
        self.assertEqual(subscription.position, Position(epoch, 1))
        self.start(self.read(subscription))
        self.settle()
        self.publish("three")
        self.publish("fleeting", keep=False)  # has no offset
        self.settle()
        self.assertEqual(self.heard, ["two", "three", "fleeting"])
        self.assertEqual(subscription.position, Position(epoch, 3))

    def test_unread_data_is_bounded(self) -> None:
        self.make(send_queue=1000)
        subscription = self.member.subscribe("lobby")
        other = self.start(self.read(self.member.subscribe("news")))
        self.publish("x" * 400)
        self.settle()
        self.publish("x" * 400)
        self.settle()
        self.assertIsNone(self.member.disconnect)
        with self.assertLogs("longconn", logging.WARNING) as logs:
            self.publish("x" * 400)
            self.settle()
        self.assertIn("3008", logs.output[0])
        self.assertIs(self.member.disconnect, SLOW)
        # What was unread is dropped: not even an event comes before the error.
        for reading in (self.start(self.read(subscription)), other):
            self.assertIn("3008", str(self.failureResultOf(reading, MemberClosed).value))
        self.assertEqual(self.heard, [])
        self.assertEqual((self.hub.waiting, self.hub.clients), (set(), {}))

    def test_events_without_data_are_bounded(self) -> None:
        self.make(send_queue=1000)
        self.member.subscribe("lobby", join_leave=True)
        for _ in range(20):
            other = LocalMember(self.hub, "other")
            other.subscribe("lobby")
            self.settle()
            other.close()
            self.settle()
        self.assertIs(self.member.disconnect, SLOW)

    def test_what_is_read_makes_room(self) -> None:
        self.make(send_queue=1000)
        subscription = self.member.subscribe("lobby")
        for _ in range(10):
            self.publish("x" * 800)
            self.settle()
            self.assertEqual(len(self.hub.waiting), 1)
            self.successResultOf(self.start(subscription.__anext__()))
            self.assertEqual(self.hub.waiting, set())
        self.assertIsNone(self.member.disconnect)

    def test_a_backlog_does_not_count(self) -> None:
        self.make(send_queue=1000)
        for _ in range(10):
            self.publish("x" * 800)
        epoch = self.successResultOf(self.member.history("lobby")).position.epoch
        subscription = self.member.subscribe("lobby", since=Position(epoch, 0))
        self.settle()
        self.start(self.read(subscription))
        self.assertEqual(len(self.heard), 10)
        self.assertIsNone(self.member.disconnect)
        self.assertEqual(self.hub.waiting, set())

    def test_nothing_of_a_batch_that_is_too_much_is_given(self) -> None:
        self.make(send_queue=1000)
        subscription = self.member.subscribe("lobby")
        for _ in range(4):
            self.publish("x" * 400)
        self.settle()
        self.failureResultOf(self.start(self.read(subscription)), MemberClosed)
        self.assertEqual(self.heard, [])

    def test_the_total_of_all_clients_counts_it(self) -> None:
        self.make(send_queue_total=1000)
        self.member.subscribe("lobby")
        self.publish("x" * 1200)
        self.settle()
        self.assertIs(self.member.disconnect, SLOW)

    def test_two_readers_share(self) -> None:
        subscription = self.member.subscribe("lobby")
        first, second = self.start(self.read(subscription)), self.start(self.read(subscription))
        self.publish("one")
        self.settle()
        self.publish("two")
        self.settle()
        self.assertEqual(self.heard, ["one", "two"])
        self.member.leave("lobby")
        self.settle()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_a_reader_that_is_cancelled_takes_nothing_away(self) -> None:
        subscription = self.member.subscribe("lobby")
        for _ in range(3):
            reading = self.start(self.read(subscription))
            reading.cancel()
            self.failureResultOf(reading, CancelledError)
        self.assertEqual(subscription._waiting, {})  # a poll with a time-out must not make it grow
        self.start(self.read(subscription))
        self.publish("one")
        self.settle()
        self.assertEqual(self.heard, ["one"])

    def test_a_reader_may_cancel_another(self) -> None:
        subscription = self.member.subscribe("lobby")

        async def first() -> None:
            await subscription.__anext__()
            second.cancel()

        self.start(first())
        second = self.start(self.read(subscription))
        self.publish("one")
        self.settle()
        self.failureResultOf(second, CancelledError)


class EndTests(Case):
    """How an iteration ends, by the reason."""

    def end(self, close: Callable[[], object]) -> Deferred[Any]:
        reading = self.start(self.read(self.member.subscribe("lobby")))
        self.publish("last")
        close()
        self.assertNoResult(reading)  # not within the call
        self.settle()
        return reading

    def test_the_member_leaves(self) -> None:
        self.successResultOf(self.end(lambda: self.member.leave("lobby")))
        self.assertEqual(self.heard, [])

    def test_the_member_closes(self) -> None:
        self.successResultOf(self.end(self.member.close))
        self.assertEqual(self.heard, [])
        self.assertIs(self.successResultOf(self.member.closed()), CLOSED)

    def test_the_member_closes_with_unread_events(self) -> None:
        subscription = self.member.subscribe("lobby")
        self.publish("unread")
        self.settle()
        self.member.close()
        self.successResultOf(self.start(self.read(subscription)))
        self.assertEqual((self.heard, self.hub.waiting), ([], set()))

    def test_the_member_leaves_before_it_is_subscribed(self) -> None:
        class SlowBroker(MemoryBroker):
            def subscribe(self, channel: str, done: Done[None]) -> None:
                """Never answer."""

        clock = FakeClock()
        hub = Hub(clock, Settings(), SlowBroker(clock, Settings()))
        self.addCleanup(hub.stop)
        subscription = LocalMember(hub, "bot").subscribe("lobby")
        subscribed = self.start(subscription.subscribed())
        self.assertNoResult(subscribed)
        self.successResultOf(self.start(subscription.aclose()))
        clock.settle()
        self.assertEqual(self.failureResultOf(subscribed, CommandError).value.reason.key, "not_subscribed")

    def test_the_server_api_closes_it(self) -> None:
        api = ServerAPI(self.hub)
        closed = self.member.closed()
        reading = self.end(lambda: api.disconnect(Target("", client=self.member.id), FORCE_DISCONNECT))
        error = self.failureResultOf(reading, MemberClosed).value
        self.assertEqual(
            (error.disconnect, str(error)), (FORCE_DISCONNECT, "member bot is closed: force disconnect (3503)")
        )
        self.assertIs(self.successResultOf(closed), FORCE_DISCONNECT)

    def test_what_came_before_the_server_closed_it_is_read_first(self) -> None:
        subscription = self.member.subscribe("lobby")
        self.publish("last")
        self.settle()
        self.client().close(FORCE_DISCONNECT)
        self.failureResultOf(self.start(self.read(subscription)), MemberClosed)
        self.assertEqual(self.heard, ["last"])
        self.assertEqual(self.hub.waiting, set())

    def test_shutdown_ends_the_loop(self) -> None:
        self.successResultOf(self.end(lambda: self.client().close(SHUTDOWN)))
        self.assertIs(self.member.disconnect, SHUTDOWN)

    def test_the_hub_stops(self) -> None:
        """Readers hear of the end at the latest within `Hub.stop`."""
        for close in (lambda: None, lambda: self.client().close(SHUTDOWN)):
            self.make()
            reading = self.start(self.read(self.member.subscribe("lobby")))
            closed = self.member.closed()
            close()
            self.hub.stop()
            self.successResultOf(reading)
            self.assertIs(self.successResultOf(closed), SHUTDOWN)
            self.assertEqual(
                (self.hub.clients, self.hub.stop_watchers, self.server.clock.getDelayedCalls()), ({}, set(), [])
            )

    def test_a_loop_that_breaks_goes_on_in_another(self) -> None:
        subscription = self.member.subscribe("lobby")

        async def one() -> None:
            async for event in subscription:
                self.heard.append(word(event))
                break

        for text in ("one", "two"):
            self.publish(text)
        self.settle()
        self.successResultOf(self.start(one()))
        self.successResultOf(self.start(one()))
        self.assertEqual(self.heard, ["one", "two"])

    def test_aclose_leaves(self) -> None:
        async def one() -> None:
            async with aclosing(self.member.subscribe("lobby")) as lobby:
                async for event in lobby:
                    self.heard.append(word(event))
                    break

        reading = self.start(one())
        for text in ("one", "two"):
            self.publish(text)
        self.settle()
        self.successResultOf(reading)
        self.assertEqual((self.hub.presence("lobby"), self.hub.waiting), ([], set()))

    def test_aclose_of_an_earlier_subscription_does_not_end_the_present_one(self) -> None:
        earlier = self.member.subscribe("lobby")
        self.member.leave("lobby")
        self.listen()
        self.successResultOf(self.start(earlier.aclose()))
        self.publish("one")
        self.settle()
        self.assertEqual(self.heard, ["one"])

    def test_nothing_is_left_in_memory(self) -> None:
        """Not even reference cycles, for the collector to find."""

        class Owner:
            def __init__(self, hub: Hub) -> None:
                self.member = LocalMember(hub, "owner")

            def on_publication(self, publication: Publication) -> None:
                pass

        def use(close: Callable[[LocalMember], object]) -> list[Any]:
            owner = Owner(self.hub)
            owner.member.subscribe("lobby", owner.on_publication)
            subscription = owner.member.subscribe("news")
            reading = self.start(self.read(subscription))
            self.publish("one")
            self.settle()
            close(owner.member)
            self.settle()
            reading.addErrback(lambda failure: None)
            return [weakref.ref(each) for each in (owner, owner.member, subscription, owner.member._outlet)]

        def disconnect(member: LocalMember) -> None:
            self.hub.clients[member.id].close(FORCE_DISCONNECT)

        self.addCleanup(gc.enable)
        gc.disable()
        for close in (LocalMember.close, disconnect):
            self.assertEqual([each() for each in use(close)], [None] * 4)

    def client(self) -> Client:
        return self.hub.clients[self.member.id]


class ServiceTests(SynchronousTestCase):
    def test_a_shutdown_closes_it_in_time(self) -> None:
        reactor = MemoryReactorClock()
        service = LongConnService(reactor, Settings(shutdown_timeout=5), port=[LOOPBACK])
        service.startService()
        member = LocalMember(service.hub, "bot")

        async def read() -> Disconnect | None:
            async for _ in member.subscribe("lobby"):
                pass
            return member.disconnect

        reading = Deferred.fromCoroutine(read())
        stopped = service.stopService()
        while not stopped.called and reactor.seconds() < 5:
            reactor.advance(0.1)
        self.successResultOf(stopped)
        self.assertLess(reactor.seconds(), 1)
        self.assertIs(self.successResultOf(reading), SHUTDOWN)
        self.assertEqual(reactor.getDelayedCalls(), [])


class AwaitableTests(Case):
    """Under an event loop of asyncio, both drivers of coroutines."""

    def drive(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a coroutine as a Task, and the server's turns beside it."""

        async def run() -> Any:
            task = asyncio.ensure_future(main())
            for _ in range(100):
                if task.done():
                    break
                await asyncio.sleep(0)
                self.settle()
            task.cancel()
            return await task

        return asyncio.run(run())

    def test_a_task_iterates_and_asks(self) -> None:
        async def main() -> int:
            position = await self.member.publish("lobby", "before")
            lobby = self.member.subscribe("lobby", since=Position(position.epoch, 0))
            await lobby.subscribed()
            asyncio.get_running_loop().call_soon(self.publish, "after")
            async for event in lobby:
                self.heard.append(word(event))
                if event.data.text == "after":
                    self.member.leave("lobby")
            return len(await self.member.presence("lobby"))

        self.assertEqual(self.drive(main), 0)
        self.assertEqual(self.heard, ["before", "after"])

    def test_a_task_is_raised_errors(self) -> None:
        async def main() -> None:
            asyncio.get_running_loop().call_soon(self.hub.clients[self.member.id].close, FORCE_DISCONNECT)
            await self.read(self.member.subscribe("lobby"))

        self.assertRaises(MemberClosed, self.drive, main)

    def test_a_task_starts_a_coroutine_that_twisted_drives(self) -> None:
        """There is a current Task, and yet it is not the driver."""

        async def main() -> None:
            reading = self.start(self.read(self.member.subscribe("lobby")))
            self.publish("one")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.member.leave("lobby")
            await reading.asFuture(asyncio.get_running_loop())

        self.drive(main)
        self.assertEqual(self.heard, ["one"])

    def test_a_task_that_is_cancelled_takes_nothing_away(self) -> None:
        async def main() -> None:
            lobby = self.member.subscribe("lobby")
            for _ in range(3):
                with self.assertRaises(asyncio.TimeoutError):
                    await asyncio.wait_for(lobby.__anext__(), 0.001)
            self.publish("one")
            self.heard.append(word(await lobby.__anext__()))

        async def run() -> None:
            task = asyncio.ensure_future(main())
            while not task.done():
                await asyncio.sleep(0.001)
                self.settle()
            await task

        asyncio.run(run())
        self.assertEqual(self.heard, ["one"])

    def test_cancelling_a_task_cancels_the_deferred(self) -> None:
        cancelled: list[Any] = []

        async def main() -> None:
            await AwaitableDeferred(cancelled.append)

        self.assertRaises(asyncio.CancelledError, self.drive, main)
        self.assertEqual(len(cancelled), 1)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])  # no unhandled error in a Deferred
