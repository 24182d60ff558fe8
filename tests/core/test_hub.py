"""The hub: names, limits, channels, rates, and the total that may wait."""

import logging
from typing import Any

from longconn.core.client import Caller
from longconn.core.disconnects import SLOW
from longconn.core.errors import CommandError
from longconn.core.publication import Data, Info
from longconn.core.settings import CHANNEL_BURST
from tests.core.common import ADA, Case, Outlet


class ClientTests(Case):
    def test_ids_cannot_be_guessed_and_names_are_addresses_at_first(self) -> None:
        clients = [self.connect() for _ in range(100)]
        self.assertEqual(len({each.id for each in clients}), 100)
        self.assertTrue(all(len(each.id) >= 20 for each in clients))
        self.assertEqual(clients[0].name, "guest-1")

    def test_guests_are_numbered(self) -> None:
        self.make(names="guest")
        self.assertEqual([self.connect().name for _ in range(3)], ["guest-1", "guest-2", "guest-3"])
        self.assertEqual(self.connect("ada").name, "ada")

    def test_the_limit_of_clients(self) -> None:
        self.make(max_connections=2)
        ada = self.connect()
        self.connect()
        self.refused("limit_exceeded", self.connect)
        ada.gone()
        ada.gone()
        self.connect()
        self.refused("limit_exceeded", self.connect)

    def test_the_limit_of_an_address(self) -> None:
        self.make(max_connections_per_ip=2)
        ada = self.connect(host="192.0.2.7")
        self.connect(host="192.0.2.7")
        self.refused("limit_exceeded", self.connect, None, "192.0.2.7")
        self.connect(host="192.0.2.8")
        for _ in range(5):
            self.connect(host="")  # UNIX sockets have no address
        ada.gone()
        self.connect(host="192.0.2.7")

    def test_a_name_that_is_refused_leaves_nothing_behind(self) -> None:
        self.make(max_connections_per_ip=1)
        self.connect("ada", host="192.0.2.7")
        self.refused("name_taken", self.connect, "ada", "192.0.2.8")
        self.refused("bad_name", self.connect, "a b", "192.0.2.8")
        self.assertEqual(len(self.hub.clients), 1)
        self.connect("bo", host="192.0.2.8")

    def test_comings_and_goings_are_logged_with_the_address(self) -> None:
        with self.assertLogs("longconn", logging.INFO) as logs:
            self.connect("ada").gone()
        self.assertEqual(
            [each.getMessage() for each in logs.records],
            ["test client ada from 192.0.2.1:1000 came", "test client ada from 192.0.2.1:1000 left"],
        )


class NameTests(Case):
    def test_a_name_is_unique_in_every_spelling(self) -> None:
        self.connect("Ada")
        for name in ("Ada", "ada", "ADA", "\uff41\uff44\uff41"):
            self.refused("name_taken", self.connect, name)
            self.refused("name_taken", self.hub.claim, name)

    def test_a_name_is_free_again_when_its_owner_leaves_or_takes_another(self) -> None:
        ada = self.connect("ada")
        self.hub.rename(ada, "eve")
        bo = self.connect("ada")
        bo.gone()
        self.connect("ada")
        self.refused("name_taken", self.connect, "eve")

    def test_an_owner_may_respell_its_name(self) -> None:
        ada = self.connect("ada")
        self.hub.rename(ada, "ADA")
        self.assertEqual(ada.name, "ADA")
        self.refused("name_taken", self.connect, "ada")

    def test_a_refused_name_changes_nothing(self) -> None:
        self.connect("bo")
        ada = self.connect("ada")
        self.refused("name_taken", self.hub.rename, ada, "bo")
        self.refused("bad_name", self.hub.rename, ada, "127.0.0.1")
        self.assertEqual(ada.name, "ada")
        self.refused("name_taken", self.connect, "ada")

    def test_what_is_published_after_has_the_new_name(self) -> None:
        ada = self.connect("ada")
        self.hub.rename(ada, "eve")
        self.assertEqual(ada.info, Info("eve", ada.id, ""))


