"""What tests of the core need: a hub on a clock, outlets that remember, formats that count."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn.core.client import Client
from longconn.core.disconnects import Disconnect
from longconn.core.errors import CommandError
from longconn.core.hub import Hub
from longconn.core.publication import Counts, Data, Event, Info, Join, Leave, Position, Publication, Rename
from longconn.core.settings import Settings
from longconn.testing import FakeClock

ADA = Info("ada", "id-of-ada")


class Words:
    """A wire format of words, that counts its encodings."""

    tells_own_join = False

    def __init__(self) -> None:
        self.encodings = 0

    def encode(self, channel: str, events: Sequence[Event]) -> bytes:
        self.encodings += 1
        return "".join(map(self.word, events)).encode()

    def word(self, event: Event) -> str:
        match event:
            case Publication():
                return f"{event.data.text} "
            case Join(info):
                return f"+{info.name} "
            case Leave(info):
                return f"-{info.name} "
            case Rename(old, info):
                return f"{old}>{info.name} "
            case Counts(joined, left):
                return f"+{joined}-{left} "


class Outlet:
    """Remembers what it was told; `broken` makes its writes raise."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed: list[Disconnect] = []
        self.broken = False
        self.client: Client | None = None

    def write(self, data: bytes) -> None:
        if self.broken:
            raise ValueError("broken")
        self.writes.append(data)

    def write_backlog(self, source: Iterator[bytes]) -> None:
        self.writes.extend(source)

    def close(self, disconnect: Disconnect) -> None:
        self.closed.append(disconnect)
        if self.client is not None:
            self.client.gone()

    def read(self) -> str:
        words = b"".join(self.writes).decode()
        self.writes.clear()
        return words.rstrip()


class Case(SynchronousTestCase):
    """`answers` collects what `done` callables get."""

    def setUp(self) -> None:
        self.answers: list[Any] = []
        self.make()

    def make(self, broker: Callable[[FakeClock, Settings], Any] | None = None, **settings: Any) -> None:
        """A hub with these settings in place of the one before."""
        self.clock = FakeClock()
        made = Settings(**settings)
        self.hub = Hub(self.clock, made, broker(self.clock, made) if broker else None)
        self.addCleanup(self.hub.stop)
        self.words = Words()

    def connect(self, name: str | None = None, host: str = "192.0.2.1", announced: bool = True) -> Client:
        outlet = Outlet()
        client = outlet.client = self.hub.connect(outlet, "test", host, f"{host}:{1000 + len(self.hub.clients)}", name)
        client.announced = announced
        return client

    def subscriber(self, name: str | None = None, channel: str = "room", **options: Any) -> Client:
        client = self.connect(name, announced=options.pop("announced", True))
        self.hub.door.subscribe(client, channel, options.pop("format", self.words), self.answers.append, **options)
        return client

    def publish(self, text: str, channel: str = "room", info: Info = ADA) -> Any:
        """Publish, and the position if it came at once."""
        answers: list[Any] = []
        self.hub.publish(channel, Data.of_text(text), info, answers.append)
        return answers[0] if answers else None

    def read(self, client: Client) -> str:
        outlet: Any = client.outlet
        return str(outlet.read())

    def turn(self) -> None:
        self.clock.turn()

    def refused(self, key: str, call: Callable[..., Any], *arguments: Any) -> CommandError:
        """The CommandError that the call raises or answers, whose reason has this key."""
        before = len(self.answers)
        try:
            call(*arguments)
        except CommandError as raised:
            error = raised
        else:
            (error,) = self.answers[before:]
            del self.answers[before:]
        assert isinstance(error, CommandError), error
        self.assertEqual(error.reason.key, key)
        return error


def position(answer: Any) -> Position:
    """The position in an answer, which is no error."""
    assert isinstance(answer, Position), answer
    return answer
