"""How a session ends: running tasks finish or are handed back, and what was said is stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from reactive_worker.execution.runner import Runner
from reactive_worker.settings import Settings
from reactive_worker.worker.delivery import Delivery
from reactive_worker.worker.held import Held
from reactive_worker.worker.lease import Strays
from reactive_worker.worker.pipeline import Pipeline

logger = logging.getLogger(__name__)

#: Seconds the sink gets at shutdown to deliver what is still in memory, after the tasks have ended.
FLUSH_TIMEOUT = 10.0
#: Seconds each step of the shutdown still gets once it was asked to end now.
LAST_SECOND = 1.0

T = TypeVar("T")


class Shutdown:
    """The shutdown of one session, in patience and in haste.

    Parameters
    ----------
    settings:
        `drain_timeout` and `cancel_grace`, in seconds.
    pipeline, runner, held, delivery, strays:
        The session's parts.
    is_idle:
        Whether nothing is held and no claim is under way; asked whenever `look` is called.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        runner: Runner,
        held: Held,
        delivery: Delivery,
        strays: Strays,
        is_idle: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._runner = runner
        self._registry = held
        self._delivery = delivery
        self._strays = strays
        self._is_idle = is_idle
        self._idle = asyncio.Event()
        self._now = asyncio.Event()

    def hurry(self) -> None:
        """End now: every step still gets a last second."""
        self._now.set()

    def look(self) -> None:
        """Something has ended: perhaps there is nothing left to wait for."""
        if self._is_idle():
            self._idle.set()

    async def run(self) -> None:
        """Stop claiming, drain, hand back what does not end, and store what was said."""
        self._pipeline.stop_claiming()
        await self._drain()
        unfinished = self._runner.runs
        for run in unfinished:
            run.release()
        if unfinished:
            ended = asyncio.gather(*(run.wait() for run in unfinished), return_exceptions=True)
            await self._unless_now(ended, self._settings.cancel_grace + 1)
            for run in unfinished:
                run.hurry()
            # What was left behind must be so before the event loop ends, which would wait for it for ever.
            await asyncio.wait([asyncio.ensure_future(run.wait()) for run in unfinished], timeout=LAST_SECOND)
        back = [(held.todo.id, held.todo.attempt) for held in self._registry.running()]
        for id, attempt in back:
            self._registry.drop(id, attempt)
        flushed = await self._unless_now(self._pipeline.flush(FLUSH_TIMEOUT), FLUSH_TIMEOUT) or False
        if not flushed and self._delivery.give_up():
            flushed = await self._pipeline.flush(FLUSH_TIMEOUT * 2)
        if not flushed:
            logger.error(
                "the end of %d task(s) could not be delivered within %g s; they run again elsewhere",
                len(self._registry),
                FLUSH_TIMEOUT,
            )
        if back:
            logger.info("handing back %d unfinished task(s)", len(back))
            await self._strays.hand_back(back)

    async def _drain(self) -> None:
        # Set long ago perhaps, when nothing was held; what counts is from here on: no claim begins any more.
        self._idle.clear()
        self.look()
        await self._unless_now(self._idle.wait(), self._settings.drain_timeout)

    async def _unless_now(self, work: Awaitable[T], timeout: float) -> T | None:
        """The result of `work`, or None when `timeout` s went by; a second stop leaves it a last second."""
        doing = asyncio.ensure_future(work)
        now = asyncio.ensure_future(self._now.wait())
        try:
            await asyncio.wait([doing, now], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                # Whoever ends at once still deserves what takes milliseconds when the database is there.
                await asyncio.wait([doing], timeout=LAST_SECOND)
            return doing.result() if doing.done() else None
        finally:
            now.cancel()
            doing.cancel()