class ChannelTests(Case):
    def test_bad_channels_are_refused_everywhere(self) -> None:
        ada = self.connect()
        done = self.answers.append
        for call in (
            lambda: self.hub.door.subscribe(ada, "a b", self.words, done),
            lambda: self.hub.door.publish(ada, "a b", Data.of_text("x"), done),
            lambda: self.hub.history("a b", done),
            lambda: self.hub.presence("a b"),
            lambda: self.hub.door.presence(ada, "a b", done),
        ):
            self.refused("bad_channel", call)
        self.assertEqual((self.answers, self.hub.channels), ([], {}))

    def test_twice_in_one_channel_and_out_of_one_that_one_is_not_in(self) -> None:
        ada = self.subscriber("ada")
        self.refused("already_subscribed", self.hub.door.subscribe, ada, "room", self.words, self.answers.append)
        self.assertFalse(self.hub.door.unsubscribe(ada, "other"))
        self.assertTrue(self.hub.door.unsubscribe(ada, "room"))
        self.assertFalse(self.hub.door.unsubscribe(ada, "room"))

    def test_the_limit_of_one_client(self) -> None:
        self.make(max_subscriptions=3)
        ada = self.connect()
        for channel in "abc":
            self.hub.door.subscribe(ada, channel, self.words, self.answers.append)
        self.refused("limit_exceeded", self.hub.door.subscribe, ada, "d", self.words, self.answers.append)
        self.hub.door.unsubscribe(ada, "a")
        self.hub.door.subscribe(ada, "d", self.words, self.answers.append)

    def test_the_limit_of_channels(self) -> None:
        self.make(max_channels=3)
        ada = self.connect()
        for channel in "abc":
            self.hub.door.subscribe(ada, channel, self.words, self.answers.append)
        self.refused("limit_exceeded", self.hub.door.subscribe, ada, "d", self.words, self.answers.append)
        bo = self.connect()
        self.hub.door.subscribe(bo, "a", self.words, self.answers.append)

    def names(self, channel: str, host: str) -> None:
        """Name a channel, as a request from an address does."""
        self.hub.door.history(self.hub.request(host, host), channel, self.answers.append)

    def test_an_address_makes_no_more_channels_than_its_rate(self) -> None:
        for number in range(CHANNEL_BURST):
            self.names(f"room-{number}", "192.0.2.7")
        self.refused("too_many_requests", self.names, "new", "192.0.2.7")
        self.names("room-0", "192.0.2.7")  # no new one
        self.names("new", "192.0.2.8")
        self.clock.advance(0.1)
        self.names("newer", "192.0.2.7")
        self.refused("too_many_requests", self.names, "newest", "192.0.2.7")
        self.assertEqual([each for each in self.answers if isinstance(each, CommandError)], [])

    def test_the_rate_can_be_off(self) -> None:
        self.make(channel_rate=0)
        for number in range(1_000):
            self.names(f"room-{number}", "192.0.2.7")
        self.assertEqual([each for each in self.answers if isinstance(each, CommandError)], [])

    def test_channels_met_are_not_remembered_without_a_bound(self) -> None:
        self.make(channel_rate=0, max_channels=10)
        for number in range(1_000):
            self.names(f"room-{number}", "192.0.2.7")
        self.assertLessEqual(len(self.hub.rates._known), 10)

    def test_presence_is_who_is_subscribed_now(self) -> None:
        ada, bo = self.subscriber("ada"), self.subscriber("bo", announced=False)
        self.assertEqual([each.name for each in self.hub.presence("room")], ["ada", "bo"])
        self.assertEqual(self.hub.presence("other"), [])
        ada.gone()
        self.hub.door.unsubscribe(bo, "room")
        self.assertEqual(self.hub.presence("room"), [])

    def test_an_empty_channel_leaves_nothing_on_the_hub(self) -> None:
        self.subscriber("ada").gone()
        self.assertEqual((self.hub.channels, self.hub.clients), ({}, {}))

    def test_nor_at_the_broker(self) -> None:
        came: list[Any] = []
        self.hub.on_publication = came.append  # type: ignore[method-assign]
        ada = self.subscriber("ada")
        self.publish("a")
        self.hub.door.unsubscribe(ada, "room")
        self.publish("b")
        self.subscriber("bo").gone()
        self.publish("c")
        self.assertEqual([each.data.text for each in came], ["a"])


