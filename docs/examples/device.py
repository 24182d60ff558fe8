"""A device that publishes its temperature and has a lamp: python device.py HOST PORT NAME

It uses chat lines, in a channel of its own with the same NAME. It keeps one connection, and reconnects when that is
lost. It needs nothing but sockets, `poll` and a clock.
"""

import json
import random
import select
import socket
import sys
import time

EVERY = 10  # seconds from one value to the next
SILENCE = 25  # seconds without a byte after which the server counts as dead: it answers each `ping`
LONGEST = 1024  # bytes; a longer line is not for a device
LONGEST_PAUSE = 60  # seconds
now = getattr(time, "monotonic", time.time)  # small systems may have no other clock


class Device:
    def __init__(self, host: str, port: int, name: str) -> None:
        self.host, self.port, self.name = host, port, name
        self.lamp = False
        self.failures = 0

    def run(self) -> None:
        while True:
            try:
                self.converse()
            except OSError as error:
                print("no connection:", error)
            # Longer each time, and random, so that devices that lost the server together do not return together.
            time.sleep(random.random() * min(LONGEST_PAUSE, 2 ** min(self.failures, 10)))
            self.failures += 1

    def converse(self) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(self.host, self.port, 0, socket.SOCK_STREAM)[0]
        self.connection = socket.socket(family, kind, protocol)
        try:
            self.connection.settimeout(SILENCE)  # to connect, and to send
            self.connection.connect(address)
            self.say(f"/join {self.name}")
            self.listen()
        finally:
            self.connection.close()

    def say(self, line: str) -> None:
        self.connection.sendall(line.encode() + b"\n")

    def listen(self) -> None:
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        self.named = False
        rest = b""
        heard = due = now()
        while True:
            if now() >= due:
                self.beat()
                due = now() + EVERY
            if poll.poll(max(0, int((due - now()) * 1000))):
                data = self.connection.recv(512)
                if not data:
                    raise OSError("the server ended it")
                heard = now()
                *lines, rest = (rest + data).split(b"\n")
                rest = rest[: LONGEST + 1]
                for line in lines:
                    if len(line) <= LONGEST:
                        self.read(line.decode().rstrip("\r"))
            elif now() - heard >= SILENCE:
                raise OSError("no answer")

    def beat(self) -> None:
        if not self.named:  # after a lost connection the old one may hold the name for a while
            self.say(f"/nick {self.name}")
        self.say("/json " + json.dumps({"temperature": 21.5, "lamp": self.lamp}))
        self.say("ping")

    def read(self, line: str) -> None:
        if line == "pong":
            self.failures = 0
        elif line.startswith("! "):  # an error, or why the connection ends
            print(line)
        elif line.startswith("* "):
            self.named = self.named or line.endswith(f" is now {self.name}")
        else:
            sender, _, text = line.partition(": ")
            if sender != self.name and text in ("lamp on", "lamp off"):
                self.lamp = text == "lamp on"
                print(text)
                self.say("/json " + json.dumps({"lamp": self.lamp}))


if __name__ == "__main__":
    Device(sys.argv[1], int(sys.argv[2]), sys.argv[3]).run()
