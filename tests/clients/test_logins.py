"""A name and a password, over each transport."""

from longconn.auth.passwords import check_passwords
from longconn.clients import Disconnected, Refused
from longconn.protocols.grpc.factory import GrpcFactory
from longconn.service.embedding import ChatFactory, LiveSite, SharedPortFactory
from tests.clients.network import Case

URLS = ("tcp://127.0.0.1:9999", "ws://127.0.0.1:9999", "http://127.0.0.1:9999", "grpc://127.0.0.1:9999")


class LoginTests(Case):
    def test_each_transport(self) -> None:
        hub = self.serve()
        hub.gate.passwords = check_passwords(["memory:ann:secret"])
        self.network.server = SharedPortFactory(ChatFactory(hub), LiveSite(hub), GrpcFactory(hub))
        for url in URLS:
            ann = self.client(url=url, login=("ann", "secret"), name="mia")
            self.get(ann.connected(), 2)
            (client,) = hub.clients.values()
            self.assertEqual((client.user, client.name), ("ann", "mia"), url)
            self.get(ann.close(), 2)
            for login in (("ann", "wrong"), None):
                error = self.fails((Disconnected, Refused), self.client(url=url, login=login).connected())
                self.assertIn(error.code, (3500, 101), url)  # type: ignore[attr-defined]
            self.network.advance(60)
