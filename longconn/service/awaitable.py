"""A Deferred for coroutines of Twisted and of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

_T = TypeVar("_T")


class AwaitableDeferred(Deferred[_T]):
    """A Deferred that a coroutine may await under any driver.

    Twisted drives a coroutine by `Deferred.fromCoroutine`. On the asyncio reactor an `asyncio.Task` may drive it, which
    refuses a plain Deferred. Cancelling the Task cancels the Deferred.
    """

    def __await__(self) -> Generator[Any, Any, _T]:
        if not self.called:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                pass  # another reactor: Twisted is the driver
            else:
                yield from self._wait_in_task(loop)
        return (yield from super().__await__())

    def _wait_in_task(self, loop: asyncio.AbstractEventLoop) -> Generator[Any, Any, None]:
        """Wait for the result, if a Task is the driver. Return at once if Twisted is.

        The running loop does not tell: a Task may have started a coroutine that Twisted drives. So a future is
        yielded. A Task waits for it; Twisted sends back whatever is no Deferred (`inlineCallbacks` documents it).
        """
        future = loop.create_future()

        def wake(result: Any) -> Any:
            if not future.done():
                future.set_result(None)
            return result

        self.addBoth(wake)
        try:
            # `__await__` of a future marks it as awaited before it yields it.
            yield next(iter(future.__await__()))
        except BaseException:
            # The Task was cancelled: the result is of no more use.
            self.addErrback(lambda failure: None)
            self.cancel()
            raise
