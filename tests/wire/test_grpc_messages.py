"""The hand-written encoder of messages, compared with the protobuf library."""

from typing import Any

from google.protobuf.message import Message
from twisted.trial.unittest import SynchronousTestCase

from longconn.core.publication import Counts, Data, Event, Info, Join, Leave, Publication, Rename
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc_messages import MESSAGES, PUSHES, backlog

ADA = Info("ada", "id-1", "user-1", b'{"a":1}', b'{"b":2}')


def publication(data: Data, offset: int = 1, info: Info = ADA, channel: str = "lobby") -> Publication:
    return Publication(channel, "6sUq2Z0vLnk", offset, data, info, 1795225487.397)


def made(each: Publication) -> pb.Publication:
    """The same message, by the library."""
    return pb.Publication(
        channel=each.channel, offset=each.offset, epoch=each.epoch, data=each.data.json.decode(), name=each.info.name,
        client=each.info.client, user=each.info.user, time=each.time,
    )  # fmt: skip


def frames(data: bytes, kind: type[Any]) -> list[Any]:
    found = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        found.append(kind.FromString(data[5 : 5 + size]))
        data = data[5 + size :]
    return found


class PublicationTests(SynchronousTestCase):
    def check(self, each: Publication) -> None:
        """Compare the bytes, for a message of Subscribe and one of Connect."""
        for format, message in (
            (MESSAGES, pb.SubscribeResponse(publication=made(each))),
            (PUSHES[False], pb.ConnectResponse(publication=made(each))),
            (PUSHES[True], pb.ConnectResponse(publication=made(each))),
        ):
            written = message.SerializeToString()
            data = format.encode(each.channel, [each])
            self.assertEqual(data, b"\0" + len(written).to_bytes(4, "big") + written)

    def test_lengths(self) -> None:
        for size in (0, 1, 100, 125, 126, 127, 128, 129, 16_300, 16_383, 16_384, 20_000, 70_000, 2_200_000):
            self.check(publication(Data.of_text("x" * size)))

    def test_offsets(self) -> None:
        for offset in (0, 1, 127, 128, 16_383, 16_384, 2**31, 2**32, 2**63):
            self.check(publication(Data.of_text("x"), offset))

    def test_values(self) -> None:
        for written in ("{}", "null", "0", '{"a": [1, 2.5, 12345678901234567890123]}', '"ü\\u0000"', '"😀"'):
            self.check(publication(Data.of_json(written)))

    def test_publisher(self) -> None:
        for info in (Info(""), Info("127.0.0.1:50000", "c"), Info("名字", "c", "ü"), Info("[::1]:1", user="u")):
            self.check(publication(Data.of_text("x"), info=info))

    def test_channels(self) -> None:
        for channel in ("a", "ü:x", "c" * 255):
            self.check(publication(Data.of_text("x"), channel=channel))

    def test_a_lone_surrogate_in_the_name_of_a_user(self) -> None:
        (found,) = frames(
            MESSAGES.encode("c", [publication(Data.of_text("x"), info=Info("n", user="\ud800"))]), pb.SubscribeResponse
        )
        self.assertEqual(found.publication.user, "?")

    def test_a_batch(self) -> None:
        batch: list[Event] = [publication(Data.of_text(str(each)), each) for each in range(1, 400)]
        batch.insert(5, Join(ADA))
        found = frames(MESSAGES.encode("lobby", batch), pb.SubscribeResponse)
        self.assertEqual([each.publication.offset for each in found], list(range(1, 400)))

    def test_a_backlog_is_encoded_in_parts(self) -> None:
        batch = [publication(Data.of_text("x" * 1000), each) for each in range(1, 200)]
        parts = list(backlog(MESSAGES, "lobby", batch))
        self.assertEqual(b"".join(parts), MESSAGES.encode("lobby", batch))
        self.assertGreater(len(parts), 2)
        self.assertLess(max(map(len, parts)), 70_000)


class ChangeTests(SynchronousTestCase):
    def events(self, join_leave: bool, *events: Event) -> list[Message]:
        return frames(PUSHES[join_leave].encode("lobby", events), pb.ConnectResponse)

    def test_joins_and_leaves(self) -> None:
        info = pb.ClientInfo(name="ada", client="id-1", user="user-1", conn_info='{"a":1}', chan_info='{"b":2}')
        old = pb.ClientInfo(
            name="eve", client="id-1", user="user-1", conn_info='{"name":"eve","a":1}', chan_info='{"b":2}'
        )
        join = pb.ConnectResponse(join=pb.Join(channel="lobby", info=info))
        leave = pb.ConnectResponse(leave=pb.Leave(channel="lobby", info=info))
        renamed = pb.ConnectResponse(leave=pb.Leave(channel="lobby", info=old))
        found = self.events(True, Join(ADA), Leave(ADA), Rename("eve", ADA), Counts(3, 4))
        self.assertEqual(found, [join, leave, renamed, join])

    def test_joins_and_leaves_only_where_the_format_has_them(self) -> None:
        self.assertEqual(self.events(False, Join(ADA), Leave(ADA), Rename("eve", ADA), Counts(3, 4)), [])
        self.assertEqual(MESSAGES.encode("lobby", (Join(ADA), Leave(ADA))), b"")

    def test_different_formats_are_not_equal(self) -> None:
        self.assertEqual(len({MESSAGES, PUSHES[False], PUSHES[True]}), 3)
