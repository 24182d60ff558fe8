"""The link to real Redis servers, over real sockets: when they refuse, end, stand still or talk nonsense."""

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from longconn.core.errors import CommandError, ConfigError
from longconn.core.publication import Data, Info, Position
from longconn.core.settings import Settings
from longconn.redis import server as link_module
from longconn.redis.address import parse_address
from longconn.redis.server import redis_broker
from tests.live.certificates import write_certificate
from tests.redis.server import RedisServer, free_port

POSTER = Info("poster")


class Reader:
    """What a hub is to the broker."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.lost: list[str] = []

    def on_publication(self, publication: Any) -> None:
        self.read.append(publication.data.text)

    def on_publications(self, channel: str, publications: Any) -> None:
        self.read += [each.data.text for each in publications]

    def on_announcement(self, channel: str, announcement: Any) -> None:
        pass

    def on_lost(self, channel: str) -> None:
        self.lost.append(channel)

    def on_broker_change(self) -> None:
        pass


class Case(TestCase):
    timeout = 60

    def redis(self, *options: str, **keywords: Any) -> RedisServer:
        made = RedisServer("--save", "", *options, **keywords)
        self.addCleanup(made.remove)
        return made

    def broker(self, url: str) -> tuple[Any, Reader]:
        reader = Reader()
        broker = redis_broker(reactor, Settings(broker=(url,)))
        broker.attach(reader)
        broker.start()

        def stop() -> Deferred[Any]:
            broker.stop()
            return broker.closed()

        self.addCleanup(stop)
        return broker, reader

    @inlineCallbacks
    def until(self, true: Callable[[], bool], seconds: float = 25) -> Generator[Any, Any, None]:
        for _ in range(int(seconds / 0.02)):
            if true():
                return
            yield deferLater(reactor, 0.02)  # type: ignore[arg-type]
        self.fail("it never came")

    def publish(self, broker: Any, text: str) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        broker.publish("lobby", Data.of_text(text), POSTER, answer.callback)
        return answer

    @inlineCallbacks
    def ready(self, url: str) -> Generator[Any, Any, tuple[Any, Reader]]:
        broker, reader = self.broker(url)
        yield self.until(lambda: not broker.problem)
        subscribed: Deferred[Any] = Deferred()
        broker.subscribe("lobby", subscribed.callback)
        self.assertIsNone((yield subscribed))
        return broker, reader


class AddressTests(TestCase):
    def test_urls(self) -> None:
        for url, shown in {
            "redis://": "127.0.0.1:6379",
            "redis://:secret@db:7000/3": "db:7000",
            "rediss://user:p%40ss@[::1]:7000?ca=/x": "[::1]:7000",
            "unix:///run/redis.sock": "/run/redis.sock",
            "redis+sentinel://s1,s2:27000/mymaster/2": "mymaster of the Sentinels s1:26379,s2:27000",
        }.items():
            self.assertEqual(str(parse_address(url)), shown)
        address = parse_address("rediss://user:p%40ss@h/2?prefix=x&verify=no")
        self.assertEqual(
            (address.user, address.password, address.database, address.prefix, address.tls, address.verify),
            ("user", "p@ss", 2, "x", True, False),
        )

    def test_wrong_urls_are_one_line_without_the_password(self) -> None:
        for url in (
            "http://:secret@h", "redis://:secret@h/x", "redis://:secret@h?nonsense=1", "unix://:secret@h",
            "redis+sentinel://:secret@h", "redis://:secret@a,b", "redis://:secret@h:port",
        ):  # fmt: skip
            error = self.assertRaises(ConfigError, parse_address, url)
            self.assertNotIn("secret", str(error))
            self.assertNotIn("\n", str(error))

    def test_a_file_of_authorities_is_read_at_the_start(self) -> None:
        self.assertRaises(ConfigError, redis_broker, reactor, Settings(broker=("rediss://h?ca=/nowhere",)))


class LinkTests(Case):
    @inlineCallbacks
    def test_it_publishes_and_reads(self) -> Generator[Any, Any, None]:
        broker, reader = yield self.ready(self.redis().url)
        position = yield self.publish(broker, "hello")
        self.assertEqual(position.offset, 1)
        yield self.until(lambda: reader.read == ["hello"])

    @inlineCallbacks
    def test_user_password_database(self) -> Generator[Any, Any, None]:
        server = self.redis(
            "--requirepass", "secret", "--user", "app", "on", ">pw", "~*", "&*", "+@all", port=free_port()
        )
        server_url = server.url.replace("redis://", "redis://app:pw@") + "/3"
        broker, _ = yield self.ready(server_url)
        yield self.publish(broker, "hello")

    @inlineCallbacks
    def test_tls(self) -> Generator[Any, Any, None]:
        folder = Path(tempfile.mkdtemp())
        key, certificate = write_certificate(folder)
        port = free_port()
        files = (
            "--tls-cert-file",
            str(certificate),
            "--tls-key-file",
            str(key),
            "--tls-ca-cert-file",
            str(certificate),
        )
        self.redis("--tls-port", str(port), *files, "--tls-auth-clients", "no")
        for verified in (f"?ca={certificate}", "?verify=no"):
            broker, reader = yield self.ready(f"rediss://localhost:{port}{verified}")
            self.assertIsInstance((yield self.publish(broker, "hello")), Position)
            yield self.until(lambda reader=reader: reader.read[:1] == ["hello"])
        stranger, _ = self.broker(f"rediss://localhost:{port}")
        yield self.until(lambda: "certificate" in stranger.problem)

    @inlineCallbacks
    def test_a_wrong_password_is_told_and_another_try_made(self) -> Generator[Any, Any, None]:
        server = self.redis(port=free_port())
        server.ask("CONFIG", "SET", "requirepass", "secret")
        broker, _ = self.broker(server.url.replace("redis://", "redis://:wrong@"))
        yield self.until(lambda: "WRONGPASS" in broker.problem)
        self.assertNotIn("wrong@", broker.problem)
        refused = yield self.publish(broker, "x")
        self.assertTrue(refused.reason.temporary)

    @inlineCallbacks
    def test_it_comes_back_after_the_server_is_killed(self) -> Generator[Any, Any, None]:
        server = self.redis()
        broker, reader = yield self.ready(server.url)
        server.end(signal.SIGKILL)
        yield self.until(lambda: bool(broker.problem))
        server.start()
        yield self.until(lambda: not broker.problem)
        yield self.until(lambda: reader.lost == ["lobby"])

    @inlineCallbacks
    def test_nothing_is_asked_before_the_generation_is_known(self) -> Generator[Any, Any, None]:
        """A request with the former generation would give the channel another epoch."""
        server = self.redis()
        broker, _ = yield self.ready(server.url)
        link = broker._links[0]
        known, answers = link._known, []

        def early(*arguments: Any) -> None:
            broker.history("lobby", None, 0, False, answers.append)
            known(*arguments)

        self.patch(link, "_known", early)
        server.end(signal.SIGKILL)
        yield self.until(lambda: bool(broker.problem))
        server.start()
        yield self.until(lambda: bool(answers) and not broker.problem)
        self.assertIsInstance(answers[0], CommandError)

    @inlineCallbacks
    def test_full(self) -> Generator[Any, Any, None]:
        server = self.redis()
        broker, _ = yield self.ready(server.url)
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        server.ask("CONFIG", "SET", "maxmemory", "1000")
        refused = yield self.publish(broker, "x")
        self.assertTrue(refused.reason.temporary)
        yield self.until(lambda: "OOM" in broker.problem)
        server.ask("CONFIG", "SET", "maxmemory", "0")
        yield self.until(lambda: not broker.problem)
        position = yield self.publish(broker, "y")
        self.assertEqual(position.offset, 1)

    @inlineCallbacks
    def test_read_only(self) -> Generator[Any, Any, None]:
        server = self.redis()
        broker, _ = yield self.ready(server.url)
        server.ask("REPLICAOF", "127.0.0.1", str(free_port()))
        refused = yield self.publish(broker, "x")
        self.assertIsInstance(refused, CommandError)
        yield self.until(lambda: "replica" in broker.problem)
        server.ask("REPLICAOF", "NO", "ONE")
        yield self.until(lambda: not broker.problem)

    @inlineCallbacks
    def test_one_that_stands_still_counts_as_dead(self) -> Generator[Any, Any, None]:
        self.patch(link_module, "SILENCE", 2.0)
        server = self.redis()
        broker, _ = yield self.ready(server.url)
        server.process.send_signal(signal.SIGSTOP)
        try:
            late = yield self.publish(broker, "x")
            self.assertTrue(late.reason.temporary)
            yield self.until(lambda: "no answer" in broker.problem)
        finally:
            server.process.send_signal(signal.SIGCONT)
        yield self.until(lambda: not broker.problem)

    @inlineCallbacks
    def test_scripts_that_the_server_forgot_are_loaded_again(self) -> Generator[Any, Any, None]:
        server = self.redis()
        broker, reader = yield self.ready(server.url)
        server.ask("SCRIPT", "FLUSH")
        position = yield self.publish(broker, "1")
        self.assertEqual(position.offset, 1)
        yield self.until(lambda: reader.read == ["1"])

    @inlineCallbacks
    def test_a_key_of_another_type_concerns_its_channel_alone(self) -> Generator[Any, Any, None]:
        server = self.redis()
        broker, _ = yield self.ready(server.url)
        server.ask("DEL", "longconn:{lobby}:stream")
        server.ask("SET", "longconn:{lobby}:stream", "nonsense")
        refused = yield self.publish(broker, "x")
        self.assertIsInstance(refused, CommandError)
        other: Deferred[Any] = Deferred()
        broker.publish("other", Data.of_text("x"), POSTER, other.callback)
        self.assertIsInstance((yield other), Position)
        server.ask("DEL", "longconn:{lobby}:stream")
        self.assertIsInstance((yield self.publish(broker, "y")), Position)

    @inlineCallbacks
    def test_a_stream_that_was_removed_is_a_gap_for_those_who_ask(self) -> Generator[Any, Any, None]:
        server = self.redis()
        broker, _ = yield self.ready(server.url)
        first = yield self.publish(broker, "1")
        yield self.publish(broker, "2")
        server.ask("DEL", "longconn:{lobby}:stream")
        third = yield self.publish(broker, "3")
        self.assertEqual((third.epoch, third.offset), (first.epoch, 3))
        answer: Deferred[Any] = Deferred()
        broker.history("lobby", first, -1, False, answer.callback)
        history = yield answer
        self.assertEqual((history.recovered, [each.data.text for each in history.publications]), (False, ["3"]))

    @inlineCallbacks
    def test_all_keys_removed_is_told_as_lost(self) -> Generator[Any, Any, None]:
        server = self.redis()
        broker, reader = yield self.ready(server.url)
        yield self.publish(broker, "1")
        server.ask("FLUSHALL")
        yield self.until(lambda: reader.lost == ["lobby"])
        position = yield self.publish(broker, "2")
        self.assertEqual(position.offset, 1)

    @inlineCallbacks
    def test_nonsense_is_not_believed(self) -> Generator[Any, Any, None]:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(5)
            listening.setblocking(False)
            broker, _ = self.broker(f"redis://127.0.0.1:{listening.getsockname()[1]}")
            accepted = []
            for _ in range(200):
                yield deferLater(reactor, 0.02)  # type: ignore[arg-type]
                try:
                    connection, _ = listening.accept()
                except BlockingIOError:
                    pass
                else:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    accepted.append(connection)
                if "no answer of Redis" in broker.problem:
                    break
            self.assertIn("no answer of Redis", broker.problem)
            for connection in accepted:
                connection.close()

    @inlineCallbacks
    def test_several_servers_share_the_channels(self) -> Generator[Any, Any, None]:
        servers = [self.redis(), self.redis()]
        reader = Reader()
        broker = redis_broker(reactor, Settings(broker=tuple(each.url for each in servers)))
        broker.attach(reader)  # type: ignore[arg-type]
        broker.start()

        def stop() -> Deferred[Any]:
            broker.stop()
            return broker.closed()

        self.addCleanup(stop)
        yield self.until(lambda: not broker.problem)
        for number in range(40):
            answer: Deferred[Any] = Deferred()
            broker.publish(f"channel{number}", Data.of_text("x"), POSTER, answer.callback)
            self.assertIsInstance((yield answer), Position)
        counts = [int(each.ask("DBSIZE")[1:]) for each in servers]
        self.assertTrue(all(each >= 10 for each in counts), counts)


class GenerationTests(Case):
    """A restart is told as lost, unless nothing can be lost by it."""

    @inlineCallbacks
    def restart(self, *options: str, kill: bool = True) -> Generator[Any, Any, Reader]:
        server = self.redis(*options)
        broker, reader = yield self.ready(server.url)
        for text in "12":
            yield self.publish(broker, text)
        yield self.until(lambda: reader.read == ["1", "2"])
        server.end(signal.SIGKILL if kill else signal.SIGTERM)
        yield self.until(lambda: bool(broker.problem))
        server.start()
        yield self.until(lambda: not broker.problem)
        yield self.until(lambda: not broker._shards[0]._resuming)
        position = yield self.publish(broker, "3")
        self.assertIsInstance(position, Position)
        yield self.until(lambda: "3" in reader.read)
        return reader

    @inlineCallbacks
    def test_each_write_on_the_disk(self) -> Generator[Any, Any, None]:
        reader = yield self.restart("--appendonly", "yes", "--appendfsync", "always")
        self.assertEqual((reader.read, reader.lost), (["1", "2", "3"], []))

    @inlineCallbacks
    def test_a_write_each_second(self) -> Generator[Any, Any, None]:
        reader = yield self.restart("--appendonly", "yes", "--appendfsync", "everysec")
        self.assertEqual(reader.lost, ["lobby"])

    @inlineCallbacks
    def test_nothing_on_the_disk(self) -> Generator[Any, Any, None]:
        reader = yield self.restart()
        self.assertEqual(reader.lost, ["lobby"])

    @inlineCallbacks
    def test_an_older_file(self) -> Generator[Any, Any, None]:
        server = self.redis("--appendonly", "yes", "--appendfsync", "always")
        broker, reader = yield self.ready(server.url)
        yield self.publish(broker, "1")
        saved = {each: each.read_bytes() for each in (Path(server.folder) / "appendonlydir").iterdir()}
        beats = broker._shards[0]._link._beats
        yield self.publish(broker, "2")
        yield self.until(lambda: broker._shards[0]._link._beats > beats)
        server.end(signal.SIGKILL)
        for path, text in saved.items():
            path.write_bytes(text)
        yield self.until(lambda: bool(broker.problem))
        server.start()
        yield self.until(lambda: reader.lost == ["lobby"])

    @inlineCallbacks
    def test_an_older_file_for_which_a_process_vouches_that_was_cut_off_before(self) -> Generator[Any, Any, None]:
        """The process that comes next has seen more."""
        server = self.redis("--appendonly", "yes", "--appendfsync", "always")
        first, reader = yield self.ready(server.url)
        second, _ = yield self.ready(server.url)
        yield self.publish(first, "1")
        second.stop()
        yield second.closed()
        second._links[0]._beats = 1_000  # of which the file knows nothing
        server.end(signal.SIGKILL)
        yield self.until(lambda: bool(first.problem))
        server.start()
        yield self.until(lambda: not first.problem)
        position = yield self.publish(first, "2")
        self.assertEqual((position.offset, reader.lost), (2, []))
        second.start()
        yield self.until(lambda: not second.problem)
        yield self.until(lambda: reader.lost == ["lobby"])

    @inlineCallbacks
    def test_a_process_that_did_not_see_the_former_run_cannot_vouch(self) -> Generator[Any, Any, None]:
        server = self.redis("--appendonly", "yes", "--appendfsync", "always")
        broker, _ = yield self.ready(server.url)
        before = yield self.publish(broker, "1")
        broker.stop()
        yield broker.closed()
        server.end(signal.SIGKILL)
        server.start()
        other, _ = yield self.ready(server.url)
        after = yield self.publish(other, "2")
        self.assertEqual(after.offset, 2)
        self.assertNotEqual(after.epoch, before.epoch)

    @inlineCallbacks
    def test_a_promoted_replica(self) -> Generator[Any, Any, None]:
        """Behind one address: the second process is a replica of the first, and takes its place."""
        port = free_port()
        master = self.redis("--appendonly", "yes", "--appendfsync", "always", port=port)
        replica = self.redis("--appendonly", "yes", "--appendfsync", "always", "--replicaof", "127.0.0.1", str(port))
        yield self.until(lambda: "up" in replica_state(replica))
        folder = tempfile.mkdtemp()
        path = os.path.join(folder, "socket")
        os.symlink(master.path, path)
        broker, reader = yield self.ready(f"unix://{path}")
        yield self.publish(broker, "1")
        master.end(signal.SIGKILL)
        replica.ask("REPLICAOF", "NO", "ONE")
        os.unlink(path)
        os.symlink(replica.path, path)
        yield self.until(lambda: reader.lost == ["lobby"])


def replica_state(server: RedisServer) -> str:
    """`up` or `down`, whether a replica is in step with its master."""
    with server._connect() as connection:
        connection.sendall(b"INFO replication\r\n")
        text = connection.recv(65536).decode()
    return next((line for line in text.split("\r\n") if line.startswith("master_link_status")), "")
