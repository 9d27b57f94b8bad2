"""Rows, answers and exceptions that are odd: each ends its own run, with its reason, and nothing else."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from a2a.helpers import new_data_part
from a2a.server.agent_execution import RequestContext
from a2a.server.events import EventQueue
from a2a.types import TaskState

from reactive_worker.errors import RetryLater
from reactive_worker.execution.context import TodoRequestContext
from reactive_worker.execution.numbers import marked
from reactive_worker.execution.wire import data_part
from reactive_worker.executors.function import FunctionExecutor
from reactive_worker.models import Todo
from tests.unit.execution.fakes import (
    ID,
    LogBook,
    Ran,
    Scripted,
    make_runner,
    make_todo,
    run,
    status,
    updater,
)
from tests.unit.execution.virtual_time import virtual_time

BIG = 2**53 + 1
#: Whole numbers around every edge.
NUMBERS = [0, 3, -7, 2**53 - 1, 2**53, BIG, -BIG, 10**16 + 1, 2**63, 2**64 + 1, 10**30, 10**400, -(10**4000)]


def error_of(ran: Ran) -> str:
    assert ran.outcome.error is not None
    return f"{ran.outcome.error['type']}: {ran.outcome.error['message']}"


# -- rows ----------------------------------------------------------------------------------------------------


def unreadable() -> Todo:
    row = dict(make_todo().row)
    return Todo.read({**row, "available_at": "nonsense"})


@virtual_time
async def test_a_row_that_cannot_be_read_is_one_failure_with_its_reason() -> None:
    executor = Scripted()
    ran = await run(executor, unreadable())
    assert ran.types == ["task_failed"]
    assert (ran.outcome.kind, ran.outcome.counts_as_failure) == ("retry", True)
    assert "available_at is not a timestamp" in error_of(ran)
    assert "available_at is not a timestamp" in str(ran.last.message)
    assert executor.executed == []


@virtual_time
async def test_a_row_that_cannot_be_read_can_be_cancelled() -> None:
    ran: list[Any] = []
    task_run = make_runner(Scripted()).start(unreadable(), ran.append)
    task_run.cancel("enough")
    outcome = await task_run.wait()
    assert outcome is not None
    assert outcome.kind == "cancelled"
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("breaking", "error"),
    [
        ("load_events", ZeroDivisionError("x")),
        ("sign", RecursionError("x")),
        ("context_factory", SystemExit(3)),
        ("context_factory", asyncio.CancelledError()),
        ("executor_for", KeyboardInterrupt()),
        ("executor_for", GeneratorExit()),
    ],
)
async def test_whatever_breaks_before_the_first_line_of_the_executor_ends_the_row(
    breaking: str, error: BaseException
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise error

    options = {} if breaking == "executor_for" else {breaking: broken}
    runner = make_runner(Scripted(), **options)
    if breaking == "executor_for":
        runner = type(runner)(broken)
    events: list[Any] = []
    outcome = await runner.start(make_todo(attempt=2), events.append).wait()
    assert outcome is not None
    assert outcome.kind == "retry"
    assert outcome.error is not None
    assert outcome.error["type"] == type(error).__name__
    assert [event.event_type for event in events] == ["task_failed"]
    assert runner.runs == ()


@pytest.mark.parametrize("value", [10**309, -(10**309), 2**4000, {"n": [10**400]}, 10**4000], ids=range(5))
async def test_an_integer_beyond_all_floats_is_input_like_any_other(value: Any) -> None:
    seen: list[Any] = []

    def function(prompt: str, input_data: Any) -> Any:
        seen.append(input_data)
        return {"again": input_data}

    ran = await run(FunctionExecutor(function), make_todo(input_data=value))
    assert ran.outcome.kind == "completed"
    assert seen == [value]
    assert ran.outcome.output["artifacts"][0]["parts"][0]["data"] == {"again": value}


# -- delays --------------------------------------------------------------------------------------------------

YEAR = 366 * 86_400.0


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        (timedelta(minutes=2), 120.0),
        (timedelta(days=999_999_999), YEAR),
        (timedelta(days=-1), 0.0),
        (10**400, YEAR),
        (-(10**400), 0.0),
        (float("inf"), YEAR),
        (float("-inf"), 0.0),
        (float("nan"), 0.0),
        (1e300, YEAR),
        (3, 3.0),
        (0.5, 0.5),
    ],
)
async def test_a_delay_is_bounded_whatever_is_asked_for(delay: Any, seconds: float) -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        raise RetryLater(delay, counts=False)

    ran = await run(execute)
    assert (ran.outcome.kind, ran.outcome.retry_after) == ("retry", seconds)
    assert not ran.outcome.counts_as_failure
    json.dumps(ran.outcome.error)


@pytest.mark.parametrize("delay", ["60", None, True, [1], {}, "soon"])
async def test_what_is_no_delay_is_an_error_of_the_executor_that_says_so(delay: Any) -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        raise RetryLater(delay, "why")

    ran = await run(execute)
    assert ran.outcome.kind == "retry"
    assert ran.outcome.counts_as_failure
    assert "TypeError: RetryLater takes seconds or a timedelta" in error_of(ran)


# -- exceptions ----------------------------------------------------------------------------------------------


class _Str(Exception):
    def __str__(self) -> str:
        raise SystemExit("not even this")


class _NoStr(Exception):
    def __str__(self) -> Any:  # type: ignore[override]
        return 5


class _Nasty(str):
    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        raise ValueError

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError


class _NastyStr(Exception):
    def __str__(self) -> str:
        return _Nasty("nasty")


class _Meta(type):
    @property
    def __name__(cls) -> Any:  # type: ignore[override]
        raise KeyboardInterrupt


class _OddClass(Exception, metaclass=_Meta):
    pass


def deep_group() -> BaseException:
    error: Exception = ValueError("bottom")
    for _ in range(3_000):
        error = ExceptionGroup("level", [error])
    return error


def long_chain() -> BaseException:
    first = error = ValueError("0")
    for number in range(20_000):
        error.__cause__ = ValueError(str(number))
        error = error.__cause__
    return first


def loop() -> BaseException:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    return one


def noted() -> BaseException:
    error = ValueError("with notes")
    error.__notes__ = [5, object()]  # type: ignore[list-item]
    return error


def huge() -> BaseException:
    return ValueError("x" * 50_000_000)


UNPRINTABLE = [
    _Str(), _NoStr(), _NastyStr(), _OddClass("odd"), deep_group(), long_chain(), loop(), noted(), huge(),
    ValueError("\0 \ud800"), SystemExit(_Str()), KeyboardInterrupt(), asyncio.CancelledError(),
    GeneratorExit(), StopIteration(3), StopAsyncIteration(),
    BaseExceptionGroup("all", [SystemExit(1), ValueError("x")]),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), SyntaxError("odd", ("f", 1, 2, None)),
]  # fmt: skip


@pytest.mark.parametrize("error", UNPRINTABLE, ids=lambda error: object.__repr__(error).split(" ")[0])
async def test_an_outcome_can_be_made_of_any_exception(error: BaseException) -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        raise error

    for executor in (Scripted(execute), FunctionExecutor(lambda prompt: raising(error))):
        ran = await run(executor)
        assert ran.outcome.kind == "retry"
        record = dict(ran.outcome.error or {})
        assert set(record) == {"type", "message", "traceback"}
        text = json.dumps(record)
        assert len(text) < 30_000
        assert "\\u0000" not in text
        assert "\\ud800" not in text
        str(ran.last.message).encode()


def raising(error: BaseException) -> Any:
    raise error


# -- numbers -------------------------------------------------------------------------------------------------


def outputs(ran: Ran) -> Any:
    """The data of a run's first artifact: in the event, and in `agent_output`."""
    (stored,) = [event.event_data for event in ran.events if event.event_type == "task_artifact"]
    in_event = stored["artifactUpdate"]["artifact"]["parts"][0]["data"]
    in_output = ran.outcome.output["artifacts"][0]["parts"][0]["data"]
    assert json.dumps(in_event, sort_keys=True) == json.dumps(in_output, sort_keys=True)
    return in_event


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: f"{number.bit_length()} bits")
async def test_a_functions_whole_numbers_stay_what_they_are(number: int) -> None:
    value = {"n": number, "of": [number, {"x": number}], "half": 0.5, "yes": True}
    ran = await run(FunctionExecutor(lambda prompt: value))
    assert json.dumps(outputs(ran), sort_keys=True) == json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("number", [1e16, 1.5e300, -(2.0**53), 2.0**60, 5e-324, 0.1])
