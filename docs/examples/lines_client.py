"""Reads a channel over TCP lines, and publishes one message in it: python lines_client.py HOST PORT

It reconnects after a lost connection, and recovers missed publications. It needs the standard library alone.
"""

import json
import random
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

CHANNEL = "lobby"
CONNECT, SUBSCRIBE, PUBLISH = 1, 2, 3


class Reader:
    """One subscriber over any number of connections, one after the other."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        #: where in the channel it stands; empty before the first subscribe
        self.position: dict[str, Any] = {}
        self.failures = 0

    def run(self) -> None:
        while True:
            try:
                self.converse()
            except OSError as error:
                print(f"lost the connection: {error}", flush=True)
            # Longer each time, and random, so that clients that lost the server together do not return together.
            time.sleep(random.random() * min(60, 2**self.failures))
            self.failures += 1

    def converse(self) -> None:
        # Pings come every 25 seconds: after 60 without a byte the server counts as dead.
        with socket.create_connection(self.address, timeout=60) as connection:
            self.connection = connection
            self.send(id=CONNECT, connect={})
            for message in self.messages():
                if message.get("error"):
                    raise SystemExit(f"refused: {message['error']}")
                if message.get("id") == CONNECT:
                    recovery = {"recover": True, **self.position} if self.position else {}
                    self.send(id=SUBSCRIBE, subscribe={"channel": CHANNEL, **recovery})
                elif message.get("id") == SUBSCRIBE:
                    self.subscribed(message["subscribe"])
                elif "pub" in message.get("push", {}):
                    self.published(message["push"]["pub"])
                elif "disconnect" in message.get("push", {}):
                    self.disconnected(message["push"]["disconnect"])

    def send(self, **command: Any) -> None:
        self.connection.sendall(json.dumps(command).encode() + b"\n")

    def messages(self) -> Iterator[dict[str, Any]]:
        """The server's messages, except pings, which are answered here."""
        for line in self.connection.makefile("rb"):
            message = json.loads(line)
            if message:
                yield message
            else:
                self.send()  # {} is a ping, and also its answer

    def subscribed(self, result: dict[str, Any]) -> None:
        self.failures = 0
        if not self.position:
            print("subscribed", flush=True)
            self.send(id=PUBLISH, publish={"channel": CHANNEL, "data": {"temperature": 21.5}})
        else:
            recovered = result.get("recovered")
            print("back;", "nothing is lost" if recovered else "what came meanwhile is lost", flush=True)
        # A member that is zero is left out.
        self.position = {"epoch": result.get("epoch", ""), "offset": result.get("offset", 0)}
        for publication in result.get("publications", []):
            self.published(publication)

    def published(self, publication: dict[str, Any]) -> None:
        print(json.dumps(publication["data"]), flush=True)
        self.position["offset"] = publication.get("offset", self.position["offset"])

    def disconnected(self, reason: dict[str, Any]) -> None:
        print(f"disconnected: {reason['reason']}", flush=True)
        if not reason.get("reconnect"):
            raise SystemExit(1)


if __name__ == "__main__":
    Reader((sys.argv[1], int(sys.argv[2]))).run()
