"""Claims: what is offered becomes what is held.

**Visibility.** Rows a worker was notified of before anybody else can see them:
a hint leaves with the commit record in the write-ahead log, and PostgreSQL makes a transaction visible to
others just after it has written that record. So a quick hint overtakes: a claim finds no row yet, or the row
as it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reactivex import Observable
from reactivex.subject import Subject

from reactive_worker.errors import InvalidTaskError, ReactiveWorkerError, WorkerExpiredError
from reactive_worker.models import Candidate, ClaimResult, Todo
from reactive_worker.store.store import TodoStore
from reactive_worker.worker.delivery import Delivery
from reactive_worker.worker.held import Held
from reactive_worker.worker.observe import observe
from reactive_worker.worker.telemetry import ClaimUnreadable, ClaimUnrefused, TaskClaimed, Telemetry

#: Seconds after which a row that still is not as it was told is taken for gone. The gap is microseconds, or
#: as long as a busy server lets a committing process wait for its turn, which may be seconds.
PATIENCE = 10.0
#: Seconds to wait before a claim that found nothing else is repeated.
PAUSES = (0.003, 0.01, 0.03)


class Visibility:
    """Tells rows that are yet to be seen from those that are gone.

    Parameters
    ----------
    now:
        A clock, in seconds.

    Example
    -------
    >>> from datetime import UTC, datetime
    >>> told = Candidate("1", "echo", 0, 0, *[datetime.now(UTC)] * 2, source="realtime")
    >>> Visibility().judge([told], ClaimResult((), ("1",), {"1": None})).gone
    ()
    >>> Visibility().judge([told], ClaimResult((), ("1",), {"1": 1})).gone  # somebody was quicker
    ('1',)
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: dict[tuple[str, int], float] = {}

    def judge(self, offered: Iterable[Candidate], result: ClaimResult) -> ClaimResult:
        """The result of a claim, without the ids among its `gone` that deserve another look."""
        now = self._now()
        gone = set(result.gone)
        waiting: dict[tuple[str, int], float] = {}
        for candidate in offered:
            if candidate.id not in gone or candidate.source != "realtime":
                continue
            attempt = result.attempts.get(candidate.id, candidate.attempt + 1)
            since = self._since.get(candidate.key, now)
            # Whoever claimed it meanwhile has counted one up.
            if (attempt is None or attempt <= candidate.attempt) and now - since < PATIENCE:
                waiting[candidate.key] = since
        # What was not offered this time is kept as long as it may be offered again.
        old = {key: since for key, since in self._since.items() if now - since < 10 * PATIENCE}
        self._since = {**old, **waiting}
        kept = {id for id, _ in waiting}
        return replace(result, gone=tuple(id for id in result.gone if id not in kept))


class Claiming:
    """Claims rows for one worker, as `streams.dispatch` takes it.

    Parameters
    ----------
    store, worker_id:
        Where they are, and for whom.
    held:
        Holds what is claimed.
    delivery:
        Fails claimed rows that cannot be read.
    telemetry:
        Told of what is claimed, and what cannot be read.

    Attributes
    ----------
    claimed:
        Rows just claimed, hot; before they run.
    expired:
        A claim was refused because the lease has run out, hot.
    visibility:
        What it knows of rows that cannot be seen yet.
    """

    def __init__(
        self, store: TodoStore, worker_id: str, held: Held, delivery: Delivery, telemetry: Telemetry
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._held = held
        self._delivery = delivery
        self._telemetry = telemetry
        self.claimed: Subject[Sequence[Todo]] = Subject()
        self.expired: Subject[None] = Subject()
        self.visibility = Visibility()

    def __call__(self, offered: Sequence[Candidate], want: int) -> Observable[ClaimResult]:
        """Claim up to `want` of `offered`, in this order, when subscribed."""
        return observe(lambda: self.claim(offered, want))

    async def claim(self, offered: Sequence[Candidate], want: int) -> ClaimResult:
        """The same as a coroutine. Raises what the store raises."""
        # Until its rows are held nothing may take the worker for idle, nor a row of it for a stray.
        with self._held.claiming():
            try:
                result = await self._visible(offered, want)
            except WorkerExpiredError:
                self.expired.on_next(None)
                raise
            for todo in result.claimed:
                self._held.hold(todo)
                self._telemetry.emit(TaskClaimed(todo.id, todo.attempt, todo.agent_type))
            self.claimed.on_next(result.claimed)
        while self._store.unreadable:
            await self._refuse(*self._store.unreadable.pop())
        return result

    async def _visible(self, offered: Sequence[Candidate], want: int) -> ClaimResult:
        ids = [candidate.id for candidate in offered]
        pauses = list(PAUSES)
        while True:
            answer = await self._store.claim(self._worker_id, ids, want)
            result = self.visibility.judge(offered, answer)
            if result.claimed or result.gone == answer.gone or not pauses:
                return result
            # Nothing to run, and a hint that overtook its row: a moment later it is there.
            await asyncio.sleep(pauses.pop(0))

    async def _refuse(self, row: Mapping[str, Any], error: InvalidTaskError) -> None:
        self._telemetry.emit(ClaimUnreadable(str(row.get("id")), str(error)))
        try:
            await self._delivery.refuse(row, error)
        except ReactiveWorkerError as problem:
            # Those that came with it must run all the same. This one is a stray from now on: it is handed
            # back, and comes again.
            self._telemetry.emit(ClaimUnrefused(str(row.get("id")), str(problem)))