async def test_a_functions_floats_are_kept_too(number: float) -> None:
    ran = await run(FunctionExecutor(lambda prompt: [number]))
    assert outputs(ran) == [number]


@pytest.mark.parametrize("value", [float("nan"), {"x": [float("inf")]}, [10**5000], {"n": -(10**9000)}])
async def test_a_functions_number_json_has_not_fails_with_that_reason(value: Any) -> None:
    ran = await run(FunctionExecutor(lambda prompt: value))
    assert ran.outcome.kind == "retry"
    assert "EventRefusedError" in error_of(ran)
    assert any(word in error_of(ran) for word in ("nan", "inf", "4300 digits"))


@pytest.mark.parametrize("number", [BIG, -BIG, 10**16 + 1, 2**63, 12345678901234567890])
async def test_a_number_a_float_has_changed_is_refused(number: int) -> None:
    """What an executor puts into protobuf by the SDK's own means is a float before it comes to us."""

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await updater(queue).add_artifact([new_data_part({"id": number})])

    ran = await run(execute)
    assert "EventRefusedError" in error_of(ran)
    assert "Send it as text" in error_of(ran)

    async def say(context: RequestContext, queue: EventQueue) -> None:
        await queue.enqueue_event(status(TaskState.TASK_STATE_WORKING, "x", seen=number))

    assert "EventRefusedError" in error_of(await run(say))


