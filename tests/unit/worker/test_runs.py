"""Runs are told apart by (id, attempt): what is said of one attempt never stops another."""

from __future__ import annotations

import asyncio
from typing import Any

from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue

from reactive_worker.execution.runner import Runner
from reactive_worker.models import Todo, TodoEvent
from reactive_worker.store.heartbeat import read_answer
from reactive_worker.testing.marbles import todo
from reactive_worker.testing.workers import eventually
from reactive_worker.worker.held import Held
from reactive_worker.worker.runs import Runs
from reactive_worker.worker.telemetry import RunEnded, TaskLost, Telemetry, TelemetryEvent


class Waits(AgentExecutor):
    """Runs until it is told to go on; notes how many run at once."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.at_work = 0
        self.most = 0
        self.begun = 0

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        self.at_work += 1
        self.begun += 1
        self.most = max(self.most, self.at_work)
        try:
            await self.go_on.wait()
        finally:
            self.at_work -= 1

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        pass


class Bench:
    def __init__(self) -> None:
        self.executor = Waits()
        self.held = Held()
        self.told: list[TelemetryEvent] = []
        telemetry = Telemetry()
        telemetry.attach(self.told.append)
        self.runs = Runs(
            lambda executor_for, factory: Runner(executor_for, context_factory=factory),
            self.held,
            telemetry,
        )
        self.run = self.runs.run(self.executor, None)
        self.events: list[TodoEvent] = []

    def start(self, row: Todo) -> Any:
        self.held.hold(row)
        return self.run(row).subscribe(self.events.append)


def row(attempt: int) -> Todo:
    return todo("6c0e1f3e-2f6f-4f0e-9d3b-0c9a5b1d2e3f", attempt=attempt)


async def test_late_news_of_attempt_1_leaves_attempt_2_alone() -> None:
    it = Bench()
    second = row(2)
    it.start(second)
    await eventually(lambda: it.executor.begun)
    # Asked while attempt 1 was in flight, answered when it was over and the row was claimed again.
    late = read_answer(
        {"known": True, "lost": [second.id], "cancel": [second.id], "steer": [second.id]}, [(second.id, 1)]
    )
    it.runs.lose(late.lost)
    it.runs.cancel(late.cancel)
    assert late.steer == ((second.id, 1),)
    assert it.held.in_flight() == [(second.id, 2)]
    it.executor.go_on.set()
    await eventually(lambda: any(event.outcome for event in it.events))
    assert it.events[-1].outcome is not None
    assert it.events[-1].outcome.kind == "completed"
    assert [event for event in it.told if isinstance(event, TaskLost)] == []


async def test_a_running_row_set_back_by_hand_is_not_run_twice_at_once() -> None:
    it = Bench()
    it.start(row(1))
    await eventually(lambda: it.executor.begun == 1)
    it.start(row(2))
    await eventually(lambda: it.executor.begun == 2)
    assert it.executor.most == 1
    assert TaskLost(row(1).id, 1) in it.told
    it.executor.go_on.set()
    await eventually(lambda: any(event.outcome for event in it.events))
    assert {event.attempt for event in it.events if event.outcome} == {2}
    (ended,) = [event for event in it.told if isinstance(event, RunEnded)]
    assert (ended.attempt, ended.outcome) == (2, "completed")


async def test_disposal_while_the_earlier_attempt_ends_starts_no_other() -> None:
    it = Bench()
    it.start(row(1))
    await eventually(lambda: it.executor.begun == 1)
    it.start(row(2)).dispose()
    await eventually(lambda: not it.runs.active)
    assert it.executor.begun == 1
