"""Options by namespace, the rights that follow from them, and what the core does by them."""

from functools import partial
from itertools import product

from longconn.core.errors import CommandError
from longconn.core.identity import Granted, Identity
from longconn.core.memory_broker import MemoryBroker
from longconn.core.namespaces import (
    Action,
    ChannelOptions,
    Namespaces,
    allowed,
    limited_to,
    may_recover,
    personal_channel,
)
from longconn.core.publication import Data, Position
from longconn.core.settings import Settings
from tests.core.common import ADA, Case, position

SUBSCRIBE, PUBLISH, PRESENCE, HISTORY = Action.SUBSCRIBE, Action.PUBLISH, Action.PRESENCE, Action.HISTORY
LIMITED = ChannelOptions(allow_user_limited_channels=True)


class NamespaceTests(Case):
    def test_a_namespace_ends_at_the_first_colon(self) -> None:
        chat, news = ChannelOptions(presence=False), ChannelOptions(history_size=1)
        namespaces = Namespaces(ChannelOptions(join_leave=False), {"chat": chat, "news": news})
        for channel, options in (("chat:a", chat), ("chat:a:b", chat), ("chat:", chat), ("news:chat:a", news),
                                 ("chat", namespaces.plain), ("lobby", namespaces.plain)):  # fmt: skip
            self.assertIs(namespaces.options(channel), options, channel)

    def test_an_undefined_namespace_is_unknown(self) -> None:
        namespaces = Namespaces(named={"chat": ChannelOptions()})
        for channel in ("chats:a", "Chat:a", ":a", " chat:a"):
            self.refused("unknown_channel", namespaces.options, channel)

    def test_without_namespaces_every_channel_has_the_plain_options(self) -> None:
        plain = ChannelOptions(presence=False)
        self.assertIs(Namespaces(plain).options("whatever:a"), plain)

    def test_options_that_are_not_set_come_from_the_settings(self) -> None:
        given = Namespaces(named={"none": ChannelOptions(history_size=0), "day": ChannelOptions(history_ttl=86400)})
        made = Settings(
            history_size=7, history_ttl=60, token_hmac_secret_key="x", namespaces=given
        ).effective_namespaces()
        self.assertEqual((made.plain.history_size, made.plain.history_ttl), (7, 60))
        self.assertEqual((made.named["none"].history_size, made.named["none"].history_ttl), (0, 60))
        self.assertEqual((made.named["day"].history_size, made.named["day"].history_ttl), (7, 86400))
        self.assertIs(made.plain.allow_user_limited_channels, True)
        self.assertIs(Settings(namespaces=given).effective_namespaces().plain.allow_user_limited_channels, False)
        no = Namespaces(ChannelOptions(allow_user_limited_channels=False))
        closed = Settings(token_hmac_secret_key="x", namespaces=no)
        self.assertIs(closed.effective_namespaces().plain.allow_user_limited_channels, False)


class RightTests(Case):
    def test_everything_is_allowed_by_default(self) -> None:
        for action, user, subscribed in product(Action, ("", "42"), (False, True)):
            self.assertTrue(allowed(action, "room", ChannelOptions(), user, subscribed))

    def test_subscribing(self) -> None:
        anonymous_not = ChannelOptions(allow_subscribe_for_anonymous=False)
        nobody = ChannelOptions(allow_subscribe_for_client=False)
        for options, user, granted, expected in (
            (anonymous_not, "", False, False),
            (anonymous_not, "", True, True),
            (anonymous_not, "42", False, True),
            (nobody, "", False, False),
            (nobody, "42", False, False),
            (nobody, "42", True, True),
        ):
            self.assertIs(allowed(SUBSCRIBE, "room", options, user, granted=granted), expected)

    def test_three_options_for_each_other_action(self) -> None:
        # (for_client, for_subscriber, for_anonymous), user, subscribed: as Centrifugo's handler decides.
        for action, word in ((PUBLISH, "publish"), (PRESENCE, "presence"), (HISTORY, "history")):
            for client, subscriber, anonymous, user, subscribed in product(*[(False, True)] * 5):
                options = ChannelOptions(**{
                    f"allow_{word}_for_client": client,
                    f"allow_{word}_for_subscriber": subscriber,
                    f"allow_{word}_for_anonymous": anonymous,
                })  # fmt: skip
                expected = (user or anonymous) and (client or (subscriber and subscribed))
                found = allowed(action, "room", options, "42" if user else "", subscribed)
                self.assertIs(found, expected, f"{action} {options}")
                others = {PUBLISH, PRESENCE, HISTORY} - {action}
                self.assertTrue(all(allowed(each, "room", options) for each in others))

    def test_without_the_right_to_subscribe_a_client_may_publish_but_not_read(self) -> None:
        options = ChannelOptions(allow_subscribe_for_anonymous=False)
        for user, subscribed, reads in (("", False, False), ("", True, True), ("42", False, True)):
            for action in (PRESENCE, HISTORY):
                self.assertIs(allowed(action, "room", options, user, subscribed), reads)
            self.assertTrue(allowed(PUBLISH, "room", options, user, subscribed))
        self.assertTrue(allowed(HISTORY, "room", options, granted=Granted()))

    def test_recovery_needs_the_right_to_history_or_an_option(self) -> None:
        closed = {"allow_history_for_client": False, "allow_history_for_subscriber": False}
        self.assertTrue(may_recover("room", ChannelOptions(), ""))
        self.assertTrue(may_recover("room", ChannelOptions(allow_history_for_client=False), ""))
        self.assertFalse(may_recover("room", ChannelOptions(**closed), "42"))
        self.assertFalse(may_recover("room", ChannelOptions(allow_history_for_anonymous=False), ""))
        for name in ("allow_recovery", "force_recovery"):
            self.assertTrue(may_recover("room", ChannelOptions(**closed, **{name: True}), ""))


