"""The suite, for every protocol, over the embedded broker and over one that answers late."""

from typing import Any

from longconn.core.disconnects import SHUTDOWN
from longconn.wire.chat_texts import EN
from longconn.wire.websocket import close_code
from tests.behaviour.members import (
    EventMember,
    ListenerMember,
    OldStreamMember,
    PollMember,
    StreamMember,
    TCPMember,
    WebSocketMember,
    WebSocketPortMember,
)
from tests.behaviour.suite import Late, ResumingBehaviour, SpeakingBehaviour, StayingBehaviour


class TCPTests(SpeakingBehaviour):
    member = TCPMember

    def refused(self, member: Any) -> bool:
        return bool(member.closed and member.client.lines == ["! limit exceeded: connections"])

    def was_told(self, member: Any, disconnect: Any) -> bool:
        return bool(member.farewell == "! " + EN.disconnect(disconnect))

    def too_large(self, member: Any) -> bool:
        return bool(member.hears("error") == [("error", "too large: at most 1000 bytes")])

    def not_utf8(self, member: Any) -> bool:
        return bool(member.hears("error") == [("error", "that was not UTF-8")])


class TCPOverLateBrokerTests(Late, TCPTests):
    pass


class SharedTCPTests(TCPTests):
    member = ListenerMember


class SharedTCPOverLateBrokerTests(Late, SharedTCPTests):
    pass


class WebSocketTests(SpeakingBehaviour):
    member = WebSocketMember

    def refused(self, member: Any) -> bool:
        return bool(member.client.status == 503 and b"connections" in member.client.body)

    def was_told(self, member: Any, disconnect: Any) -> bool:
        return bool(member.farewell == close_code(disconnect) and member.client.close_reason == disconnect.text)

    def too_large(self, member: Any) -> bool:
        return bool(member.farewell == 1009)

    def not_utf8(self, member: Any) -> bool:
        return bool(member.farewell == 1007)


class WebSocketOverLateBrokerTests(Late, WebSocketTests):
    pass


class WebSocketPortTests(WebSocketTests):
    member = WebSocketPortMember

    def refused(self, member: Any) -> bool:
        return bool(member.farewell == 3504 or member.client.status == 503)


class _Streams(StayingBehaviour, ResumingBehaviour):
    def refused(self, member: Any) -> bool:
        return bool(member.response.status == 503 and "connections" in member.response.text)

    def was_told(self, member: Any, disconnect: Any) -> bool:
        return bool(member.farewell is not None)


class EventTests(_Streams):
    member = EventMember

    def was_told(self, member: Any, disconnect: Any) -> bool:
        return bool(member.farewell == disconnect.code)

    def test_comings_and_goings_are_events(self) -> None:
        member = self.join()
        witness = self.witness()
        self.say(witness, "/nick ada")
        self.lost_for(witness)
        heard = [each for each in member.hear() if each[0] != "said"]
        name = witness.name
        self.assertEqual(heard, [("joined", name), ("left", name), ("joined", "ada"), ("left", "ada")])

    def test_at_a_shutdown_browsers_are_told_to_come_back_not_all_at_once(self) -> None:
        retries = set()
        for _ in range(8):
            member = self.join()
            for client in list(self.server.hub.clients.values()):
                client.close(SHUTDOWN)
            self.server.settle()
            retries |= {line for line in member.response.text.split("\n") if line.startswith("retry: ")}
        self.assertGreater(len(retries), 3)


class EventsOverLateBrokerTests(Late, EventTests):
    pass


class StreamTests(_Streams):
    member = StreamMember

    def join(self, channel: str = "lobby", kind: Any = None, **options: Any) -> Any:
        """A stream says its position with its first publication: for tests that need it before, ask."""
        member = super().join(channel, kind, **options)
        if isinstance(member, StreamMember) and member.since is None:
            answers: list[Any] = []
            while not answers or not hasattr(answers[-1], "position"):
                self.server.hub.history(channel, answers.append, limit=0)
                self.server.settle()
            member.since = f"{answers[-1].position.epoch}:{answers[-1].position.offset}"
        return member


class StreamOverLateBrokerTests(Late, StreamTests):
    pass


class OldStreamTests(StreamTests):
    member = OldStreamMember


class PollTests(ResumingBehaviour):
    member = PollMember

    def test_it_is_told_and_let_go_when_there_is_no_room(self) -> None:
        self.serve(max_connections=2)
        last = self.post("1")
        self.witness()
        self.witness()
        # What is answered at once needs no room; a poll that waits is as good as a connection.
        client = self.server.http_client(self.factories["shared"])
        self.assertEqual(client.get("/channels/lobby?since=" + f"{last.epoch}:{last.offset}&wait=25").status, 503)

    def test_after_its_time_it_is_answered_with_nothing(self) -> None:
        member = self.join()
        since = member.since
        self.assertFalse(member.response.complete)
        self.server.advance(24)
        self.assertFalse(member.response.complete)
        self.server.advance(3)
        self.assertTrue(member.response.complete)
        self.assertEqual(member.response.json()["publications"], [])
        self.assertEqual((member.hear(), member.since), ([], since))


class PollOverLateBrokerTests(Late, PollTests):
    pass


del SpeakingBehaviour, StayingBehaviour, ResumingBehaviour, _Streams
