"""Things that belong to one event loop: connections, futures, tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One `T` for each event loop that asks for it.

    A program may call `asyncio.run` again and again (sync views of a web framework, notebooks, task queues),
    or have a loop in each of several threads. What one loop has opened works in no other: each gets its own.

    Example
    -------
    >>> async def main() -> bool:
    ...     lists = PerLoop[list[int]]()
    ...     return lists.keep([1]) is lists.get()
    >>> asyncio.run(main())
    True
    """

    def __init__(self) -> None:
        # Two loops may run at the same time, in two threads.
        self._lock = threading.Lock()
        self._kept: dict[asyncio.AbstractEventLoop, T] = {}

    def get(self) -> T | None:
        """What the running loop keeps; None when it keeps nothing yet."""
        with self._lock:
            return self._kept.get(asyncio.get_running_loop())

    def keep(self, value: T) -> T:
        """Keep `value` for the running loop; what loops that have ended kept is forgotten."""
        with self._lock:
            self._kept = {loop: kept for loop, kept in self._kept.items() if not loop.is_closed()}
            self._kept[asyncio.get_running_loop()] = value
        return value

    async def end(self, close: Callable[[T], Coroutine[Any, Any, None]]) -> None:
        """Forget everything; this loop's value is closed here, any other in its own loop.

        Parameters
        ----------
        close:
            Closes one value. Only that of the running loop is closed when this returns.
        """
        with self._lock:
            kept, self._kept = self._kept, {}
        running = asyncio.get_running_loop()
        for loop, value in kept.items():
            if loop is not running and not loop.is_closed():
                _spawn(loop, close, value)
        if running in kept:
            await close(kept[running])


def _spawn(
    loop: asyncio.AbstractEventLoop, close: Callable[[T], Coroutine[Any, Any, None]], value: T
) -> None:
    tasks: set[asyncio.Task[None]] = set()  # a loop itself holds its tasks only weakly

    def begin() -> None:
        task = loop.create_task(close(value))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    try:
        loop.call_soon_threadsafe(begin)
    except RuntimeError:
        # It was closed between the look and the call: nothing of it is left to be closed.
        if not loop.is_closed():
            raise
