"""What a worker makes of the answers to its heartbeats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from reactive_worker.errors import UnreachableError
from reactive_worker.store.duty import Duty
from reactive_worker.store.heartbeat import HeartbeatAnswer
from reactive_worker.testing.marbles import todo
from reactive_worker.worker.held import Held
from reactive_worker.worker.lease import NextDeath, Registration, Signals, Strays
from reactive_worker.worker.telemetry import HandBackFailed, Telemetry, TelemetryEvent
from tests.unit.execution.virtual_time import virtual_time

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@asynccontextmanager
async def at_work(duty: Duty) -> AsyncGenerator[None]:
    await duty.start()
    try:
        yield
    finally:
        await duty.stop()


@virtual_time
async def test_a_signal_heard_before_it_can_be_seen_is_asked_for_until_it_is() -> None:
    beats: list[None] = []
    signals = Signals(lambda: beats.append(None))
    async with at_work(signals):
        signals.heard(after(1))
        for n, seen in enumerate((None, after(0), after(1), after(1)), start=1):
            assert len(beats) == min(n, 3)
            signals.answered(HeartbeatAnswer(True, now=after(1.1), signal_at=seen))
            await asyncio.sleep(1)
    assert len(beats) == 3


@virtual_time
async def test_a_signal_that_never_shows_is_given_up() -> None:
    beats: list[None] = []
    signals = Signals(lambda: beats.append(None))
    async with at_work(signals):
        signals.answered(HeartbeatAnswer(True, now=NOW))
        signals.heard(NOW)
        signals.answered(HeartbeatAnswer(True, now=after(60)))
        await asyncio.sleep(1)
    assert len(beats) == 1


@virtual_time
async def test_a_sweep_comes_when_anothers_lease_ends_and_not_when_it_was_renewed() -> None:
    sweeps: list[float] = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    death = NextDeath(lambda: sweeps.append(loop.time() - began))
    async with at_work(death):
        death.answered(HeartbeatAnswer(True, now=NOW, next_lease_end=after(5)))
        await asyncio.sleep(3)
        death.answered(HeartbeatAnswer(True, now=after(3), next_lease_end=after(8)))
        await asyncio.sleep(3)
        assert sweeps == []
        await asyncio.sleep(4)
        (at,) = sweeps
        assert 8 < at < 8.5
        # Not dead yet, says the database: the next heartbeat expects it anew.
        death.answered(HeartbeatAnswer(True, now=after(10), next_lease_end=after(8)))
        await asyncio.sleep(1)
        assert len(sweeps) == 2
        death.answered(HeartbeatAnswer(True, now=after(11), next_lease_end=after(20)))
    await asyncio.sleep(60)
    assert len(sweeps) == 2


class Store:
    def __init__(self) -> None:
        self.released: list[list[tuple[str, int]]] = []
        self.error: Exception | None = None

    async def release(self, worker_id: str, runs: Collection[tuple[str, int]]) -> None:
        self.released.append(list(runs))
        await asyncio.sleep(1)
        if self.error is not None:
            raise self.error


@virtual_time
async def test_strays_are_handed_back_and_those_that_are_held_are_not() -> None:
    store: Any = Store()
    held, telemetry, told = Held(), Telemetry(), list[TelemetryEvent]()
    telemetry.attach(told.append)
    held.hold(todo("held", attempt=1))
    strays = Strays(store, "w", held, telemetry)
    async with at_work(strays):
        strays.answered([("held", 1)])
        strays.answered([("held", 1), ("lost", 2)])
        await asyncio.sleep(0)
        # Still under way: named again, it is not sent again.
        strays.answered([("lost", 2)])
        await asyncio.sleep(2)
        assert store.released == [[("lost", 2)]]
        store.error = UnreachableError("away")
        strays.answered([("lost", 2)])
        await asyncio.sleep(2)
        assert told[-1] == HandBackFailed(1, "away")
        strays.answered([("lost", 2)])
        await asyncio.sleep(2)
        assert len(store.released) == 3
        # What waits in the spool is no stray, whatever the database says.
        strays.may_hand_back = False
        strays.answered([("lost", 2)])
        await asyncio.sleep(2)
    assert len(store.released) == 3


@virtual_time
async def test_a_worker_registers_again_for_as_long_as_it_takes() -> None:
    tries = 0

    async def register() -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise UnreachableError("away")

    registration = Registration(register, Telemetry())
    async with at_work(registration):
        await asyncio.sleep(60)
        assert tries == 0
        registration.again()
        registration.again()
        await asyncio.sleep(60)
    assert (tries, registration.is_wanted) == (4, False)
