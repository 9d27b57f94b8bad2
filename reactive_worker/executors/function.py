"""An executor made from a plain function."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, cast

from a2a.helpers import get_data_parts, new_raw_part, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater
from a2a.types import (
    Message,
    Part,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)

from reactive_worker.execution.event_queue import TodoEventQueue
from reactive_worker.execution.numbers import revealed
from reactive_worker.execution.threads import run_blocking
from reactive_worker.execution.wire import data_part

_END = object()
#: What a function can be given, by the names of its parameters.
_NAMES = ("prompt", "input_data", "context")
_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


class FunctionExecutor(AgentExecutor):
    """Runs a function as an agent.

    The function is given what its parameters are named: ``prompt``, ``input_data``, ``context``. A first
    parameter of another name gets the prompt if it is annotated `str`, else the context. It gives back its
    result: text, bytes, anything JSON can hold, an a2a `Part`, or None. A generator streams: what it yields
    becomes a chunk of the result at once. A sync function runs in a thread of its own; when the task is
    cancelled it is told through `context.stop_requested` and left behind if it does not end. Whole a2a events
    are published as they are.

    Parameters
    ----------
    function:
        Sync or async function, generator or async generator.
    artifact:
        Id and name of the artifact that holds the result.

    Raises
    ------
    TypeError
        `function` has a required parameter nobody can fill.

    Example
    -------
    >>> async def shout(prompt: str):
    ...     for word in prompt.split():
    ...         yield word.upper() + " "
    >>> worker = ReactiveWorker(FunctionExecutor(shout), agent_type="shout")  # doctest: +SKIP
    """

    def __init__(self, function: Callable[..., Any], *, artifact: str = "result") -> None:
        self._function = function
        self._artifact = artifact
        self._first, self._named = _parameters(function)

    @property
    def name(self) -> str:
        """Name of the function."""
        return getattr(self._function, "__qualname__", None) or type(self._function).__qualname__

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Call the function and publish what it gives."""
        task_id, context_id = context.task_id or "", context.context_id or ""
        if context.current_task is None and context.message is not None:
            # Our worker has the task already; a plain a2a server wants to see it first.
            await event_queue.enqueue_event(
                Task(
                    id=task_id,
                    context_id=context_id,
                    status=TaskStatus(state=TaskState.TASK_STATE_SUBMITTED),
                    history=[context.message],
                )
            )
        out = _Output(event_queue, task_id, context_id, self._artifact)
        function = self._function
        first = () if self._first is None else (_argument(self._first, context),)
        call = functools.partial(function, *first, **{name: _argument(name, context) for name in self._named})
        if (
            inspect.iscoroutinefunction(function)
            or inspect.isasyncgenfunction(function)
            or inspect.isgeneratorfunction(function)
        ):
            result = call()
        else:
            result = await run_blocking(call)
        if inspect.isawaitable(result):
            result = await result
        if inspect.isasyncgen(result):
            async with contextlib.aclosing(cast("AsyncGenerator[Any]", result)) as items:
                async for item in items:
                    await out.put(item)
        elif inspect.isgenerator(result):
            await self._pull(cast("Iterator[Any]", result), out, context)
        else:
            await out.put(result)
        if not out.replied:
            await out.updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Say that the task is cancelled; its coroutine is cancelled, its thread told, by the worker."""
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()

    async def _pull(self, items: Iterator[Any], out: _Output, context: RequestContext) -> None:
        # Item by item, each next() in a thread: between two of them the loop publishes, with backpressure,
        # and a cancelled run ends there even if the generator never looks at the context.
        at_rest = True

        def step() -> Any:
            nonlocal at_rest
            at_rest = False
            try:
                return next(items, _END)
            finally:
                at_rest = True

        try:
            while (item := await run_blocking(step)) is not _END:
                await out.put(item)
                if getattr(context, "stop_requested", False):
                    raise asyncio.CancelledError
        finally:
            # One that still runs, in a thread left behind, cannot be closed.
            if at_rest:
                await run_blocking(cast("Any", items).close)


class _Output:
    """Publishes results as one growing artifact."""

    def __init__(self, queue: EventQueue, task_id: str, context_id: str, artifact: str) -> None:
        self.updater = TaskUpdater(queue, task_id, context_id)
        #: True when the function has ended the task itself.
        self.replied = False
        self._queue = queue
        self._exact = isinstance(queue, TodoEventQueue)
        self._artifact = artifact
        self._begun = False

    async def put(self, item: Any) -> None:
        if item is None:
            return
        if isinstance(item, Message):
            # The function's last words on a task that is already open.
            self.replied = True
            await self.updater.complete(item)
        elif isinstance(item, Task | TaskStatusUpdateEvent | TaskArtifactUpdateEvent):
            state = item.status.state if isinstance(item, TaskStatusUpdateEvent) else None
            self.replied = state not in (None, TaskState.TASK_STATE_WORKING, TaskState.TASK_STATE_SUBMITTED)
            await self._queue.enqueue_event(item)
        else:
            part = _part(item, self._exact)
            append, self._begun = self._begun, True
            await self.updater.add_artifact(
                [part], artifact_id=self._artifact, name=self._artifact, append=append
            )


def _part(item: Any, exact: bool) -> Part:
    if isinstance(item, Part):
        return item
    if isinstance(item, str):
        return new_text_part(item)
    if isinstance(item, bytes | bytearray | memoryview):
        return new_raw_part(bytes(cast("bytes", item)), media_type="application/octet-stream")
    if isinstance(item, dict | list | tuple | int | float):
        return data_part(item, exact=exact)
    raise TypeError(
        f"a function executor's result is text, bytes, JSON or an a2a Part, not {type(item).__qualname__}"
    )


def _argument(name: str, context: RequestContext) -> Any:
    if name == "prompt":
        return context.get_user_input()
    if name == "context":
        return context
    data = context.call_context.state.get("input_data")
    if data is None and context.message is not None:
        # Served by a plain a2a server: the data come in the message.
        data = revealed(next(iter(get_data_parts(context.message.parts)), None))
    return data


def _parameters(function: Callable[..., Any]) -> tuple[str | None, list[str]]:
    """What the first positional parameter gets, if there is one, and which others are filled by name."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:
        return "context", []  # Built in C without a signature: it gets the context.
    first = None
    if parameters and parameters[0].kind in _POSITIONAL:
        head = parameters.pop(0)
        is_text = head.annotation in (str, "str")
        first = head.name if head.name in _NAMES else "prompt" if is_text else "context"
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [each.name for each in parameters if each.name in _NAMES and each.kind in by_name]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    missing = [
        each.name
        for each in parameters
        if each.default is each.empty and each.kind not in variadic and each.name not in named
    ]
    if missing or (first is None and not named):
        raise TypeError(
            f"a function executor calls its function with one argument, or with those named "
            f"{', '.join(_NAMES)}; {function!r} does not fit"
        )
    return first, named