class UserChannelTests(Case):
    def test_user_ids_follow_the_last_boundary(self) -> None:
        for channel, users in (
            ("a#42", ["42"]),
            ("chat:a#1#42,43", ["42", "43"]),
            ("#42", ["42"]),
            ("a#", []),
            ("a#,42", ["42"]),
        ):
            self.assertEqual(limited_to(channel, LIMITED), users)
        self.assertIsNone(limited_to("a", LIMITED))
        self.assertIsNone(limited_to("a#42", ChannelOptions()))

    def test_other_users_may_do_nothing_in_a_limited_channel(self) -> None:
        for action, channel in product(Action, ("a#42", "a#41,42", "a#b#42")):
            self.assertTrue(allowed(action, channel, LIMITED, "42"))
            for user in ("", "4", "43", "41,42", "b"):
                self.assertFalse(allowed(action, channel, LIMITED, user), f"{action} {channel} {user}")
            # In any other channel they may.
            self.assertTrue(allowed(action, "a", LIMITED, "43"))

    def test_an_empty_user_id_matches_no_client(self) -> None:
        for action, channel in product(Action, ("a#", "a#,42", "#")):
            self.assertFalse(allowed(action, channel, LIMITED, ""))

    def test_the_users_of_a_limited_channel_need_no_other_right(self) -> None:
        options = ChannelOptions(allow_user_limited_channels=True, allow_subscribe_for_client=False)
        self.assertTrue(allowed(SUBSCRIBE, "a#42", options, "42"))
        self.assertFalse(allowed(SUBSCRIBE, "a", options, "42"))

    def test_a_token_opens_a_limited_channel(self) -> None:
        self.assertTrue(allowed(SUBSCRIBE, "a#42", LIMITED, "43", granted=Granted()))
        for action in (PUBLISH, PRESENCE, HISTORY):
            self.assertTrue(allowed(action, "a#42", LIMITED, "43", subscribed=True))

    def test_without_token_keys_the_boundary_has_no_meaning(self) -> None:
        for action in Action:
            self.assertTrue(allowed(action, "#dev", Settings().effective_namespaces().options("#dev")))

    def test_personal_channels(self) -> None:
        self.assertEqual(personal_channel("42"), "#42")
        self.assertEqual(personal_channel("42", "own"), "own:#42")
        for user in ("", "a,b", "a#b"):
            self.assertIsNone(personal_channel(user))


