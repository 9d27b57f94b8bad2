"""How a session ends: running tasks finish or are handed back, and what was said is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from reactive_worker.settings import Settings
from reactive_worker.worker.delivery import Delivery
from reactive_worker.worker.held import Held
from reactive_worker.worker.lease import Strays
from reactive_worker.worker.runs import Runs
from reactive_worker.worker.storing import Storing
from reactive_worker.worker.telemetry import EndsUndelivered, Telemetry

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
    storing, runs, held, delivery, strays:
        The session's parts.
    telemetry:
        Told of ends that could not be delivered.
    """

    def __init__(
        self,
        settings: Settings,
        storing: Storing,
        runs: Runs,
        held: Held,
        delivery: Delivery,
        strays: Strays,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._storing = storing
        self._runs = runs
        self._held = held
        self._delivery = delivery
        self._strays = strays
        self._telemetry = telemetry
        self._now = asyncio.Event()
        self._leaseless = False

    def hurry(self) -> None:
        """End now: every step still gets a last second."""
        self._now.set()

    def without_lease(self) -> None:
        """Nobody renews the lease any more: nothing may run on, for others will soon run the same."""
        self._leaseless = True
        self._now.set()

    async def run(self) -> None:
        """Drain, hand back what does not end, and store what was said; no claim begins any more."""
        if not self._leaseless:
            await self._unless_now(self._held.empty(), self._settings.drain_timeout)
        unfinished = self._runs.active
        for run in unfinished:
            run.release()
        if unfinished:
            ended = asyncio.gather(*(run.wait() for run in unfinished), return_exceptions=True)
            await self._unless_now(ended, self._settings.cancel_grace + 1)
            for run in unfinished:
                run.hurry()
            # What was left behind must be so before the event loop ends, which would wait for it for ever.
            await asyncio.wait([asyncio.ensure_future(run.wait()) for run in unfinished], timeout=LAST_SECOND)
        back = [task.key for task in self._held.running()]
        for key in back:
            self._held.drop(*key)
        flushed = await self._unless_now(self._storing.flush(FLUSH_TIMEOUT), FLUSH_TIMEOUT) or False
        if not flushed and self._delivery.give_up():
            self._strays.may_hand_back = False
            flushed = await self._storing.flush(FLUSH_TIMEOUT * 2)
        if not flushed:
            self._telemetry.emit(EndsUndelivered(len(self._held), FLUSH_TIMEOUT))
        if back:
            await self._strays.hand_back(back, "unfinished task(s)")

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
