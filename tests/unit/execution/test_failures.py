"""Exceptions: what they mean for the task, and what is written about them."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from a2a.server.agent_execution import RequestContext
from a2a.server.events import EventQueue
from a2a.types import TaskState
from a2a.utils.errors import InvalidParamsError

from reactive_worker.errors import (
    InvalidKeyError,
    PermanentFailure,
    PermissionDeniedError,
    RetryLater,
    SchemaMissingError,
    UnreachableError,
)
from reactive_worker.execution import Runner
from tests.unit.execution.fakes import (
    Ran,
    Step,
    after,
    artifact,
    make_todo,
    publisher,
    run,
    status,
    updater,
)
from tests.unit.execution.virtual_time import now, virtual_time


def raising(error: BaseException, *before: Any) -> Step:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await publisher(*before)(context, queue)
        raise error

    return execute


def error_of(ran: Ran) -> dict[str, Any]:
    assert ran.outcome.error is not None
    return dict(ran.outcome.error)


@virtual_time
async def test_an_exception_is_one_failure_to_be_tried_again() -> None:
    ran = await run(raising(ValueError("no luck")), make_todo(failures=2), backoff=lambda n: n * 10.0)
    assert ran.types == ["task_failed"]
    assert ran.outcome.kind == "retry"
    assert ran.outcome.retry_after == 20.0
    assert ran.outcome.counts_as_failure
    assert ran.outcome.output is None
    assert ran.outcome.task_state == ran.last.task_state == "TASK_STATE_FAILED"
    assert ran.last.event_data["statusUpdate"]["status"]["state"] == "TASK_STATE_FAILED"
    assert ran.last.message == "ValueError: no luck"
    error = error_of(ran)
    assert (error["type"], error["message"]) == ("ValueError", "no luck")
    assert "in execute" in error["traceback"]
    assert error["traceback"].endswith("ValueError: no luck\n")
    # The traceback begins with the user's code.
    assert "reactive_worker" not in error["traceback"].split("\n")[1]


@virtual_time
async def test_events_before_an_exception_are_kept() -> None:
    ran = await run(raising(ValueError("x"), artifact("a", "half")))
    assert ran.types == ["task_artifact", "task_failed"]
    assert ran.outcome.kind == "retry"


@virtual_time
async def test_an_exception_after_a_question_is_a_failure_not_a_parked_task() -> None:
    ran = await run(raising(ValueError("x"), status(TaskState.TASK_STATE_INPUT_REQUIRED, "which?")))
    # Nobody could have answered it: it is told as progress.
    assert ran.types == ["task_progress", "task_failed"]
    assert ran.outcome.kind == "retry"
    told = ran.events[0].event_data["statusUpdate"]["status"]
    assert told["state"] == ran.events[0].task_state == "TASK_STATE_WORKING"
    assert told["message"]["parts"] == [{"text": "which?"}]


FAILED = TaskState.TASK_STATE_FAILED


def empty_failures() -> list[Any]:
    blank, no_parts = status(FAILED, " "), status(FAILED)
    no_parts.status.message.message_id = "m"
    return [status(FAILED), blank, no_parts]


@pytest.mark.parametrize("said", empty_failures(), ids=["nothing", "blank text", "no parts"])
@virtual_time
async def test_what_is_raised_after_an_empty_failed_is_the_reason_and_one_failure(said: Any) -> None:
    ran = await run(raising(ValueError("the reason"), artifact("a", "half"), said))
    assert ran.types == ["task_artifact", "task_failed"]
    assert (ran.outcome.kind, ran.outcome.counts_as_failure) == ("retry", True)
    assert error_of(ran)["message"] == "the reason"
    later = await run(raising(RetryLater(5, counts=False), said))
    assert (later.outcome.retry_after, later.outcome.counts_as_failure) == (5.0, False)
    assert (await run(raising(PermanentFailure("no"), said))).outcome.kind == "failed"


@pytest.mark.parametrize("said", empty_failures(), ids=["nothing", "blank text", "no parts"])
@virtual_time
async def test_an_empty_failed_is_the_end_when_nothing_is_raised(
    said: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ran = await run(publisher(said, artifact("a", "late"), status(TaskState.TASK_STATE_COMPLETED)))
    assert ran.types == ["task_failed"]
    assert (ran.outcome.kind, error_of(ran)["type"]) == ("failed", "TaskFailed")
    assert "published afterwards is dropped" in caplog.text


@virtual_time
async def test_a_failed_that_says_why_stands_whatever_is_raised() -> None:
    told = status(FAILED)
    told.status.message.parts.add().data.struct_value.update({"code": 7})
    for said in (status(FAILED, "too dear"), told):
        ran = await run(raising(ValueError("late"), said))
        assert ran.types == ["task_failed"]
        assert ran.outcome.kind == "failed"
        assert error_of(ran)["type"] == "TaskFailed"


@virtual_time
async def test_an_empty_failed_does_not_hold_up_a_cancel() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await queue.enqueue_event(status(FAILED))
        await asyncio.sleep(1_000)

    ran = await run(execute, act=after(1, lambda task_run: task_run.cancel("enough")))
    assert ran.types == ["task_cancelled"]


@virtual_time
async def test_an_exception_after_the_end_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    ran = await run(raising(ValueError("late"), status(TaskState.TASK_STATE_COMPLETED)))
    assert ran.types == ["task_completed"]
    assert "had ended (completed)" in caplog.text


@virtual_time
async def test_an_a2a_error_keeps_its_type() -> None:
    ran = await run(raising(InvalidParamsError(message="bad prompt")))
    assert ran.outcome.kind == "retry"
    assert error_of(ran)["type"] == "InvalidParamsError"


@pytest.mark.parametrize(
    ("delay", "expected"),
    [(30, 30.0), (0, 0.0), (-5, 0.0), (float("nan"), 0.0), (float("inf"), 366 * 86_400.0)],
)
@pytest.mark.parametrize("counts", [True, False])
@virtual_time
async def test_retry_later_says_when_and_whether_it_counts(
    delay: float, expected: float, counts: bool
) -> None:
    ran = await run(raising(RetryLater(delay, "rate limit", counts=counts)))
    assert ran.outcome.kind == "retry"
    assert ran.outcome.retry_after == expected
    assert ran.outcome.counts_as_failure is counts
    assert error_of(ran)["message"] == "rate limit"


@virtual_time
async def test_a_permanent_failure_is_final_and_keeps_what_was_made() -> None:
    ran = await run(raising(PermanentFailure("never"), artifact("a", "half")))
    assert ran.outcome.kind == "failed"
    assert error_of(ran)["type"] == "PermanentFailure"
    assert ran.outcome.output["error"]["message"] == "never"
    assert ran.outcome.output["text"] == "half"


@pytest.mark.parametrize(
    ("errors", "kind", "kind_of_error"),
    [
        ([ValueError("x"), PermanentFailure("never")], "failed", "PermanentFailure"),
        ([RetryLater(7), PermanentFailure("never")], "failed", "PermanentFailure"),
        ([ValueError("x"), ExceptionGroup("inner", [RetryLater(7)])], "retry", "RetryLater"),
        ([ValueError("x"), KeyError("y")], "retry", "ExceptionGroup"),
    ],
)
@virtual_time
async def test_what_a_task_group_wraps_is_found(
    errors: list[Exception], kind: str, kind_of_error: str
) -> None:
    ran = await run(raising(ExceptionGroup("unhandled errors in a TaskGroup", errors)))
    assert ran.outcome.kind == kind
    assert error_of(ran)["type"] == kind_of_error


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException("odd")])
@virtual_time
async def test_nothing_an_executor_raises_ends_the_worker(error: BaseException) -> None:
    ran = await run(raising(error))
    assert ran.outcome.kind == "retry"
    assert error_of(ran)["type"] == type(error).__name__


@virtual_time
async def test_cancelling_itself_is_a_failure() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    ran = await run(execute)
    assert ran.outcome.kind == "retry"
    assert error_of(ran)["type"] == "CancelledError"
    assert "from inside" in error_of(ran)["message"]


@virtual_time
async def test_an_executor_that_is_no_coroutine_fails_clearly() -> None:
    def execute(context: RequestContext, queue: EventQueue) -> None:
        return None

    ran = await run(execute)  # pyright: ignore[reportArgumentType]
    assert ran.outcome.kind == "retry"
    assert error_of(ran)["type"] == "TypeError"


@pytest.mark.parametrize("error", [KeyError("test"), SystemExit(1)])
@virtual_time
async def test_a_missing_executor_is_a_failure_of_the_task(error: BaseException) -> None:
    def executor_for(agent_type: str) -> Any:
        raise error

    ran = Ran()
    await Runner(executor_for).start(make_todo(), ran.events.append).wait()
    assert ran.outcome.kind == "retry"
    assert error_of(ran)["type"] == type(error).__name__


@virtual_time
async def test_a_broken_context_class_is_a_failure_of_the_task() -> None:
    def factory(todo: Any, **turn: Any) -> Any:
        raise TypeError("no such column")

    ran = await run(publisher(), context_factory=factory)
    assert error_of(ran)["message"] == "no such column"


@virtual_time
async def test_secrets_do_not_leave_through_errors(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = "sb_secret_N7UND0UgjKTVK"
    token = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJl"
    ran = await run(raising(ValueError(f"401 for {key} and {token}")))
    for text in (repr(ran.events), caplog.text):
        assert key not in text
        assert token not in text
        assert "[redacted]" in text


@virtual_time
async def test_errors_are_bounded_and_storable() -> None:
    ran = await run(raising(ValueError("x\0y\ud800" + "z" * 1_000_000)))
    error = error_of(ran)
    assert len(error["message"]) <= 2_000
    assert len(error["traceback"]) <= 4_100
    assert error["message"].startswith("x\ufffdy?")
    repr(ran.events).encode()


@virtual_time
async def test_an_exception_without_a_usable_text_still_ends_the_task() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    ran = await run(raising(Mute()))
    assert "cannot be shown" in error_of(ran)["message"]
    ran = await run(raising(ValueError()))
    assert error_of(ran)["message"] == "ValueError"
    assert ran.last.message == "ValueError"


@virtual_time
async def test_failed_by_the_executor_carries_its_words_redacted() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await updater(queue).failed()

    ran = await run(execute)
    assert error_of(ran) == {"type": "TaskFailed", "message": "the agent gave no reason"}
    ran = await run(publisher(status(TaskState.TASK_STATE_FAILED, "key sk-abcdefgh12345678 refused")))
    assert error_of(ran)["message"] == "key [redacted] refused"


# -- history -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal", [UnreachableError, PermissionDeniedError, SchemaMissingError, InvalidKeyError]
)
@virtual_time
async def test_a_database_that_refuses_for_a_while_delays_a_continued_task_and_fails_nothing(
    refusal: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    async def load(todolist_id: str) -> list[Any]:
        nonlocal tries
        tries += 1
        if now() < 120:
            raise refusal
        return []

    ran = await run(publisher(), make_todo(attempt=2, seq=5), load_events=load)
    assert ran.outcome.kind == "completed"
    assert 10 < tries < 200
    assert sum("waits for its history" in record.message for record in caplog.records) == 1


@virtual_time
async def test_a_history_that_cannot_be_read_is_a_failure_of_the_task() -> None:
    async def load(todolist_id: str) -> list[Any]:
        raise RuntimeError("refused")

    ran = await run(publisher(), make_todo(attempt=2, seq=5), load_events=load)
    assert ran.outcome.kind == "retry"
    assert error_of(ran)["message"] == "refused"


@virtual_time
async def test_a_new_task_costs_no_request_for_its_history() -> None:
    async def load(todolist_id: str) -> list[Any]:
        raise AssertionError("not needed")

    ran = await run(publisher(), load_events=load)
    assert ran.outcome.kind == "completed"


@virtual_time
async def test_waits_that_cost_nothing_are_counted_in_the_row_and_end() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        raise RetryLater(3600, "busy", counts=False, within=timedelta(hours=2))

    start = datetime(2026, 1, 1, tzinfo=UTC)
    todo, found = make_todo(), list[tuple[int, bool]]()
    for hour in range(5):
        ran = await run(execute, todo, clock=lambda hour=hour: start + timedelta(hours=hour))
        error = error_of(ran)
        assert (ran.outcome.kind, ran.outcome.retry_after) == ("retry", 3600.0)
        assert error["since"] == start.isoformat()
        found.append((error["waits"], ran.outcome.counts_as_failure))
        todo = make_todo(error=error)
    assert found == [(1, False), (2, False), (3, True), (4, True), (5, True)]
    assert error_of(ran)["message"] == "put off 5 times since 2026-01-01 00:00 UTC, so it counts now: busy"
    # Another failure in between begins anew; without a limit it goes on.
    other = await run(raising(ValueError("x")), todo)
    again = await run(execute, make_todo(error=error_of(other)), clock=lambda: start + timedelta(days=9))
    assert error_of(again)["waits"] == 1
    for odd in ("text", {"waits": "many"}, {"waits": 4, "since": None}, {"waits": 4, "since": "soon"}):
        ran = await run(raising(RetryLater(1, counts=False)), make_todo(error=odd))
        assert not ran.outcome.counts_as_failure
