"""An existing twisted.web site that asks for a password, with longconn below /live.

    python site_with_login.py ENDPOINT        as tcp:8080:interface=127.0.0.1

All paths of `LiveResource` work there, such as /live/channels/NAME and /live/ws, and only with
the password. The user is the speaker.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.web.guard import BasicCredentialFactory, HTTPAuthSessionWrapper
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from twisted.web.static import Data
from zope.interface import implementer

from longconn import Hub, LiveResource


@implementer(IRealm)
class Realm:
    """Gives the site to every user that has logged in."""

    def __init__(self, site: Resource) -> None:
        self._site = site

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> tuple[Any, Any, Any]:
        return IResource, self._site, lambda: None


def user_of(request: Any) -> str:
    """The user whose password the site has checked."""
    return str(request.getUser().decode())


async def main(reactor: Any, endpoint: str) -> None:
    hub = Hub(reactor)
    root = Resource()
    root.putChild(b"", Data(b"the site that was here before\n", "text/plain"))
    root.putChild(b"live", LiveResource(hub, identify=user_of))

    passwords = InMemoryUsernamePasswordDatabaseDontUse(ann=b"secret")
    guarded = HTTPAuthSessionWrapper(Portal(Realm(root), [passwords]), [BasicCredentialFactory(b"example")])
    port = await serverFromString(reactor, endpoint).listen(Site(guarded, reactor=reactor))
    print(f"listening on {port.getHost().host}:{port.getHost().port}", flush=True)

    # At the end, so that no delayed call is left.
    reactor.addSystemEventTrigger("before", "shutdown", hub.stop)
    await Deferred()


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
