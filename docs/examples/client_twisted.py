"""Reads a channel, and publishes one message in it: python client_twisted.py tcp://localhost:9999"""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from longconn.clients import ClientError, Lost, Publication, State, connect


def show(state: State) -> None:
    if state.retry_in:
        print(f"{state.reason}; the next attempt comes in {state.retry_in:.0f} s", flush=True)


async def talk(reactor: Any, url: str) -> None:
    # With a name, the program takes part in the chat; without it, people do not see it join.
    async with connect(url, reactor=reactor, name="thermometer", on_state=show) as client:
        try:
            lobby = await client.subscribe("lobby")
            await client.publish("lobby", {"temperature": 21.5})
            async for event in lobby:
                if isinstance(event, Publication):
                    print(f"{event.name}: {event.data}", flush=True)
                elif isinstance(event, Lost):
                    print("what was said meanwhile is lost", flush=True)
        except ClientError as error:
            print(error, flush=True)


react(lambda reactor, url: Deferred.fromCoroutine(talk(reactor, url)), sys.argv[1:])