async def test_an_executor_may_publish_any_whole_number_as_a_part_of_ours() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await updater(queue).add_artifact([data_part({"id": BIG, "n": 3.0})])

    found = outputs(await run(execute))
    assert found == {"id": BIG, "n": 3}
    assert all(isinstance(number, int) for number in found.values())


async def test_whole_numbers_survive_a_turn_in_artifacts_and_metadata() -> None:
    """Through the log and into the next run: nothing is a float, and no mark is ever seen by anybody."""

    async def ask(context: RequestContext, queue: EventQueue) -> None:
        await updater(queue).add_artifact([data_part({"id": BIG})], artifact_id="a")
        event = status(TaskState.TASK_STATE_INPUT_REQUIRED, "which?")
        event.status.message.parts.append(data_part({"id": BIG}))
        event.metadata.update(marked({"kept": BIG, "small": 3}))
        await queue.enqueue_event(event)

    log = LogBook().started()
    first = await run(ask, log.todo(), load_events=log.load)
    assert first.outcome.kind == "input_required"
    stored = json.dumps([event.event_data for event in first.events])
    assert stored.count(str(BIG)) == 3
    assert "u0000" not in stored
    log.extend(first.events).answered("yes").started()
    seen: list[TodoRequestContext] = []

    async def go_on(context: RequestContext, queue: EventQueue) -> None:
        assert isinstance(context, TodoRequestContext)
        seen.append(context)
        assert context.current_task is not None
        # As many executors do, and nothing of it is news.
        await queue.enqueue_event(context.current_task)
        await updater(queue).complete()

    second = await run(go_on, log.todo(), load_events=log.load)
    assert second.types == ["task_completed"]
    assert second.outcome.output["artifacts"][0]["parts"][0]["data"] == {"id": BIG}
    assert dict(seen[0].task_metadata) == {"kept": BIG, "small": 3}
    assert "\0" not in str(seen[0].current_task)
    assert str(BIG) in str(seen[0].current_task)


async def test_input_data_reaches_a_function_as_it_was_sent() -> None:
    seen: list[Any] = []
    value = {"n": NUMBERS, "half": 0.5, "empty": {}, "files": "mine"}
    await run(
        FunctionExecutor(lambda prompt, input_data: seen.append(input_data)), make_todo(input_data=value)
    )
    assert repr(seen) == repr([value])
    assert ID


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("levels", [60, 95, 700, 5_000])
async def test_a_result_too_deep_fails_with_that_reason(levels: int) -> None:
    ran = await run(FunctionExecutor(lambda prompt: deep(levels)))
    assert ran.outcome.kind == "retry"
    assert "too deep" in error_of(ran)
