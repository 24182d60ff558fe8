"""Publishes the load of this machine, once a second: python feeder.py tcp://localhost:9999 load"""

import os
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from longconn.clients import ClientError, ConnectionState, State, connect


def show(state: State) -> None:
    if state.state is not ConnectionState.CONNECTING:
        print(f"{state.state.value} {state.reason}".strip(), flush=True)


async def feed(reactor: Any, url: str, channel: str) -> None:
    client = connect(url, reactor=reactor, on_state=show, timeout=5)
    while client.state.state is not ConnectionState.CLOSED:
        one, five, fifteen = os.getloadavg()
        try:
            await client.publish(channel, {"one": one, "five": five, "fifteen": fifteen})
        except ClientError as error:
            print(f"not sent: {error}", flush=True)  # and not tried again: the next value is newer
        await deferLater(reactor, 1)
    raise SystemExit(client.state.reason)


react(lambda reactor, *arguments: Deferred.fromCoroutine(feed(reactor, *arguments)), sys.argv[1:])
