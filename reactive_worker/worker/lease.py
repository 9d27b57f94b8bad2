"""What a worker makes of the answers to its heartbeats: three small duties, each with a memory of its own."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from reactive_worker.errors import ReactiveWorkerError
from reactive_worker.store.heartbeat import HeartbeatAnswer
from reactive_worker.store.store import TodoStore

logger = logging.getLogger(__name__)

#: Seconds until the database is asked again about a signal it does not know of yet, and how long in all.
SIGNAL_PAUSE = 0.02
SIGNAL_PATIENCE = timedelta(seconds=5)


class Signals:
    """Asks what a touch of the mailbox was about, and again if it was heard before it could be seen.

    Parameters
    ----------
    beat_now:
        Sends a heartbeat.
    """

    def __init__(self, beat_now: Callable[[], None]) -> None:
        self._beat_now = beat_now
        self._at: datetime | None = None

    def heard(self, at: datetime | None) -> None:
        """Push told that the mailbox was touched at `at`, database time."""
        self._at = at
        self._beat_now()

    def answered(self, answer: HeartbeatAnswer) -> None:
        """A heartbeat was answered: did it see what was heard?"""
        if self._at is None:
            return
        if answer.signal_at is not None and answer.signal_at >= self._at:
            self._at = None
        elif answer.now is None or answer.now - self._at < SIGNAL_PATIENCE:
            asyncio.get_running_loop().call_later(SIGNAL_PAUSE, self._beat_now)


class NextDeath:
    """Sweeps in the moment another worker's lease ends, unless a heartbeat says that it was renewed.

    Parameters
    ----------
    sweep:
        Asks for a sweep now.
    """

    def __init__(self, sweep: Callable[[], None]) -> None:
        self._sweep = sweep
        self._expected: datetime | None = None
        self._timer: asyncio.TimerHandle | None = None

    def answered(self, answer: HeartbeatAnswer) -> None:
        """A heartbeat was answered: whose lease ends next?"""
        if answer.next_lease_end is None or answer.now is None or answer.next_lease_end == self._expected:
            return
        self.stop()
        self._expected = answer.next_lease_end
        # Spread, so that a fleet does not sweep in one instant; at least a moment, if it is overdue already.
        left = max((answer.next_lease_end - answer.now).total_seconds(), 0.3) + random.uniform(0.05, 0.3)
        self._timer = asyncio.get_running_loop().call_later(left, self._ended)

    def stop(self) -> None:
        """Expect nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _ended(self) -> None:
        # Forgotten, so that the next heartbeat expects it anew if this sweep may not call it dead yet.
        self._expected = None
        self._sweep()


class Strays:
    """Hands back rows whose claim was answered into the void: ours in the database, run by nobody.

    Parameters
    ----------
    store, worker_id:
        Where to, and as whom.
    is_held:
        Whether this worker knows of a run ``(id, attempt)``.
    """

    def __init__(self, store: TodoStore, worker_id: str, is_held: Callable[[str, int], bool]) -> None:
        self._store = store
        self._worker_id = worker_id
        self._is_held = is_held
        self._task: asyncio.Task[None] | None = None

    def answered(self, stray: Collection[tuple[str, int]]) -> None:
        """A heartbeat named runs that were not in flight when it was sent."""
        if self._task is not None and not self._task.done():
            return
        nobodys = [(id, attempt) for id, attempt in stray if not self._is_held(id, attempt)]
        if nobodys:
            logger.warning("%d task(s) were claimed but never arrived here: handing them back", len(nobodys))
            self._task = asyncio.create_task(self.hand_back(nobodys))

    async def hand_back(self, runs: Collection[tuple[str, int]]) -> None:
        """Make rows pending again, no failure counted; what cannot be handed back now is named again."""
        try:
            await self._store.release(self._worker_id, runs)
        except ReactiveWorkerError as error:
            logger.warning("could not hand tasks back: %s", error)

    def stop(self) -> None:
        """Leave what is under way."""
        if self._task is not None:
            self._task.cancel()
