"""A user in a channel that requires a token: python token_client.py ADDRESS SECRET USER

The program makes the tokens itself, to show how. In production a back end makes them for users that it
has logged in, and the secret never leaves it. `get_token` then requests a token from the back end.
"""

import asyncio
import sys
import time

import jwt
from centrifuge import Client, PublicationContext, SubscribedContext, SubscriptionEventHandler

address, secret, user = sys.argv[1:]


def token(**claims: object) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time()) + 600, **claims}, secret, algorithm="HS256")


async def connection_token() -> str:
    return token(info={"team": "storage"})


async def subscription_token(channel: str) -> str:
    return token(channel=channel, info={"role": "speaker"})


class Reader(SubscriptionEventHandler):
    async def on_subscribed(self, context: SubscribedContext) -> None:
        print(f"subscribed to {context.channel}", flush=True)

    async def on_publication(self, context: PublicationContext) -> None:
        info = context.pub.info
        if info is None:
            print(f"the server: {context.pub.data}", flush=True)
        else:
            print(f"{info.user} {info.conn_info} {info.chan_info}: {context.pub.data}", flush=True)


async def main() -> None:
    client = Client(address, get_token=connection_token)
    room = client.new_subscription("room:1", events=Reader(), get_token=subscription_token)
    await client.connect()
    await room.subscribe()
    await room.ready()
    await room.publish("hello")
    await asyncio.Event().wait()


asyncio.run(main())
