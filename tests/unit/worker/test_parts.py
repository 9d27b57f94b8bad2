"""Small parts of a worker: duties, fan-out, hooks, signals; and the examples in their docstrings."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import signal

import pytest
from reactivex import Observable
from reactivex import operators as ops

from reactive_worker.errors import ConfigurationError
from reactive_worker.models import Outcome, TodoEvent
from reactive_worker.store.duty import Duty
from reactive_worker.testing.marbles import VirtualTime, event
from reactive_worker.testing.workers import eventually
from reactive_worker.worker.fanout import Fanout
from reactive_worker.worker.hooks import beside_outcomes
from reactive_worker.worker.signals import stop_signals
from reactive_worker.worker.telemetry import SubscriberRaised, TelemetryEvent
from tests.unit.execution.virtual_time import virtual_time


@pytest.mark.parametrize(
    "name",
    ["store.duty", "store.heartbeat", "worker.clock", "worker.fanout", "worker.held", "worker.signals",
     "worker.telemetry"],
)  # fmt: skip
def test_the_examples_are_true(name: str) -> None:
    module = importlib.import_module(f"reactive_worker.{name}")
    extra = {"asyncio": asyncio, "signal": signal}
    result = doctest.testmod(module, extraglobs={**vars(module), **extra})
    assert result.attempted > 0
    assert result.failed == 0


# -- duties --------------------------------------------------------------------------------------------------


class Counts(Duty):
    def __init__(self, pause: float | None) -> None:
        super().__init__("counts")
        self.pause = pause
        self.at: list[float] = []
        self.error: Exception | None = None

    async def turn(self) -> float | None:
        self.at.append(round(asyncio.get_running_loop().time() - self.began, 3))
        if self.error is not None:
            raise self.error
        return self.pause

    async def start(self) -> None:
        self.began = asyncio.get_running_loop().time()
        await super().start()


@virtual_time
async def test_a_duty_takes_a_turn_at_once_by_the_clock_and_when_it_is_woken() -> None:
    duty = Counts(10.0)
    await duty.start()
    await duty.start()
    await asyncio.sleep(25)
    duty.wake()
    await asyncio.sleep(1)
    assert duty.at == [0, 10, 20, 25]
    await duty.stop()
    await duty.stop()
    await asyncio.sleep(60)
    assert len(duty.at) == 4


@virtual_time
async def test_a_duty_without_a_clock_waits_until_it_is_woken_and_dies_loudly() -> None:
    duty = Counts(None)
    await duty.start()
    await asyncio.sleep(1000)
    assert duty.at == [0]
    duty.error = RuntimeError("broken")
    duty.wake()
    await asyncio.sleep(1)
    assert duty.task is not None
    assert duty.task.done()
    with pytest.raises(RuntimeError, match="broken"):
        await duty.stop()


# -- fan-out -------------------------------------------------------------------------------------------------


def test_a_raising_subscriber_costs_the_others_nothing() -> None:
    told, heard, sunk = list[TelemetryEvent](), list[int](), list[int]()
    numbers: Fanout[int] = Fanout("numbers", told.append)

    def raising(number: int) -> None:
        raise ValueError(number)

    def sink(number: int) -> None:
        sunk.append(number)
        raise ValueError(number)

    numbers.subscribe(raising)
    numbers.add_sink("slack", sink)
    numbers.subscribe(heard.append)
    for number in (1, 2):
        numbers.on_next(number)
    assert (heard, sunk) == ([1, 2], [1, 2])
    assert told == [
        SubscriberRaised(where, f"ValueError: {number}")
        for number in (1, 2)
        for where in ("numbers", "sink 'slack'")
    ]


def test_sinks_are_named_and_can_be_taken_away() -> None:
    numbers: Fanout[int] = Fanout("numbers", print)
    heard: list[int] = []
    removed = numbers.add_sink("a", heard.append)
    with pytest.raises(ConfigurationError, match="a sink 'a' already"):
        numbers.add_sink("a", print)

    async def slack(number: int) -> None: ...

    with pytest.raises(ConfigurationError, match="coroutine function"):
        numbers.add_sink("b", slack)
    removed.dispose()
    numbers.on_next(1)
    assert heard == []


# -- hooks ---------------------------------------------------------------------------------------------------


def test_outcomes_go_past_the_hook_and_the_order_is_kept() -> None:
    time = VirtualTime()
    said = {"a": event("a"), "b": event("b"), "X": event("x", outcome=Outcome("completed"))}
    source = time.hot("-a-b-X-a|", said)

    def only_b(events: Observable[TodoEvent]) -> Observable[TodoEvent]:
        return events.pipe(ops.filter(lambda one: one is said["b"]))

    first, second = (time.observe(source.pipe(beside_outcomes(only_b))) for _ in range(2))
    time.run(6)
    second.dispose()
    time.run()
    assert first.messages == time.messages("---b-X--|", said)
    assert [message.value for message in second.messages] == [said["b"], said["X"]]
    assert source.subscriptions == [(0, 8), (0, 6)]


def test_a_hook_that_ends_does_not_end_what_goes_past_it() -> None:
    time = VirtualTime()
    said = {"a": event("a"), "X": event("x", outcome=Outcome("completed"))}
    result = time.observe(time.hot("-a-a-X-|", said).pipe(beside_outcomes(ops.take(1))))
    time.run()
    assert result.messages == time.messages("-a---X-|", said)


def test_the_source_error_is_its_error() -> None:
    time, error = VirtualTime(), RuntimeError("broke")
    result = time.observe(time.hot("--#", error=error).pipe(beside_outcomes(lambda events: events)))
    time.run()
    assert result.error is error


# -- signals -------------------------------------------------------------------------------------------------


async def test_every_worker_of_a_process_is_stopped_by_one_signal() -> None:
    told: list[tuple[str, int]] = []
    with stop_signals(lambda number: told.append(("a", number))):
        with stop_signals(lambda number: told.append(("b", number))):
            signal.raise_signal(signal.SIGTERM)
            await eventually(lambda: told)
            assert sorted(told) == [("a", signal.SIGTERM), ("b", signal.SIGTERM)]
        # The first to end takes nothing away from the other.
        told.clear()
        signal.raise_signal(signal.SIGINT)
        await eventually(lambda: told)
        assert told == [("a", signal.SIGINT)]
    assert not asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
