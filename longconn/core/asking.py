"""Publications and subscriptions that the application decides about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from longconn.core.broker import Done
from longconn.core.client import Caller, Client
from longconn.core.disconnects import Disconnect
from longconn.core.errors import TOO_MANY_REQUESTS, CommandError
from longconn.core.hooks import MOST_WAITING, Decisions, Hook, HookDisconnectError, HookReply, HookRequest
from longconn.core.publication import Data

#: Seconds for which a caller waits that waits for too many decisions.
PAUSE = 0.05


def request_of(caller: Caller, channel: str = "", data: bytes = b"", method: str = "") -> HookRequest:
    """The request of a hook about what `caller` asks for."""
    return HookRequest(
        caller.id, caller.protocol, caller.address, caller.user, channel, method, data, caller.headers
    )  # fmt: skip


def waits_for_too_much(caller: Caller) -> bool:
    """Whether so many decisions are due that the caller has to wait before it asks for more."""
    return caller.decisions is not None and len(caller.decisions) >= MOST_WAITING


def in_order(caller: Caller, work: Callable[[Callable[[], None]], None]) -> None:
    """Call `work` when what the caller asked for before is decided. It gets a callable for when itself is."""
    if caller.decisions is None:
        caller.decisions = Decisions()
    caller.decisions.run(work)


def ask_to_publish(
    hook: Hook | None, caller: Caller, channel: str, data: Data, done: Done[Any], publish: Callable[[Data, bool], None]
) -> None:
    """Call `publish` with the data, and whether to keep it, if the application allows it, or if there is no `hook`.

    Publications that nobody decides about take their turn, too: the order of a caller's publications is kept.
    """

    def work(finished: Callable[[], None]) -> None:
        def decided(reply: HookReply | CommandError) -> None:
            if isinstance(reply, CommandError):
                _refuse(caller, reply, done)
            else:
                publish(Data.of_json(reply.data) if reply.data else data, not reply.skip_history)
            finished()

        if hook is None:
            decided(HookReply())
        else:
            hook(request_of(caller, channel, data.json), decided)

    in_order(caller, work)


def ask_to_subscribe(
    hook: Hook, client: Client, channel: str, done: Done[Any], subscribe: Callable[[HookReply], None]
) -> None:
    """Call `subscribe` with what the application decides, or `done` with its refusal."""

    def work(finished: Callable[[], None]) -> None:
        def decided(reply: HookReply | CommandError) -> None:
            if isinstance(reply, CommandError):
                _refuse(client, reply, done)
            else:
                subscribe(reply)
            finished()

        hook(request_of(client, channel), decided)

    in_order(client, work)


def _refuse(caller: Caller, error: CommandError, done: Done[Any]) -> None:
    disconnect: Disconnect | None = error.disconnect if isinstance(error, HookDisconnectError) else None
    done(error)
    if disconnect is not None and isinstance(caller, Client):
        caller.close(disconnect)


def too_many() -> CommandError:
    """The refusal of a caller that does not wait."""
    return CommandError(TOO_MANY_REQUESTS, retry_after=PAUSE)
