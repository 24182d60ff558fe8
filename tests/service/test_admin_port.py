"""`--admin`: the server API and /health on a port of their own."""

import json
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from longconn import Hub, LongConnService, Settings
from longconn.testing import FakeClock, MemoryServer


class AdminTests(SynchronousTestCase):
    def setUp(self) -> None:
        hub = Hub(FakeClock(), Settings(api_key="new", api_previous_key="old"))
        self.memory = MemoryServer(hub=hub)
        self.addCleanup(self.memory.stop)
        self.factories = {}
        for admin in ((), ("tcp:9998",)):
            service = LongConnService(MemoryReactorClock(), hub=hub, admin=admin)
            self.factories[bool(admin)] = service._factories

    def status(self, factory: Any, method: str, path: str, key: str = "new") -> int:
        client = self.memory.http_client(factory)
        body = json.dumps({"channel": "lobby", "data": 1}) if method == "POST" else None
        answer = client.request(method, path, body, [("X-API-Key", key)])
        self.memory.settle()
        return answer.status

    def test_where_each_path_is_served(self) -> None:
        for admin, name, expected in (
            (False, "port", (200, 200, 200, 200)),
            (True, "port", (404, 404, 200, 200)),
            (True, "http", (404, 404, 200, 200)),
            (True, "admin", (200, 200, 404, 404)),
        ):
            factory = self.factories[admin][name]
            found = (
                self.status(factory, "POST", "/api/publish"),
                self.status(factory, "GET", "/health/ready"),
                self.status(factory, "POST", "/channels/lobby"),
                self.status(factory, "GET", "/PrintHello"),
            )
            self.assertEqual(found, expected, (admin, name))

    def test_two_keys_while_they_change(self) -> None:
        admin = self.factories[True]["admin"]
        found = [self.status(admin, "POST", "/api/publish", key) for key in ("new", "old", "other", "")]
        self.assertEqual(found, [200, 200, 401, 401])
