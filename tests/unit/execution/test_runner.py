"""The runner's register of runs, and runs as observables."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from a2a.server.agent_execution import RequestContext
from a2a.server.events import EventQueue

from reactive_worker.execution import Runner, to_observable
from reactive_worker.models import TodoEvent
from tests.unit.execution.fakes import Ran, Scripted, artifact, make_runner, make_todo, publisher, updater
from tests.unit.execution.virtual_time import virtual_time

OTHER = "6f1d3a52-0000-4000-8000-000000000002"


async def hang(context: RequestContext, queue: EventQueue) -> None:
    await asyncio.sleep(1e6)


@virtual_time
async def test_runs_are_known_until_their_slot_is_free() -> None:
    runner = make_runner(Scripted(hang))
    first = runner.start(make_todo(), lambda event: None)
    other = runner.start(make_todo(id=OTHER), lambda event: None)
    again = runner.start(make_todo(attempt=2), lambda event: None)
    await asyncio.sleep(1)
    assert set(runner.runs) == {first, other, again}
    assert runner.find(OTHER) is other
    assert runner.find(make_todo().id) is again
    assert runner.find(make_todo().id, 1) is first
    assert runner.find(OTHER, 7) is None
    for task_run in runner.runs:
        task_run.release()
    await asyncio.gather(*(task_run.wait() for task_run in (first, other, again)))
    assert runner.runs == ()


@virtual_time
async def test_a_cancelled_waiter_leaves_the_run_alone() -> None:
    ran = Ran()
    task_run = make_runner(Scripted(lambda context, queue: asyncio.sleep(10))).start(
        make_todo(), ran.events.append
    )
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task_run.wait(), 1)
    outcome = await task_run.wait()
    assert outcome is not None
    assert outcome.kind == "completed"
    assert ran.types == ["task_completed"]


@virtual_time
async def test_tasks_run_side_by_side() -> None:
    runner = make_runner(Scripted(lambda context, queue: asyncio.sleep(100)))
    runs = [runner.start(make_todo(attempt=n), lambda event: None) for n in range(1, 101)]
    await asyncio.gather(*(task_run.wait() for task_run in runs))
    assert asyncio.get_running_loop().time() == 100


@pytest.mark.parametrize(
    "options",
    [
        {"default_timeout": 0},
        {"default_timeout": -1},
        {"default_timeout": float("nan")},
        {"cancel_grace": -1},
        {"cancel_grace": float("nan")},
    ],
)
def test_nonsense_is_refused_when_the_runner_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Runner(lambda agent_type: Scripted(), **options)


# -- as observables ----------------------------------------------------------------------------------------


class Observer:
    def __init__(self) -> None:
        self.seen: list[TodoEvent] = []
        self.error: Exception | None = None
        self.completed = asyncio.Event()

    def subscribe(self, runner: Runner, **columns: Any) -> Any:
        return to_observable(runner, make_todo(**columns)).subscribe(
            on_next=self.seen.append, on_error=self._failed, on_completed=self.completed.set
        )

    def _failed(self, error: Exception) -> None:
        self.error = error
        self.completed.set()


@virtual_time
async def test_subscribing_runs_the_task_and_completes_after_its_outcome() -> None:
    executor = Scripted(publisher(artifact("a", "x")))
    runner = make_runner(executor)
    source = to_observable(runner, make_todo())
    await asyncio.sleep(1)
    assert executor.executed == []  # Cold.
    observer = Observer()
    source.subscribe(on_next=observer.seen.append, on_completed=observer.completed.set)
    await observer.completed.wait()
    assert [event.outcome is not None for event in observer.seen] == [False, True]
    assert runner.runs == ()


@virtual_time
async def test_it_completes_when_the_slot_is_free_not_when_the_outcome_is_known() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await updater(queue).complete()
        await asyncio.sleep(10)

    observer = Observer()
    observer.subscribe(make_runner(Scripted(execute)))
    await asyncio.sleep(5)
    assert len(observer.seen) == 1
    assert not observer.completed.is_set()
    await observer.completed.wait()
    assert asyncio.get_running_loop().time() == 10


@virtual_time
async def test_a_failing_executor_is_an_event_not_an_error() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        raise SystemExit(1)

    observer = Observer()
    observer.subscribe(make_runner(Scripted(execute)))
    await observer.completed.wait()
    assert observer.error is None
    assert observer.seen[-1].outcome is not None


@virtual_time
async def test_disposing_stops_the_run_without_a_word() -> None:
    executor = Scripted(hang)
    runner = make_runner(executor)
    observer = Observer()
    subscription = observer.subscribe(runner)
    await asyncio.sleep(1)
    subscription.dispose()
    subscription.dispose()
    await asyncio.sleep(1)
    assert runner.runs == ()
    assert observer.seen == []
    assert not observer.completed.is_set()
    assert executor.cancelled == []


@virtual_time
async def test_disposing_ends_clean_up_too() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await updater(queue).complete()
        await asyncio.sleep(1e6)

    runner = make_runner(Scripted(execute))
    observer = Observer()
    subscription = observer.subscribe(runner)
    await asyncio.sleep(1)
    subscription.dispose()
    await asyncio.sleep(1)
    assert len(observer.seen) == 1
    assert runner.runs == ()


@virtual_time
async def test_a_run_that_breaks_is_an_error_of_the_observable() -> None:
    class Broken(Exception):
        pass

    def emit(event: TodoEvent) -> None:
        raise Broken

    runner = make_runner(Scripted())
    task_run = runner.start(make_todo(), emit)
    errors: list[BaseException | None] = []
    task_run.when_done(errors.append)
    with pytest.raises(Broken):
        await task_run.wait()
    assert isinstance(errors[0], Broken)
    assert runner.runs == ()
