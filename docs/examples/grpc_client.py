"""Publishes in a channel, and reads it from its oldest message on: python grpc_client.py localhost:9999"""

import json
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc

# From the installed package, or a copy of the file at the same path below this program.
messages, services = grpc.protos_and_services("longconn/v1/longconn.proto")


def publications(stub: Any, channel: str) -> Iterator[Any]:
    """Each publication, for ever. After a lost connection the missed ones come first."""
    since = messages.Position()
    failures = 0
    while True:
        try:
            for response in stub.Subscribe(messages.SubscribeRequest(channel=channel, since=since)):
                if response.HasField("subscribed"):
                    since, failures = response.subscribed.position, 0
                    if not response.subscribed.recovered:
                        print("some are lost", flush=True)
                else:
                    publication = response.publication
                    if publication.offset:  # without an offset it is not kept
                        since = messages.Position(epoch=publication.epoch, offset=publication.offset)
                    yield publication
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            # Longer each time, and random, so that clients that lost the server together do not return together.
            time.sleep(random.random() * min(60, 2**failures))
            failures += 1


def main(address: str) -> None:
    with grpc.insecure_channel(address) as connection:
        stub = services.LongConnStub(connection)
        value = json.dumps({"temperature": 21.5})
        stub.Publish(messages.PublishRequest(channel="lobby", data=value, name="thermometer"))
        for publication in publications(stub, "lobby"):
            print(f"{publication.name}: {json.loads(publication.data)}", flush=True)


main(sys.argv[1])
