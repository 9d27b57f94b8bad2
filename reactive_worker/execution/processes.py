"""What executors do to the process they share: copies of it, and threads that would keep it alive."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Awaitable, Coroutine, Generator
from types import TracebackType
from typing import Any, NoReturn

_logger = logging.getLogger(__name__)

#: Seconds a process whose work is done waits for threads that executors have left behind.
LAST_WAIT = 2.0

# Event loops of workers, for the copies of them that a fork makes.
_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


def end_process_within(seconds: float, code: int) -> None:
    """End this process with `code` if it has not ended by itself in `seconds`.

    For a program that has nothing left to do: the interpreter waits for every thread that is no daemon, for
    asyncio's own pool and for the children of `multiprocessing`, and an executor may have left any of them in
    the middle of something that takes hours. Does nothing to a process that ends in time.

    Parameters
    ----------
    seconds:
        How long to wait.
    code:
        Exit status.
    """

    def watch() -> None:
        ended.wait(seconds)
        left = [each.name for each in threading.enumerate() if not each.daemon and each is not main]
        _logger.warning(
            "ending without what executors have left behind: %s",
            f"{len(left)} thread(s), {', '.join(left[:5])}" if left else "something that does not end",
            extra={"action": "left_behind"},
        )
        logging.shutdown()
        _exit(code)

    main = threading.main_thread()
    # Never set: as a daemon, the watch ends with the process.
    ended = threading.Event()
    threading.Thread(target=watch, name="reactive-worker-last-wait", daemon=True).start()


class Watched(Coroutine[Any, Any, None]):
    """Runs a coroutine, and ends a copy of this process before it gets back to what called it.

    An executor may call `os.fork()`. Its copy of the process has this worker's event loop and sockets, and
    `sys.exit()` there would only be one more exception of an executor: the copy would go on as a second
    worker over the same connections. Whatever it does, it leaves here.

    Example
    -------
    >>> await Watched(executor.execute(context, queue))  # doctest: +SKIP
    """

    __slots__ = ("_inner", "_process")

    def __init__(self, call: Awaitable[None]) -> None:
        self._process = os.getpid()
        self._inner = call.__await__()
        loop = asyncio.get_running_loop()
        if loop not in _loops:
            _loops.add(loop)

    def __await__(self) -> Generator[Any, Any, None]:
        return self  # type: ignore[return-value] - `await` takes whatever has send() and throw()

    def __iter__(self) -> Watched:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any, /) -> Any:
        try:
            return self._inner.send(value)
        except BaseException as error:
            leave_copy(self._process, error)
            raise
        finally:
            leave_copy(self._process)

    def throw(
        self,
        typ: BaseException | type[BaseException],
        val: object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any:
        raised = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        try:
            return self._inner.throw(raised if tb is None else raised.with_traceback(tb))
        except BaseException as error:
            leave_copy(self._process, error)
            raise
        finally:
            leave_copy(self._process)

    def close(self) -> None:
        self._inner.close()


def leave_copy(process: int, error: BaseException | None = None) -> None:
    """End this process if it is a fork of `process`, as `error` says; else do nothing.

    Parameters
    ----------
    process:
        Id of the process that the caller's stack belongs to.
    error:
        What ended the code that forked; None or StopIteration when it returned.
    """
    if os.getpid() == process:
        return
    if isinstance(error, SystemExit):
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
            _exit(1)
        _exit(error.code or 0)
    if error is None or isinstance(error, StopIteration):
        _exit(0)
    traceback.print_exception(error)
    _exit(130 if isinstance(error, KeyboardInterrupt) else 1)


def _exit(code: int) -> NoReturn:
    # Without what the interpreter does at its end: in a fork it would close this worker's connections, and
    # wait for threads that are not there.
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)


def _in_copy() -> None:
    """After a fork, in the child: what gets back to a loop of the parent, in a task of its own perhaps, ends.

    The loop's selector is shared with the parent's, so not one more callback may run there.
    """
    for loop in list(_loops):
        # Closed, or in debug mode and forked from another thread: then nothing gets back to it.
        with contextlib.suppress(RuntimeError):
            loop.call_soon(_exit, 0)
        ready = getattr(loop, "_ready", None)
        if isinstance(ready, deque):
            ready.rotate(1)  # Before all that waits already.


os.register_at_fork(after_in_child=_in_copy)