class HubTests(Case):
    """What the hub and its clients do by the options."""

    def use(self, **options: object) -> None:
        """A hub with a namespace `x` with these options; other channels have the defaults."""
        self.make(namespaces=Namespaces(named={"x": ChannelOptions(**options)}))

    def test_unknown_channels_are_refused_by_hub_and_client(self) -> None:
        self.use()
        client, door = self.connect(), self.hub.door
        for call, arguments in (
            (partial(door.subscribe, client), (self.words, self.answers.append)),
            (partial(door.publish, client), (Data.of_text("a"), self.answers.append)),
            (partial(door.history, client), (self.answers.append,)),
            (partial(door.presence, client), (self.answers.append,)),
            (self.hub.publish, (Data.of_text("a"), ADA, self.answers.append)),
            (self.hub.history, (self.answers.append,)),
            (self.hub.presence, ()),
        ):
            self.refused("unknown_channel", call, "y:a", *arguments)
        self.assertEqual((self.answers, self.hub.channels), ([], {}))

    def test_a_client_needs_the_right_but_the_program_does_not(self) -> None:
        self.use(allow_publish_for_anonymous=False, allow_history_for_client=False, allow_history_for_subscriber=False)
        client = self.subscriber(channel="x:a")
        self.refused("permission_denied", self.hub.door.publish, client, "x:a", Data.of_text("a"), self.answers.append)
        self.refused("permission_denied", self.hub.door.history, client, "x:a", self.answers.append)
        self.assertIsNotNone(self.publish("b", "x:a"))
        self.hub.history("x:a", self.answers.append)
        self.assertEqual([each.data.text for each in self.answers[-1].publications], ["b"])
        self.hub.identify(client, Identity("42"))
        self.hub.door.publish(client, "x:a", Data.of_text("c"), self.answers.append)
        self.assertEqual(position(self.answers[-1]).offset, 2)

    def test_publishing_for_subscribers(self) -> None:
        self.use(allow_publish_for_client=False)
        client = self.connect()
        self.refused("permission_denied", self.hub.door.publish, client, "x:a", Data.of_text("a"), self.answers.append)
        self.hub.door.subscribe(client, "x:a", self.words, self.answers.append)
        self.hub.door.publish(client, "x:a", Data.of_text("a"), self.answers.append)
        self.hub.door.unsubscribe(client, "x:a")
        self.refused("permission_denied", self.hub.door.publish, client, "x:a", Data.of_text("a"), self.answers.append)

    def test_a_refused_subscribe_leaves_nothing_behind(self) -> None:
        self.use(allow_subscribe_for_client=False)
        client = self.connect()
        self.refused("permission_denied", self.hub.door.subscribe, client, "x:a", self.words, self.answers.append)
        self.assertEqual((client.subscriptions, self.hub.channels), ({}, {}))
        self.hub.door.subscribe(client, "x:a", self.words, self.answers.append, granted=Granted())
        self.assertIn("x:a", client.subscriptions)

    def test_presence_that_is_off_is_not_available(self) -> None:
        self.use(presence=False)
        self.subscriber(channel="x:a")
        self.refused("not_available", self.hub.presence, "x:a")
        self.assertEqual(self.hub.presence("a"), [])

    def test_joins_and_leaves_that_are_not_announced(self) -> None:
        self.use(join_leave=False)
        ada = self.subscriber("ada", "x:a")
        bo = self.subscriber("bo", "x:a")
        self.hub.rename(bo, "bob")
        bo.gone()
        self.turn()
        self.assertEqual(self.read(ada), "")
        self.assertEqual(len(self.hub.presence("x:a")), 1)

    def test_no_recovery_without_the_right_to_history(self) -> None:
        self.use(allow_history_for_client=False, allow_history_for_subscriber=False)
        first = position(self.publish("a", "x:a"))
        last = position(self.publish("b", "x:a"))
        for since, recovered in ((first, False), (last, True), (Position("other", 2), False)):
            self.subscriber(channel="x:a", since=since)
            answer = self.answers[-1]
            self.assertEqual((answer.publications, answer.position, answer.recovered), ([], last, recovered))

    def test_recovery_by_the_option_without_the_right_to_history(self) -> None:
        self.use(allow_history_for_client=False, allow_history_for_subscriber=False, allow_recovery=True)
        since = position(self.publish("a", "x:a"))
        self.publish("b", "x:a")
        self.subscriber(channel="x:a", since=since)
        self.assertEqual([each.data.text for each in self.answers[-1].publications], ["b"])


class HistoryTests(Case):
    def kept(self, channel: str) -> list[str]:
        self.hub.history(channel, self.answers.append)
        return [each.data.text for each in self.answers[-1].publications]

    def say(self, *channels: str) -> None:
        for channel in channels:
            for text in "abc":
                self.publish(text, channel)

    def use(self, **settings: object) -> None:
        self.make(
            namespaces=Namespaces(
                named={
                    "two": ChannelOptions(history_size=2),
                    "none": ChannelOptions(history_size=0),
                    "never": ChannelOptions(history_ttl=0),
                    "short": ChannelOptions(history_ttl=5),
                    "long": ChannelOptions(history_ttl=7_200),
                }
            ),
            **settings,
        )

    def test_sizes(self) -> None:
        self.use()
        self.say("two:x", "none:x", "never:x", "x")
        for channel, kept in (("two:x", "bc"), ("none:x", ""), ("never:x", ""), ("x", "abc")):
            self.assertEqual("".join(self.kept(channel)), kept, channel)

    def test_times(self) -> None:
        self.use(history_ttl=300)
        self.say("long:x", "short:x", "x")
        for seconds, left in ((4, ["long:x", "short:x", "x"]), (1, ["long:x", "x"]), (295, ["long:x"]), (6_900, [])):
            self.clock.advance(seconds)
            self.assertEqual([each for each in ("long:x", "short:x", "x") if self.kept(each)], left)

    def test_expired_publications_of_all_namespaces_are_dropped_without_a_request(self) -> None:
        self.use(history_ttl=300)
        self.say("long:x", "short:x", "x")
        for _ in range(200):
            self.clock.advance(61)
        broker = self.hub.broker
        assert isinstance(broker, MemoryBroker)
        self.assertEqual((broker._streams, broker._size), ({}, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_over_the_total_the_oldest_publication_is_dropped_whatever_its_ttl(self) -> None:
        self.use(history_total=4 * 301)
        self.publish("1", "long:x")
        for number, channel in enumerate(("short:x", "x", "long:y", "short:y", "x"), start=2):
            self.clock.advance(0.1)
            self.publish(str(number), channel)
        found = {channel: self.kept(channel) for channel in ("long:x", "short:x", "x", "long:y", "short:y")}
        self.assertEqual(found, {"long:x": [], "short:x": [], "x": ["3", "6"], "long:y": ["4"], "short:y": ["5"]})

    def test_the_broker_itself_refuses_an_undefined_namespace(self) -> None:
        self.use()
        self.hub.broker.history("other:x", None, -1, False, self.answers.append)
        self.assertIsInstance(self.answers[-1], CommandError)
