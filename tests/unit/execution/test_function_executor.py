"""Plain functions as executors."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from a2a.server.agent_execution import RequestContext
from a2a.types import Part, TaskState

from reactive_worker.errors import PermanentFailure
from reactive_worker.execution import TodoRequestContext
from reactive_worker.executors.function import FunctionExecutor
from tests.unit.execution.fakes import Ran, make_runner, make_todo, message, run, status


async def ran(function: Any, **columns: Any) -> Ran:
    async with asyncio.timeout(30):
        return await run(FunctionExecutor(function), make_todo(**columns))


def sync_prompt(prompt: str) -> str:
    return prompt.upper()


async def async_prompt(prompt: str) -> str:
    return prompt.upper()


def sync_context(context: RequestContext) -> str:
    return context.get_user_input().upper()


async def async_context(context: TodoRequestContext) -> str:
    return context.get_user_input().upper()


def annotated(text: str) -> str:
    return text.upper()


class Callable_:
    async def __call__(self, context: RequestContext) -> str:
        return context.get_user_input().upper()


@pytest.mark.parametrize(
    "function",
    [
        sync_prompt,
        async_prompt,
        sync_context,
        async_context,
        annotated,
        Callable_(),
        functools.partial(lambda context, suffix: context.get_user_input().upper() + suffix, suffix=""),
        str.upper,
    ],
)
async def test_a_functions_return_value_is_the_result(function: Any) -> None:
    if function is str.upper:
        # Built in C: it has a signature, but none that names a prompt.
        function = lambda prompt: str.upper(prompt)  # noqa: E731
    result = await ran(function)
    assert result.types == ["task_artifact", "task_completed"]
    assert result.outcome.output["text"] == "HELLO"


async def test_arguments_come_by_name() -> None:
    def sync(prompt: str, input_data: Any) -> Any:
        return [prompt, input_data]

    async def swapped(input_data: Any, prompt: str) -> Any:
        return [prompt, input_data]

    def keywords(*, context: TodoRequestContext, prompt: str, more: int = 1) -> Any:
        return [prompt, context.input_data]

    async def chunks(text: str, context: TodoRequestContext, input_data: Any = None) -> AsyncIterator[Any]:
        yield [text, input_data if context.input_data == input_data else None]

    def each(context: TodoRequestContext, input_data: Any) -> Iterator[Any]:
        yield [context.get_user_input(), input_data]

    for function in (sync, swapped, keywords, chunks, each):
        result = await ran(function, input_data={"pages": "3"})
        assert result.outcome.output["artifacts"][0]["parts"][0]["data"] == ["hello", {"pages": "3"}]


async def test_generators_stream_chunks_of_one_result() -> None:
    async def async_chunks(prompt: str) -> AsyncIterator[str]:
        for letter in prompt:
            yield letter

    def sync_chunks(prompt: str) -> Iterator[str]:
        assert threading.current_thread() is not threading.main_thread()
        yield from prompt

    for function in (async_chunks, sync_chunks):
        result = await ran(function)
        assert [event.message for event in result.events] == ["h", "e", "l", "l", "o", None]
        assert result.outcome.output["text"] == "hello"


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("text", {"text": "text"}),
        (b"\x00\x01", {"raw": "AAE=", "mediaType": "application/octet-stream"}),
        ({"a": [1, None]}, {"data": {"a": [1.0, None]}, "mediaType": "application/json"}),
        ([1, 2], {"data": [1.0, 2.0], "mediaType": "application/json"}),
        ((1, 2), {"data": [1.0, 2.0], "mediaType": "application/json"}),
        (True, {"data": True, "mediaType": "application/json"}),
        (1.5, {"data": 1.5, "mediaType": "application/json"}),
        (Part(url="https://example.org/x"), {"url": "https://example.org/x"}),
    ],
)
async def test_what_a_result_may_be(value: Any, part: dict[str, Any]) -> None:
    result = await ran(lambda context: value)
    (stored,) = result.outcome.output["artifacts"]
    assert stored == {"artifactId": "result", "name": "result", "parts": [part]}


async def test_none_is_no_result() -> None:
    result = await ran(lambda context: None)
    assert result.types == ["task_completed"]
    assert result.outcome.output == {"text": ""}


async def test_anything_else_is_a_clear_failure() -> None:
    result = await ran(lambda context: object())
    assert result.outcome.error is not None
    assert "not object" in result.outcome.error["message"]


async def test_whole_events_are_published_as_they_are() -> None:
    async def asks(context: RequestContext) -> AsyncIterator[Any]:
        yield status(TaskState.TASK_STATE_WORKING, "looking")
        yield status(TaskState.TASK_STATE_INPUT_REQUIRED, "which one?")

    result = await ran(asks)
    assert result.types == ["task_progress", "task_input_required"]
    result = await ran(lambda context: message("said"))
    assert result.types == ["task_completed"]
    assert result.outcome.output["text"] == "said"


async def test_exceptions_mean_what_they_always_mean() -> None:
    def fail(prompt: str) -> str:
        raise PermanentFailure(prompt)

    result = await ran(fail)
    assert result.outcome.kind == "failed"


@pytest.mark.parametrize("function", [lambda: None, lambda a, b: None, lambda *, key: None])
def test_a_function_that_cannot_take_one_argument_is_refused_at_once(function: Any) -> None:
    with pytest.raises(TypeError, match="one argument"):
        FunctionExecutor(function)


def test_its_name_is_the_functions() -> None:
    assert FunctionExecutor(sync_prompt).name == "sync_prompt"
    assert FunctionExecutor(Callable_()).name == "Callable_"


async def test_a_cancelled_function_is_told_and_waited_for() -> None:
    entered = threading.Event()
    told = threading.Event()

    def listen(context: TodoRequestContext) -> str:
        entered.set()
        if context.wait_for_stop(30):
            told.set()
        return "late"

    result = Ran()
    runner = make_runner(FunctionExecutor(listen))
    async with asyncio.timeout(20):
        task_run = runner.start(make_todo(), result.events.append)
        while not entered.is_set():
            await asyncio.sleep(0.001)
        task_run.cancel()
        await task_run.wait()
    assert told.is_set()
    assert runner.abandoned == 0
    assert result.types == ["task_cancelled"]


async def test_a_cancelled_generator_ends_between_two_items() -> None:
    closed = threading.Event()
    first = threading.Event()

    def endless(context: TodoRequestContext) -> Iterator[str]:
        try:
            while True:
                first.set()
                yield "x"
        finally:
            closed.set()

    result = Ran()
    runner = make_runner(FunctionExecutor(endless))
    async with asyncio.timeout(20):
        task_run = runner.start(make_todo(), result.events.append)
        while not first.is_set():
            await asyncio.sleep(0.001)
        task_run.cancel()
        await task_run.wait()
        while not closed.is_set():
            await asyncio.sleep(0.001)
    assert result.outcome.kind == "cancelled"


async def test_an_async_generator_is_closed_when_cancelled() -> None:
    closed: list[bool] = []
    begun = asyncio.Event()

    async def slow(context: TodoRequestContext) -> AsyncIterator[str]:
        try:
            yield "x"
            begun.set()
            await asyncio.sleep(3600)
        finally:
            closed.append(True)

    result = Ran()
    async with asyncio.timeout(20):
        task_run = make_runner(FunctionExecutor(slow)).start(make_todo(), result.events.append)
        await begun.wait()
        task_run.cancel()
        await task_run.wait()
    assert closed == [True]
    assert result.types == ["task_artifact", "task_cancelled"]
