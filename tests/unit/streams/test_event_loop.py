"""The operators together, on a real event loop instead of virtual time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import reactivex
from reactivex import Observable
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.subject import BehaviorSubject, Subject

from reactive_worker.models import Candidate, ClaimResult, Outcome, SweepResult, Todo, TodoEvent
from reactive_worker.streams import (
    Backpressure,
    BatchResult,
    dedupe,
    dispatch,
    polling_sweep,
    prioritise,
    sink,
)
from reactive_worker.testing.marbles import EPOCH, candidate, event, todo

T = TypeVar("T")


def observe(call: Callable[[], Awaitable[T]]) -> Observable[T]:
    return reactivex.defer(lambda _: reactivex.from_future(asyncio.ensure_future(call())))


class Database:
    """Rows that wait, and events that were stored, behind calls that take a turn of the loop or three."""

    def __init__(self, count: int) -> None:
        self.pending = {
            f"{number:05}": candidate(f"{number:05}", priority=number % 7) for number in range(count)
        }
        self.started: list[str] = []
        self.stored: dict[str, list[int | None]] = {}
        self.calls = 0
        self.threads: set[int] = set()

    async def answer(self) -> None:
        self.calls += 1
        self.threads.add(threading.get_ident())
        for _ in range(3):
            await asyncio.sleep(0)

    async def sweep(self) -> SweepResult:
        await self.answer()
        best = sorted(self.pending.values(), key=lambda row: (-row.priority, row.id))[:500]
        return SweepResult(tuple(best), None, 0, EPOCH, full=len(best) == 500)

    async def claim(self, offered: list[Candidate], want: int) -> ClaimResult:
        await self.answer()
        ours = [row for row in offered if row.id in self.pending][:want]
        for row in ours:
            del self.pending[row.id]
        return ClaimResult(tuple(todo(row) for row in ours), ())

    async def store(self, events: list[TodoEvent]) -> BatchResult:
        await self.answer()
        for said in events:
            self.stored.setdefault(said.todolist_id, []).append(said.seq)
        return BatchResult()

    def run(self, row: Todo) -> Observable[TodoEvent]:
        self.started.append(row.id)
        said: Subject[TodoEvent] = Subject()

        async def work() -> None:
            said.on_next(event(row.id))
            await asyncio.sleep(0)
            said.on_next(event(row.id, outcome=Outcome("completed")))
            said.on_completed()

        return reactivex.merge(said, observe(work).pipe(reactivex.operators.ignore_elements()))


async def test_a_backlog_runs_once_each_in_few_calls_and_one_thread() -> None:
    count, concurrency = 3_000, 100
    database = Database(count)
    backpressure = Backpressure()
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    failures: list[object] = []

    def stored(_: object) -> None:
        if len(database.stored) == count and all(len(seqs) == 2 for seqs in database.stored.values()):
            done.set_result(None)

    swept = polling_sweep(
        lambda: observe(database.sweep),
        healthy=BehaviorSubject(True),
        backpressure=backpressure,
        on_error=failures.append,
    )
    working = swept.pipe(
        dedupe(forget=backpressure.released),
        prioritise(backpressure),
        dispatch(
            lambda offered, want: observe(lambda: database.claim(offered, want)),
            database.run,
            backpressure,
            concurrency=concurrency,
            on_error=lambda row, error: failures.append(error),
        ),
        sink(
            lambda events: observe(lambda: database.store(events)),
            first_seq=lambda said: 2,
            retryable=lambda error: False,
            on_lost=failures.append,
            on_error=lambda said, error: failures.append(error),
        ),
    )
    running = working.subscribe(
        stored, failures.append, scheduler=AsyncIOScheduler(asyncio.get_running_loop())
    )
    try:
        async with asyncio.timeout(60):
            await done
    finally:
        running.dispose()
    assert failures == []
    assert sorted(database.started) == [f"{number:05}" for number in range(count)]
    assert all(seqs == [2, 3] for seqs in database.stored.values())
    assert database.threads == {threading.get_ident()}
    # Strictly by priority as far as one claim reaches: the next claim is on its way while the last rows run.
    order = [int(id) % 7 for id in database.started]
    assert order == sorted(order, reverse=True)
    assert database.calls <= count / 10
