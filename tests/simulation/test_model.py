"""The model of Redis answers as a real server does."""

from random import Random
from typing import Any

import hiredis
from twisted.trial.unittest import SynchronousTestCase

from longconn.redis.scripts import BEAT, ENTER, MEMBERS, PRESENCE, PUBLISH, PUBLISH_UNKEPT, READ, REMOVE, SCRIPTS
from tests.redis.server import RedisServer, shared_server
from tests.simulation.redis_model import ModelRedis

#: A time to live after which nothing is left, and one in which all is.
_SHORT, _LONG = 1, 600_000


class Asker:
    """A connection to a real server."""

    def __init__(self, server: RedisServer) -> None:
        self._connection = server._connect()
        self._reader = hiredis.Reader()
        self.messages: list[tuple[bytes, bytes]] = []

    def ask(self, *words: Any) -> Any:
        self._connection.sendall(hiredis.pack_command(words))
        while True:
            reply = self._reader.gets()
            if isinstance(reply, hiredis.PushNotification):
                if reply[0] == b"message":
                    self.messages.append((reply[1], reply[2]))
            elif reply is not False:
                return reply
            else:
                self._reader.feed(self._connection.recv(1 << 20))

    def close(self) -> None:
        self._connection.close()


def arguments(random: Random, number: int) -> tuple[Any, tuple[str, ...], tuple[Any, ...]]:
    """The call with that number: script, keys, arguments."""
    base = random.choice(("t:{one}:", "t:{two}:"))
    keys = (f"{base}meta", f"{base}stream")
    generation, epoch = random.choice(("g1", "g1", "g1", "g1", "g2")), f"e{random.getrandbits(30)}"
    ttl = random.choice((_LONG,) * 9 + (_SHORT,))
    head = (generation, epoch, 3600, ttl)
    node = random.choice(("n1", "n2"))
    script = random.choice(
        (PUBLISH,) * 4 + (READ,) * 4 + (REMOVE, ENTER, BEAT, MEMBERS, MEMBERS, PRESENCE, PUBLISH_UNKEPT)
    )
    if script is PUBLISH:
        records = ["x" * random.choice((1, 10, 300)) for _ in range(random.choice((1, 1, 2, 7)))]
        request = f"{node}-{random.randrange(1_000)}" if random.random() < 0.5 else f"{node}-1"
        limits = (random.choice((0, 3, 100)), random.choice((50, 1_000_000)))
        return script, (*keys, f"{base}once:{node}"), (*head, request, 60, *limits, f"t:messages:{base}", *records)
    if script is READ:
        since = random.choice((-1, 0, random.randrange(30)))
        at = random.choice(("", "current", "other"))
        return script, keys, (*head, at, since, random.choice((-1, 0, 1, 5)), random.choice((0, 1)))
    if script is REMOVE:
        return script, keys, ()
    if script is PUBLISH_UNKEPT:
        return script, (f"{base}once:key:{random.randrange(4)}",), (300, f"t:messages:{base}", "a message")
    if script is ENTER:
        run, flags = random.choice(("r1", "r2")), (random.choice((0, 1)), random.choice((0, 0, 1)))
        former = random.choice(("", "r1", "r2"))
        seen, new = random.randrange(12), random.choice(("g1", "g2"))
        return script, ("t:generation",), (run, *flags, generation, seen, new, former)
    if script is BEAT:
        return script, ("t:generation",), (generation, random.choice((0, 1)))
    if script is MEMBERS:
        gone = [f"c{random.randrange(5)}" for _ in range(random.choice((0, 0, 1, 2)))]
        come = [word for each in range(random.randrange(3)) for word in (f"c{each}", f"record {random.random()}")]
        head = (node, _LONG, random.choice((0, 0, 1)), random.choice((number + 1, 5)))
        return script, (f"{base}nodes", f"{base}on:{node}", f"{base}asked:{node}"), (*head, len(gone), *gone, *come)
    return script, (f"{base}nodes",), (f"{base}on:",)


def without_times(script: Any, reply: Any) -> Any:
    """A reply without what no two servers have alike: the ids of entries end in a time, and hashes have no order."""
    if isinstance(reply, Exception):
        return str(reply)
    if script is READ:
        return [*reply[:3], [[id.partition(b"-")[0], values] for id, values in reply[3]]]
    return sorted(reply) if script is PRESENCE else reply


class ModelTests(SynchronousTestCase):
    def hold(self, seed: int, calls: int) -> None:
        """Make the same calls to both, one after the other."""
        random = Random(seed)
        asker = Asker(shared_server())
        self.addCleanup(asker.close)
        asker.ask("HELLO", 3)
        asker.ask("FLUSHALL")
        for each in SCRIPTS:
            asker.ask("SCRIPT", "LOAD", each.source)
        for base in ("t:{one}:", "t:{two}:"):
            asker._connection.sendall(hiredis.pack_command(("SUBSCRIBE", f"t:messages:{base}")))
        messages: list[tuple[bytes, bytes]] = []
        model = ModelRedis(lambda channel, message: messages.append((channel, message)) or 0)
        epochs = {b"t:{one}:meta": b"", b"t:{two}:meta": b""}
        for number in range(calls):
            script, keys, given = arguments(random, number)
            names = [each.encode() for each in keys]
            if script is READ and given[4] == "current":
                given = (*given[:4], epochs[names[0]].decode(), *given[5:])
            words = [script.digest, len(keys), *keys, *given]
            seconds, micros = asker.ask("TIME")
            if script in (READ, PUBLISH) and given[3] == _SHORT:
                # Let it be over for certain: both have had the same time.
                while int(seconds) * 1000 + int(micros) // 1000 <= self.last + 2:
                    seconds, micros = asker.ask("TIME")
            now = int(seconds) * 1000 + int(micros) // 1000
            if script in (READ, PUBLISH):
                self.last = now
            real = asker.ask("EVALSHA", *words)
            modelled = model.call([str(each).encode() for each in words], now)
            if script is PUBLISH and given[3] == _SHORT:
                while 0 <= asker.ask("PTTL", keys[1]) <= _SHORT:
                    pass
            what = f"seed {seed}, call {number}: {script_name(script)} {keys} {given}"
            self.assertEqual(without_times(script, modelled), without_times(script, real), what)
            if script in (READ, PUBLISH) and isinstance(real, list):
                epochs[names[0]] = real[0]
        asker.ask("PING")
        self.assertEqual([untimed(each) for each in messages], [untimed(each) for each in asker.messages])

    last = 0

    def test_calls_of_scripts(self) -> None:
        for seed in range(12):
            self.hold(seed, 250)


def untimed(message: tuple[bytes, bytes]) -> tuple[bytes, list[bytes]]:
    """A message of Pub/Sub without the time in it."""
    parts = message[1].split(b":")
    return message[0], parts[:2] + parts[3:] if message[1].startswith(b"P") else parts


def script_name(script: Any) -> str:
    names = ("PUBLISH", "PUBLISH_UNKEPT", "READ", "REMOVE", "ENTER", "BEAT", "MEMBERS", "PRESENCE")
    return dict(zip(SCRIPTS, names, strict=True))[script]
