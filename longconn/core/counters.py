"""What a hub counts, in plain numbers: `longconn.server_api.metrics` shows them to Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

#: Seconds that sending in one turn takes, that the reactor is late, and that a hook takes.
_FAN_OUT = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
_LAG = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_HOOK = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
#: Events of one channel that are sent together.
_BATCH = (1, 3, 10, 30, 100, 300, 1000)


class Histogram:
    """Values by size: `counts[i]` are those up to `bounds[i]` and above the bound before it; the last are larger."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class BrokerCounters:
    """Numbers of a broker over a network."""

    def __init__(self) -> None:
        #: seconds until a request to publish was answered
        self.seconds = Histogram(_HOOK)
        #: publications that were not taken: `away`, `refused`, or `late` without an answer in time
        self.failures: Counter[str] = Counter({"away": 0, "refused": 0, "late": 0})
        #: times that a channel with subscribers lost publications
        self.lost = 0


class Counters:
    """Numbers since the start. Each is counted where it happens; sending is counted once a batch, not a subscriber."""

    def __init__(self) -> None:
        #: clients that came, by protocol
        self.clients: Counter[str] = Counter()
        #: clients that ended, by the number of the reason; 0: the connection just ended
        self.disconnects: Counter[int] = Counter()
        #: refused requests, by `Reason.key`, or by `http_STATUS` where a refusal has no reason
        self.refusals: Counter[str] = Counter()
        #: publications that were accepted here, and the bytes of their data
        self.publications = 0
        self.publication_bytes = 0
        #: publications times subscribers that they were sent to, and the bytes of that
        self.deliveries = 0
        self.delivery_bytes = 0
        #: sends that could not go directly to the kernel
        self.indirect_sends = 0
        #: events of a channel that were sent together, and seconds that sending took in a turn
        self.batches = Histogram(_BATCH)
        self.fan_out = Histogram(_FAN_OUT)
        #: seconds by which the reactor is late, once a second
        self.lag = Histogram(_LAG)
        #: by event: seconds that hooks took, and those that gave no decision
        self.hooks: dict[str, Histogram] = {}
        self.hook_failures: Counter[str] = Counter()
        #: events of which the webhook does not tell: `full` too many wait, `refused` it was tried in vain, `end`
        self.webhook_lost: Counter[str] = Counter({"full": 0, "refused": 0, "end": 0})

    def hook(self, event: str, seconds: float, failed: bool) -> None:
        """Count a hook that was asked."""
        self.hooks.setdefault(event, Histogram(_HOOK)).observe(seconds)
        if failed:
            self.hook_failures[event] += 1
