"""Hooks of the program that embeds the hub: callables and coroutines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from longconn.core.broker import Done
from longconn.core.errors import INTERNAL, CommandError
from longconn.core.hooks import Hook, HookReply, HookRequest, Hooks
from longconn.core.log import about, log

#: A decision, now or later. It raises `HookRefusalError` or `HookDisconnectError` to refuse.
HookFunction = Callable[[HookRequest], HookReply | Awaitable[HookReply]]


def program_hooks(
    functions: Mapping[str, HookFunction], header_names: tuple[str, ...] = (), timeout: float = 5.0, reactor: Any = None
) -> Hooks:
    """Hooks that call `functions`, by the name of the event: `connect`, `refresh`, `subscribe`, ….

    A function may return a Deferred, or be a coroutine that awaits Deferreds. It has `timeout` seconds on `reactor`
    (without a reactor as long as it takes). What it raises beside the two refusals is logged, and is a temporary error.
    `header_names` are the headers that requests bring. Raises TypeError for a name that is none.
    """
    hooks: dict[str, Any] = {name: _hook(name, each, timeout, reactor) for name, each in functions.items()}
    return Hooks(**hooks, header_names=tuple(each.lower() for each in header_names))


def _hook(name: str, function: HookFunction, timeout: float, reactor: Any) -> Hook:
    def ask(request: HookRequest, done: Done[HookReply]) -> None:
        def decided(result: HookReply | Failure) -> None:
            if not isinstance(result, Failure):
                done(result)
                return
            if not isinstance(result.value, CommandError):
                log.error("the hook %s failed: %s", name, result.getTraceback(), extra=about("hook_failed"))
            done(result.value if isinstance(result.value, CommandError) else CommandError(INTERNAL))

        try:
            answer: Any = function(request)
        except Exception:
            decided(Failure())
            return
        if not isawaitable(answer):
            decided(answer)
            return
        waiting: Deferred[Any] = answer if isinstance(answer, Deferred) else ensureDeferred(answer)  # type: ignore[arg-type]
        if reactor is not None:
            waiting.addTimeout(timeout, reactor)
        waiting.addBoth(decided)

    return ask
