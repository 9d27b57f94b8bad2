"""A machine's clock that is set makes no burst and no standstill: operators count by another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from reactivex import Observable
from reactivex.scheduler import TimeoutScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.subject import Subject

from reactive_worker.streams import dedupe, hold_until_due, limit_concurrency, rate_limit
from reactive_worker.streams._scheduling import ticks
from reactive_worker.testing.marbles import VirtualTime, candidate
from reactive_worker.worker.clock import Clock

HOUR = timedelta(hours=1)


class Watch(AsyncIOScheduler):
    """The scheduler of an event loop on a machine whose clock somebody sets."""

    wrong = timedelta()

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) + self.wrong


Operator = Callable[[Observable[Any]], Observable[Any]]


def passed(operator: Operator, wrong: timedelta, *offers: Any) -> list[str]:
    """What comes out of these offers, the clock being set before the last of them."""

    async def run() -> list[str]:
        clock = Watch(asyncio.get_running_loop())
        source: Subject[Any] = Subject()
        seen: list[str] = []
        with source.pipe(operator).subscribe(lambda row: seen.append(row.id), scheduler=clock):
            for offer in offers[:-1]:
                source.on_next(offer)
            clock.wrong = wrong
            source.on_next(offers[-1])
            # Timers that are due at once run in the next turns.
            for _ in range(5):
                await asyncio.sleep(0)
        return seen

    return asyncio.run(run())


both_ways = pytest.mark.parametrize("wrong", [HOUR, -HOUR, 24 * 365 * HOUR], ids=str)


@both_ways
def test_what_was_seen_a_moment_ago_is_still_a_repeat(wrong: timedelta) -> None:
    row = candidate("a")
    assert passed(dedupe(ttl=60), wrong, row, row) == ["a"]


@both_ways
def test_a_rate_is_kept(wrong: timedelta) -> None:
    rows = [candidate(name) for name in "abcd"]
    assert passed(rate_limit(lambda row: row.agent_type, 60, limit=2), wrong, *rows) == ["a", "b"]


@both_ways
def test_places_are_kept(wrong: timedelta) -> None:
    quiet: Subject[Any] = Subject()
    rows = [candidate(name) for name in "abc"]
    operator = limit_concurrency(lambda row: row.agent_type, 1, finished=quiet, started=quiet, patience=60)
    assert passed(operator, wrong, *rows) == ["a"]


@both_ways
def test_nothing_falls_due(wrong: timedelta) -> None:
    soon = datetime.now(UTC).timestamp() + 600
    rows = [candidate("later", due=soon), candidate("now", due=0)]
    assert passed(hold_until_due(), wrong, *rows) == ["now"]


def test_virtual_time_is_what_tests_move() -> None:
    time = VirtualTime()
    now = ticks(time.scheduler)
    before = now()
    time.advance(90)
    assert now() - before == pytest.approx(90)


def test_schedulers_of_threads_count_by_the_monotonic_clock() -> None:
    import time

    assert ticks(TimeoutScheduler.singleton()) is time.monotonic


def test_the_database_clock_goes_on_at_its_own_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("reactive_worker.worker.clock.time.monotonic", lambda: now)
    clock = Clock()
    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
    clock.set(noon)
    now += 90
    assert clock.now() == noon + timedelta(seconds=90)
    clock.at_least(noon)
    assert clock.now() == noon + timedelta(seconds=90)
    clock.at_least(noon + HOUR)
    assert clock.now() == noon + HOUR
