"""The floor in Python: a loop of ``socket.send`` over all connections, for lines, without limits: floor.py PORT."""

from __future__ import annotations

import contextlib
import select
import socket
import sys


def main(port: int) -> None:
    """Send what one read brought to every connection."""
    listening = socket.create_server(("127.0.0.1", port), backlog=4096)
    epoll = select.epoll()
    epoll.register(listening, select.EPOLLIN)
    peers: dict[int, socket.socket] = {}
    while True:
        for number, _ in epoll.poll(maxevents=256):
            if number == listening.fileno():
                sock, _ = listening.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setblocking(False)
                peers[sock.fileno()] = sock
                epoll.register(sock, select.EPOLLIN)
                continue
            try:
                data = peers[number].recv(262144)
            except ConnectionError:
                data = b""
            if not data:
                epoll.unregister(number)
                peers.pop(number).close()
            elif data == b"ping\r\n":
                peers[number].send(b"pong\r\n")
            else:
                for send in [sock.send for sock in peers.values()]:
                    with contextlib.suppress(OSError):
                        send(data)


if __name__ == "__main__":
    main(int(sys.argv[1]))
