"""Blocking code beside the event loop, in threads that may be left behind."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from reactive_worker.execution.processes import leave_copy

T = TypeVar("T")
P = ParamSpec("P")


class DaemonPool:
    """A thread for every call that runs, reused while idle.

    Not asyncio's default pool: that one has few threads, which blocked executors would use up for everybody
    (name resolution included), and the interpreter waits for all of them at exit, so one that never returns
    keeps the process alive. These are daemons, and there are as many as calls running: the worker's
    concurrency bounds them, plus those left behind.

    Parameters
    ----------
    idle:
        Seconds an unused thread waits for work before it ends.
    """

    def __init__(self, idle: float = 30.0) -> None:
        self._idle_time = idle
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        # One token for every thread that waits; taking it is the promise that a call follows.
        self._waiting = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._started = 0

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Run `call` in a thread, with a copy of this thread's context variables."""
        future: Future[T] = Future()
        context = contextvars.copy_context()
        self._calls.put((future, lambda: context.run(call)))
        if not self._waiting.acquire(blocking=False):
            with self._lock:
                self._started += 1
                name = f"reactive-worker-blocking-{self._started}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            try:
                future, call = self._calls.get(timeout=self._idle_time)
            except Empty:
                if self._waiting.acquire(blocking=False):
                    return
                continue  # Somebody has just taken our token: the call is on its way.
            if future.set_running_or_notify_cancel():
                _settle(future, call)
            del future, call  # An idle thread must not keep the last call's arguments alive.
            self._waiting.release()


def _settle(future: Future[Any], call: Callable[[], Any]) -> None:
    process = os.getpid()
    try:
        try:
            result = call()
        except BaseException as error:
            leave_copy(process, error)
            raise
        leave_copy(process)
    except StopIteration as error:
        # A future cannot carry it: whoever awaited would take it for the end of a generator.
        broken = RuntimeError(f"the function raised StopIteration: {error}")
        broken.__cause__ = error
        future.set_exception(broken)
    except BaseException as error:  # noqa: BLE001 - handed to whoever waits, SystemExit included
        future.set_exception(error)
    else:
        future.set_result(result)


_pool = DaemonPool()


async def run_blocking(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking code in a thread and wait for it.

    A thread cannot be cancelled: when this coroutine is, it goes on waiting for the thread, which should look
    at `context.stop_requested`, until it is cancelled a second time; then the thread is left behind. That is
    what the runner does with an executor that does not end within its grace period.

    Example
    -------
    >>> async def execute(self, context, event_queue):
    ...     text = await run_blocking(read_slowly, context.get_user_input())
    """
    future = asyncio.wrap_future(_pool.submit(lambda: call(*args, **kwargs)))
    # Left behind, it may still fail, and nobody is there to look at that.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not future.done():
            await asyncio.wait([future])
        raise
