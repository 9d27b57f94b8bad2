"""Cancel, time-out, lost lease, release: what the executor is told and what is written."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from typing import Any

import pytest
from a2a.server.agent_execution import RequestContext
from a2a.server.events import EventQueue
from a2a.types import TaskState

from reactive_worker.errors import LeaseLostError
from reactive_worker.execution import TaskRun, TodoRequestContext
from reactive_worker.execution.threads import run_blocking
from tests.unit.execution.fakes import (
    START,
    Ran,
    Scripted,
    after,
    artifact,
    make_runner,
    make_todo,
    message,
    nothing,
    run,
    status,
    updater,
)
from tests.unit.execution.virtual_time import now, virtual_time

CANCELED = TaskState.TASK_STATE_CANCELED
COMPLETED = TaskState.TASK_STATE_COMPLETED
FAILED = TaskState.TASK_STATE_FAILED


async def hang(context: RequestContext, queue: EventQueue) -> None:
    """Work for ever, politely."""
    await asyncio.sleep(1e6)


async def stubborn(context: RequestContext, queue: EventQueue) -> None:
    """Swallow every cancellation."""
    while True:
        try:
            await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            continue


def cancel(run: TaskRun) -> None:
    run.cancel("changed my mind")


# -- cancel ------------------------------------------------------------------------------------------------


@virtual_time
async def test_cancel_asks_the_executor_then_cancels_the_coroutine() -> None:
    order: list[str] = []

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        try:
            await hang(context, queue)
        except asyncio.CancelledError:
            order.append("coroutine")
            raise

    async def on_cancel(context: RequestContext, queue: EventQueue) -> None:
        order.append("cancel()")
        await asyncio.sleep(1)
        order.append("cancel() done")

    executor = Scripted(execute, on_cancel)
    ran = await run(executor, act=after(5, cancel))
    assert order == ["cancel()", "cancel() done", "coroutine"]
    assert ran.types == ["task_cancelled"]
    assert ran.outcome.kind == "cancelled"
    assert ran.outcome.task_state == "TASK_STATE_CANCELED"
    assert ran.last.message == "changed my mind"
    assert now() == 6


@virtual_time
async def test_cancel_gets_a_context_without_request_and_the_current_task() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await queue.enqueue_event(artifact("a", "so far"))
        await hang(context, queue)

    executor = Scripted(execute)
    ran = await run(executor, act=after(1, cancel))
    (context,) = executor.cancelled
    (original,) = executor.executed
    assert context.message is None
    assert context.metadata == {}
    assert context.get_user_input() == ""
    assert (context.task_id, context.context_id) == (original.task_id, original.context_id)
    assert context.current_task is not None
    assert context.current_task.artifacts[0].parts[0].text == "so far"
    assert context.call_context.state is original.call_context.state
    assert isinstance(context, TodoRequestContext)
    assert context.stop_requested
    assert original.message is not None
    assert original.current_task is None
    # What was produced is kept.
    assert ran.outcome.output["text"] == "so far"


@virtual_time
async def test_a_published_cancellation_carries_its_message() -> None:
    async def on_cancel(context: RequestContext, queue: EventQueue) -> None:
        await updater(queue).cancel(message("stopped after two pages"))

    ran = await run(Scripted(hang, on_cancel), act=after(1, cancel))
    assert ran.types == ["task_cancelled"]
    assert ran.last.message == "stopped after two pages"


@virtual_time
async def test_completed_published_by_cancel_wins() -> None:
    async def on_cancel(context: RequestContext, queue: EventQueue) -> None:
        await updater(queue).complete(message("was ready anyway"))

    ran = await run(Scripted(hang, on_cancel), act=after(1, cancel))
    assert ran.types == ["task_completed"]
    assert ran.outcome.kind == "completed"


@pytest.mark.parametrize("state", [FAILED, TaskState.TASK_STATE_REJECTED, CANCELED])
@virtual_time
async def test_an_executor_that_answers_its_cancellation_with_failed_is_cancelled(state: TaskState) -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        try:
            await hang(context, queue)
        except BaseException:
            await queue.enqueue_event(status(state, "interrupted"))
            raise

    ran = await run(Scripted(execute), act=after(1, cancel))
    assert ran.types == ["task_cancelled"]
    assert ran.outcome.kind == "cancelled"
    assert ran.last.event_data["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELED"
    assert ran.last.message == "interrupted"


@virtual_time
async def test_cancelled_whatever_the_coroutine_does() -> None:
    async def returns(context: RequestContext, queue: EventQueue) -> None:
        try:
            await hang(context, queue)
        except asyncio.CancelledError:
            return

    async def raises(context: RequestContext, queue: EventQueue) -> None:
        try:
            await hang(context, queue)
        finally:
            raise ValueError("in the clean-up")

    async def asks(context: RequestContext, queue: EventQueue) -> None:
        try:
            await hang(context, queue)
        except asyncio.CancelledError:
            await updater(queue).requires_input(message("really?"))

    async def breaks_protocol(context: RequestContext, queue: EventQueue) -> None:
        await queue.enqueue_event(artifact("a", "x"))
        try:
            await hang(context, queue)
        except asyncio.CancelledError:
            await queue.enqueue_event(message())

    for execute in (returns, raises, asks, breaks_protocol):
        ran = await run(Scripted(execute), act=after(1, cancel))
        assert ran.outcome.kind == "cancelled", execute


@virtual_time
async def test_a_reply_given_before_the_cancel_is_the_result() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await queue.enqueue_event(message("the answer"))
        await hang(context, queue)

    ran = await run(Scripted(execute), act=after(1, cancel))
    assert ran.types == ["task_completed"]
    assert ran.outcome.output["text"] == "the answer"


@virtual_time
async def test_a_cancel_that_raises_is_logged_and_the_task_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def on_cancel(context: RequestContext, queue: EventQueue) -> None:
        raise SystemExit("sk-abcdefgh12345678")

    ran = await run(Scripted(hang, on_cancel), act=after(1, cancel))
    assert ran.outcome.kind == "cancelled"
    assert "cancel() of Scripted (test) raised SystemExit: [redacted]" in caplog.text


@virtual_time
async def test_a_cancel_that_hangs_leaves_half_of_the_grace_for_the_coroutine() -> None:
    cleaned: list[float] = []

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        try:
            await hang(context, queue)
        finally:
            await asyncio.sleep(4)
            cleaned.append(now())

    ran = await run(Scripted(execute, hang), act=after(1, cancel), cancel_grace=10)
    assert ran.outcome.kind == "cancelled"
    assert cleaned == [10]
    assert now() == 11


@virtual_time
async def test_an_executor_that_will_not_stop_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        await queue.enqueue_event(status(COMPLETED))
        raise ValueError("nobody listens")

    runner = make_runner(Scripted(execute), cancel_grace=10)
    ran = Ran()
    task_run = runner.start(make_todo(), ran.events.append)
    await asyncio.sleep(1)
    task_run.cancel()
    await task_run.wait()
    assert now() == 11
    assert ran.outcome.kind == "cancelled"
    assert "Scripted (test) did not stop within 10 s and is left behind" in caplog.text
    assert runner.abandoned == 1
    assert runner.runs == ()
    gc.collect()  # Only the runner holds it now.
    release.set()
    await asyncio.sleep(1)
    assert runner.abandoned == 0
    assert len(ran.events) == 1
    caplog.clear()
    gc.collect()
    assert "never retrieved" not in caplog.text


@virtual_time
async def test_a_cancel_that_came_before_the_start_never_executes() -> None:
    executor = Scripted(hang)
    ran = await run(executor, make_todo(cancel_requested_at=START.isoformat()))
    assert executor.executed == []
    (context,) = executor.cancelled
    assert isinstance(context, TodoRequestContext)
    assert context.stop_requested
    assert ran.types == ["task_cancelled"]
    assert now() == 0


@virtual_time
async def test_a_cancel_in_the_same_breath_as_the_start_never_executes() -> None:
    executor = Scripted(hang)

    async def act(task_run: TaskRun) -> None:
        task_run.cancel()

    ran = await run(executor, act=act)
    assert executor.executed == []
    assert ran.outcome.kind == "cancelled"


@virtual_time
async def test_a_cancel_while_the_history_is_loading_does_not_wait_for_it() -> None:
    async def load(todolist_id: str) -> list[Any]:
        await asyncio.sleep(1e6)
        return []

    executor = Scripted(hang)
    todo = make_todo(attempt=2, seq=4)
    ran = await run(executor, todo, act=after(1, cancel), load_events=load)
    assert executor.executed == []
    assert len(executor.cancelled) == 1
    assert ran.outcome.kind == "cancelled"
    assert now() == 1


@virtual_time
async def test_a_cancel_after_the_end_does_nothing() -> None:
    executor = Scripted()
    runner = make_runner(executor)
    ran = Ran()
    task_run = runner.start(make_todo(), ran.events.append)
    await task_run.wait()
    task_run.cancel()
    task_run.lose()
    task_run.release()
    await task_run.wait()
    assert executor.cancelled == []
    assert ran.types == ["task_completed"]


@virtual_time
async def test_a_cancel_that_comes_when_execute_has_returned_is_too_late() -> None:
    ran = Ran()

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        asyncio.get_running_loop().call_soon(cancel, task_run)

    executor = Scripted(execute)
    task_run = make_runner(executor).start(make_todo(), ran.events.append)
    await task_run.wait()
    assert ran.types == ["task_completed"]
    assert executor.cancelled == []


@virtual_time
async def test_a_context_class_that_cannot_be_cancelled_is_like_a_cancel_that_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Mine(TodoRequestContext):
        def for_cancel(self, task: Any) -> Any:
            raise TypeError("no copies")

    ran = await run(Scripted(hang), act=after(1, cancel), context_factory=Mine)
    assert ran.outcome.kind == "cancelled"
    assert "no copies" in caplog.text


@virtual_time
async def test_two_cancels_are_one() -> None:
    executor = Scripted(stubborn)

    async def act(task_run: TaskRun) -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            task_run.cancel()

    ran = await run(executor, act=act, cancel_grace=5)
    assert len(executor.cancelled) == 1
    assert ran.types == ["task_cancelled"]


@virtual_time
async def test_an_executor_cleaning_up_after_its_end_is_not_disturbed_by_cancel_or_loss() -> None:
    cleaned: list[float] = []

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await updater(queue).complete()
        await asyncio.sleep(20)
        cleaned.append(now())

    async def act(task_run: TaskRun) -> None:
        await asyncio.sleep(1)
        task_run.cancel()
        task_run.lose()

    executor = Scripted(execute)
    ran = await run(executor, act=act)
    assert cleaned == [20]
    assert executor.cancelled == []
    assert ran.types == ["task_completed"]


# -- time-out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("of_row", "default", "limit"), [(5, None, 5), (None, 7.5, 7.5), (5, 100, 5)])
@virtual_time
async def test_a_time_out_is_a_cancel_that_ends_in_failed(
    of_row: int | None, default: float | None, limit: float
) -> None:
    executor = Scripted(hang)
    ran = await run(executor, make_todo(timeout_seconds=of_row), default_timeout=default)
    assert now() == limit
    assert len(executor.cancelled) == 1
    assert ran.types == ["task_failed"]
    assert ran.outcome.kind == "failed"
    assert ran.outcome.error == {"type": "timeout", "message": f"execute() did not end within {limit:g} s"}
    assert ran.outcome.output["error"]["type"] == "timeout"


@virtual_time
async def test_without_a_limit_nothing_times_out() -> None:
    ran = await run(Scripted(lambda context, queue: asyncio.sleep(1e5)))
    assert ran.outcome.kind == "completed"


@pytest.mark.parametrize("state", [CANCELED, FAILED])
@virtual_time
async def test_a_time_out_stays_one_when_the_executor_reports_its_cancellation(state: TaskState) -> None:
    async def on_cancel(context: RequestContext, queue: EventQueue) -> None:
        await queue.enqueue_event(status(state, "told to stop"))

    ran = await run(Scripted(hang, on_cancel), make_todo(timeout_seconds=5))
    assert ran.outcome.kind == "failed"
    assert ran.outcome.error is not None
    assert ran.outcome.error["type"] == "timeout"
    assert ran.last.event_data["statusUpdate"]["status"]["state"] == "TASK_STATE_FAILED"
    assert ran.last.message == "told to stop"


@virtual_time
async def test_completed_published_while_timing_out_wins() -> None:
    async def on_cancel(context: RequestContext, queue: EventQueue) -> None:
        await updater(queue).complete()

    ran = await run(Scripted(hang, on_cancel), make_todo(timeout_seconds=5))
    assert ran.outcome.kind == "completed"


@virtual_time
async def test_a_stubborn_executor_times_out_after_the_grace() -> None:
    ran = await run(Scripted(stubborn), make_todo(timeout_seconds=5), cancel_grace=3)
    assert now() == 8
    assert ran.outcome.kind == "failed"


@virtual_time
async def test_a_task_that_ends_in_time_leaves_no_timer_behind() -> None:
    await run(Scripted(), make_todo(timeout_seconds=86_400))
    loop: Any = asyncio.get_running_loop()
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []


@virtual_time
async def test_a_time_out_ends_clean_up_that_never_ends() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await updater(queue).complete()
        await hang(context, queue)

    executor = Scripted(execute)
    ran = await run(executor, make_todo(timeout_seconds=5))
    assert now() == 5
    assert executor.cancelled == []
    assert ran.types == ["task_completed"]


@virtual_time
async def test_a_cancel_during_a_time_out_does_not_change_it() -> None:
    ran = await run(Scripted(stubborn), make_todo(timeout_seconds=5), act=after(6, cancel), cancel_grace=3)
    assert ran.outcome.kind == "failed"


# -- lost and released -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [TaskRun.lose, TaskRun.release])
@virtual_time
async def test_a_lost_or_released_run_stops_and_writes_nothing(stop: Any) -> None:
    raised: list[BaseException] = []

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await queue.enqueue_event(artifact("a", "x"))
        try:
            await hang(context, queue)
        finally:
            try:
                await queue.enqueue_event(status(COMPLETED))
            except LeaseLostError as error:
                raised.append(error)

    executor = Scripted(execute)
    ran = await run(executor, act=after(1, stop))
    assert ran.types == ["task_artifact"]
    assert len(raised) == 1
    # cancel() may reach out and end what the next worker is about to continue.
    assert executor.cancelled == []
    assert now() == 1


@pytest.mark.parametrize("stop", [TaskRun.lose, TaskRun.release])
@virtual_time
async def test_losing_while_cancelling_writes_nothing_either(stop: Any) -> None:
    async def act(task_run: TaskRun) -> None:
        await asyncio.sleep(1)
        task_run.cancel()
        await asyncio.sleep(1)
        stop(task_run)

    ran = await run(Scripted(stubborn), act=act, cancel_grace=5)
    assert ran.events == []


@virtual_time
async def test_losing_before_the_start_runs_nothing() -> None:
    executor = Scripted()

    async def act(task_run: TaskRun) -> None:
        task_run.lose()

    ran = await run(executor, act=act)
    assert executor.executed == []
    assert ran.events == []


@virtual_time
async def test_losing_while_the_history_is_loading_runs_nothing() -> None:
    async def load(todolist_id: str) -> list[Any]:
        await asyncio.sleep(1e6)
        return []

    executor = Scripted()
    ran = await run(executor, make_todo(attempt=2), act=after(1, TaskRun.lose), load_events=load)
    assert executor.executed == []
    assert ran.events == []
    assert now() == 1


@virtual_time
async def test_losing_in_the_moment_the_history_fails_writes_nothing() -> None:
    loaded: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    async def act(task_run: TaskRun) -> None:
        await asyncio.sleep(1)
        loaded.set_exception(RuntimeError("refused"))
        task_run.lose()

    async def load(todolist_id: str) -> list[Any]:
        return await loaded

    ran = await run(Scripted(), make_todo(attempt=2), act=act, load_events=load)
    assert ran.events == []


@virtual_time
async def test_the_outcome_of_a_lost_run_is_none() -> None:
    task_run = make_runner(Scripted(hang)).start(make_todo(), lambda event: None)
    await asyncio.sleep(1)
    task_run.lose()
    assert await task_run.wait() is None


# -- threads -----------------------------------------------------------------------------------------------


async def test_blocking_code_is_told_and_waited_for() -> None:
    told = threading.Event()

    def block(context: TodoRequestContext) -> None:
        assert context.wait_for_stop(30)
        told.set()

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        assert isinstance(context, TodoRequestContext)
        await run_blocking(block, context)

    executor = Scripted(execute)
    ran = Ran()
    runner = make_runner(executor)
    task_run = runner.start(make_todo(), ran.events.append)
    async with asyncio.timeout(20):
        while not executor.executed:
            await asyncio.sleep(0.001)
        task_run.cancel()
        await task_run.wait()
    assert told.is_set()
    assert runner.abandoned == 0
    assert ran.outcome.kind == "cancelled"


async def test_blocking_code_that_does_not_listen_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    release = threading.Event()
    entered = threading.Event()

    def block() -> None:
        entered.set()
        release.wait(60)
        raise ValueError("too late")

    runner = make_runner(Scripted(lambda context, queue: run_blocking(block)), cancel_grace=0.05)
    ran = Ran()
    task_run = runner.start(make_todo(), ran.events.append)
    try:
        async with asyncio.timeout(20):
            while not entered.is_set():
                await asyncio.sleep(0.001)
            task_run.cancel()
            await task_run.wait()
            assert ran.outcome.kind == "cancelled"
            assert "left behind" in caplog.text
            # The coroutine lets go of the thread at its second cancellation.
            while runner.abandoned:
                await asyncio.sleep(0.001)
    finally:
        release.set()


def test_an_executor_that_will_not_stop_does_not_keep_the_process_alive(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ran = Ran()

    async def main() -> None:
        task_run = make_runner(Scripted(stubborn), cancel_grace=0.01).start(make_todo(), ran.events.append)
        await asyncio.sleep(0.01)
        task_run.cancel()
        await task_run.wait()

    asyncio.run(main())
    gc.collect()
    assert ran.outcome.kind == "cancelled"
    assert "pending" not in caplog.text


# -- the loop is torn down ---------------------------------------------------------------------------------


def test_tearing_the_loop_down_cancels_executors_and_writes_nothing() -> None:
    cancelled: list[bool] = []
    ran = Ran()

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        try:
            await hang(context, queue)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main() -> None:
        make_runner(Scripted(execute, nothing)).start(make_todo(), ran.events.append)
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert cancelled == [True]
    assert ran.events == []


@virtual_time
async def test_a_run_whose_own_task_is_cancelled_takes_its_executor_along() -> None:
    cancelled: list[bool] = []

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        try:
            await hang(context, queue)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    ran = Ran()
    task_run = make_runner(Scripted(execute)).start(make_todo(), ran.events.append)
    await asyncio.sleep(1)
    (driver,) = [task for task in asyncio.all_tasks() if task.get_name().startswith("run ")]
    driver.cancel()
    await asyncio.sleep(1)
    assert cancelled == [True]
    assert task_run.done
    assert ran.events == []


@virtual_time
async def test_hurry_ends_the_grace_of_a_stopped_executor_at_once() -> None:
    runner = make_runner(Scripted(stubborn), cancel_grace=3600)
    task_run = runner.start(make_todo(), lambda event: None)
    await asyncio.sleep(1)
    task_run.release()
    await asyncio.sleep(1)
    assert not task_run.done
    stopped_at = now()
    task_run.hurry()
    assert await task_run.wait() is None
    assert now() == stopped_at
    assert runner.abandoned == 1


@virtual_time
async def test_hurry_alone_stops_nothing() -> None:
    runner = make_runner(Scripted(hang))
    task_run = runner.start(make_todo(), lambda event: None)
    task_run.hurry()
    await asyncio.sleep(100)
    assert not task_run.done
    task_run.lose()
    await task_run.wait()
