"""Revocations at a node that comes later: it asks the others for those that are in force."""

from __future__ import annotations

from msgspec import DecodeError
from msgspec.msgpack import Decoder, encode

from longconn.core.broker import Done
from longconn.core.errors import CommandError
from longconn.core.hub import Hub
from longconn.core.revocations import Revocation

_read = Decoder(list[Revocation]).decode
_METHOD = "revocations"


def share_revocations(hub: Hub) -> None:
    """Answer other nodes that ask, and ask them once the broker is reached."""

    def answer(body: bytes, done: Done[bytes]) -> None:
        done(encode(hub.gate.revocations.in_force(hub.wall_time())))

    def ask() -> None:
        if hub.ready:
            hub.ready_watchers.discard(ask)
            hub.nodes.ask_others(_METHOD, b"", known)

    def known(answers: list[bytes | CommandError]) -> None:
        present = set(hub.gate.revocations)
        for each in answers:
            try:
                found = [] if isinstance(each, CommandError) else _read(each)
                for revocation in found:
                    if revocation not in present:
                        present.add(revocation)
                        hub.gate.revocations.add(revocation, hub.wall_time())
            except (CommandError, DecodeError):
                continue  # there are too many, or the node speaks another version

    hub.nodes.handlers[_METHOD] = answer
    if hub.broker.problem:
        hub.ready_watchers.add(ask)
