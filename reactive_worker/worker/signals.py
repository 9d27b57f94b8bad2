"""SIGINT and SIGTERM for every worker of a process: the first stops them all, the second ends them now."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Generator
from weakref import WeakKeyDictionary

OnSignal = Callable[[int], None]

SIGNALS = (signal.SIGINT, signal.SIGTERM)

# A loop has one handler for each signal: the workers that run in it share it.
_listening: WeakKeyDictionary[asyncio.AbstractEventLoop, list[OnSignal]] = WeakKeyDictionary()


@contextlib.contextmanager
def stop_signals(on_signal: OnSignal) -> Generator[None]:
    """Call `on_signal` with each SIGINT and SIGTERM while the body runs, and every other that asked for them.

    Only in the main thread: a worker in another thread of a program is stopped by `stop`.

    Example
    -------
    >>> async def main() -> None:
    ...     with stop_signals(print):
    ...         signal.raise_signal(signal.SIGTERM)
    ...         await asyncio.sleep(0.01)
    >>> asyncio.run(main())
    15
    """
    loop = asyncio.get_running_loop()
    handlers = _listening.setdefault(loop, [])
    first = not handlers
    handlers.append(on_signal)

    def told(number: int) -> None:
        for handler in list(handlers):
            handler(number)

    if first:
        for number in SIGNALS:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, told, number)
    try:
        yield
    finally:
        handlers.remove(on_signal)
        if not handlers:
            for number in SIGNALS:
                with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                    loop.remove_signal_handler(number)
