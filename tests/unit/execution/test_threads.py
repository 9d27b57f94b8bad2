"""Blocking code in threads: results, errors, reuse, being left behind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import weakref
from typing import NoReturn

import pytest

from reactive_worker.execution.threads import DaemonPool, run_blocking

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")


async def test_it_returns_what_the_call_returns_with_its_arguments() -> None:
    assert await run_blocking(lambda a, b: (a, b, threading.get_ident()), 1, b=2) != (
        1,
        2,
        threading.get_ident(),
    )


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(2), KeyboardInterrupt()])
async def test_it_raises_what_the_call_raises(error: BaseException) -> None:
    def fail() -> NoReturn:
        raise error

    caught: list[BaseException] = []
    try:
        await run_blocking(fail)
    except BaseException as raised:  # Not through pytest.raises: an exit must not reach the loop.
        caught.append(raised)
    assert caught == [error]


async def test_stop_iteration_does_not_hang() -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await run_blocking(next, iter(()))


async def test_context_variables_travel_into_the_thread() -> None:
    variable.set("here")
    assert await run_blocking(variable.get) == "here"


async def test_more_calls_than_cores_run_at_the_same_time() -> None:
    barrier = threading.Barrier(50)
    async with asyncio.timeout(30):
        await asyncio.gather(*(run_blocking(barrier.wait, 30) for _ in range(50)))


async def test_threads_are_reused() -> None:
    pool = DaemonPool()
    names = {
        await asyncio.wrap_future(pool.submit(lambda: threading.current_thread().name)) for _ in range(20)
    }
    # A finished thread may not have come back yet when the next call arrives.
    assert len(names) < 20


async def test_an_idle_thread_keeps_nothing_of_its_last_call_alive() -> None:
    class Big:
        pass

    big = Big()
    gone = weakref.ref(big)
    await run_blocking(id, big)
    del big
    async with asyncio.timeout(10):
        while gone() is not None:
            await asyncio.sleep(0.001)


async def test_an_idle_thread_ends() -> None:
    pool = DaemonPool(idle=0.01)
    thread = await asyncio.wrap_future(pool.submit(threading.current_thread))
    async with asyncio.timeout(10):
        while thread.is_alive():
            await asyncio.sleep(0.001)
    assert await asyncio.wrap_future(pool.submit(threading.current_thread)) is not thread


async def test_the_first_cancellation_waits_and_the_second_leaves_the_thread_behind() -> None:
    entered, release = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        release.wait(60)

    task = asyncio.create_task(run_blocking(block))
    try:
        async with asyncio.timeout(20):
            while not entered.is_set():
                await asyncio.sleep(0.001)
            task.cancel()
            for _ in range(10):
                await asyncio.sleep(0)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    finally:
        release.set()


async def test_a_thread_left_behind_that_fails_later_complains_to_nobody() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    entered, release, thread = threading.Event(), threading.Event(), list[threading.Thread]()

    def block() -> None:
        thread.append(threading.current_thread())
        entered.set()
        release.wait(60)
        raise ValueError("too late")

    task = asyncio.create_task(run_blocking(block))
    async with asyncio.timeout(20):
        while not entered.is_set():
            await asyncio.sleep(0.001)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert task.cancelled()
        release.set()
        # The thread is free for the next call when it has handed its failure over.
        while await run_blocking(threading.current_thread) is not thread[0]:
            pass
    del task
    gc.collect()
    assert complaints == []


def test_a_thread_left_behind_does_not_keep_the_process_alive() -> None:
    code = (
        "import asyncio, time\n"
        "from reactive_worker.execution.threads import run_blocking\n"
        "async def main():\n"
        "    task = asyncio.create_task(run_blocking(time.sleep, 3600))\n"
        "    await asyncio.sleep(0.05)\n"
        "    task.cancel(); await asyncio.sleep(0); await asyncio.sleep(0); task.cancel()\n"
        "asyncio.run(main())\n"
        "print('ended')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "ended\n", done.stderr
    assert done.stderr == ""