class RateTests(Case):
    def publishes(self, caller: Caller, size: int = 1) -> float:
        return self.hub.door.publish(caller, "room", Data.of_text("x" * size), self.answers.append)

    def test_a_client_publishes_a_burst_and_then_at_its_rate(self) -> None:
        self.make(publish_rate=10, publish_burst=3)
        ada = self.connect()
        self.assertEqual([self.publishes(ada) for _ in range(3)], [0, 0, 0])
        self.assertAlmostEqual(self.publishes(ada), 0.1)
        self.assertEqual(len(self.answers), 3)
        self.assertEqual(self.publishes(self.connect()), 0)

    def test_bytes_count_too(self) -> None:
        self.make(publish_bytes=1_000)
        ada = self.connect()
        self.assertEqual(self.publishes(ada, 3_000), 0)
        self.assertAlmostEqual(self.publishes(ada), 1.001)

    def test_a_refused_publication_counts(self) -> None:
        self.make(publish_rate=10, publish_burst=1)
        ada = self.connect()
        self.refused("bad_channel", self.hub.door.publish, ada, "a b", Data.of_text("x"), self.answers.append)
        self.assertAlmostEqual(self.publishes(ada), 0.1)

    def test_requests_are_counted_by_address_and_refused(self) -> None:
        self.make(publish_rate=10, publish_burst=2, publish_bytes=1_000)
        for _ in range(2):
            self.assertEqual(self.publishes(self.hub.request("a", "a:1")), 0)
        error = self.refused("too_many_requests", self.publishes, self.hub.request("a", "a:2"))
        self.assertAlmostEqual(error.values["retry_after"], 0.1)
        self.publishes(self.hub.request("b", "b:1"), 5_000)
        error = self.refused("too_many_requests", self.publishes, self.hub.request("b", "b:1"))
        self.assertAlmostEqual(error.values["retry_after"], 3.001)

    def test_a_request_that_waits_is_told_for_how_long(self) -> None:
        self.make(publish_rate=10, publish_burst=1)
        bulk = self.hub.request("a", "a:1", waits=True)
        self.assertEqual(self.publishes(bulk), 0)
        self.assertAlmostEqual(self.publishes(bulk), 0.1)
        self.assertEqual(len(self.answers), 1)


class WaitingTests(Case):
    def test_over_the_total_the_largest_queue_goes(self) -> None:
        self.make(send_queue_total=100)
        outlets = [Queue(self.hub) for _ in range(3)]
        outlets[0].wait(30)
        outlets[1].wait(50)
        outlets[2].wait(20)
        self.assertEqual([each.closed for each in outlets], [[], [], []])
        outlets[0].wait(10)
        self.assertEqual([each.closed for each in outlets], [[], [SLOW], []])
        outlets[2].wait(40)
        self.assertEqual([each.closed for each in outlets], [[], [SLOW], []])

    def test_stop_leaves_no_delayed_call(self) -> None:
        self.subscriber("ada")
        self.publish("x")
        self.hub.wheel.set(Queue(self.hub), 10)
        self.hub.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_two_hubs_share_nothing(self) -> None:
        self.subscriber("ada")
        first = self.hub
        self.make()
        self.subscriber("ada")
        self.publish("x", info=ADA)
        self.clock.settle()
        self.assertEqual(len(first.clients), 1)
        answers: list[Any] = []
        first.history("room", answers.append)
        self.assertEqual(answers[0].publications, [])


class Queue(Outlet):
    """An outlet in which something waits."""

    def __init__(self, hub: Any) -> None:
        super().__init__()
        self.hub = hub
        self.queued = 0
        self.due = 0

    def wait(self, size: int) -> None:
        self.queued += size
        self.hub.waiting.add(self)
        self.hub.on_queued(self, size)

    def close(self, disconnect: Any) -> None:
        super().close(disconnect)
        self.hub.waiting.discard(self)
        amount, self.queued = self.queued, 0
        self.hub.on_queued(self, -amount)

    def on_due(self, now: float) -> None: ...
