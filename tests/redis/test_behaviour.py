"""The suite of all protocols, over a broker in a real Redis."""

from tests.behaviour import test_behaviour, test_centrifugo, test_grpc, test_protobuf
from tests.redis.blocking import OverRedis


class TCPOverRedisTests(OverRedis, test_behaviour.TCPTests):
    pass


class SharedTCPOverRedisTests(OverRedis, test_behaviour.SharedTCPTests):
    pass


class WebSocketOverRedisTests(OverRedis, test_behaviour.WebSocketTests):
    pass


class EventsOverRedisTests(OverRedis, test_behaviour.EventTests):
    pass


class StreamOverRedisTests(OverRedis, test_behaviour.StreamTests):
    pass


class PollOverRedisTests(OverRedis, test_behaviour.PollTests):
    pass


class StructuredWebSocketOverRedisTests(OverRedis, test_centrifugo.StructuredWebSocketTests):
    pass


class StructuredLinesOverRedisTests(OverRedis, test_centrifugo.StructuredLinesTests):
    pass


class StructuredStreamOverRedisTests(OverRedis, test_centrifugo.StructuredStreamTests):
    pass


class StructuredEventsOverRedisTests(OverRedis, test_centrifugo.StructuredEventsTests):
    pass


class ProtobufOverRedisTests(OverRedis, test_protobuf.ProtobufTests):
    pass


class ConnectOverRedisTests(OverRedis, test_grpc.ConnectTests):
    pass


class SubscribeOverRedisTests(OverRedis, test_grpc.SubscribeTests):
    pass
