"""Crews and flows of CrewAI as executors. Needs the extra ``crewai``."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from a2a.helpers import get_message_text
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater

from reactive_worker.errors import ConfigurationError
from reactive_worker.execution.numbers import to_json
from reactive_worker.execution.threads import run_blocking
from reactive_worker.executors._frameworks import Output, answer_of, is_answer, require, shown
from reactive_worker.executors._model_errors import model_errors

#: Key in the task's metadata: questions asked so far, each with its answer once there is one.
KEY = "crewai_questions"
#: Seconds CrewAI's event bus gets to hand over what a run has said, after the run.
FLUSH = 5.0
#: CrewAI reports home, and asks on the terminal whether it may, unless told otherwise before it is imported.
_QUIET = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "OTEL_SDK_DISABLED": "true",
}


class AskHuman(Exception):
    """Raised by `ask_human`: the run ends here, and begins again with the answer."""


@dataclass(eq=False)
class _Run:
    """One kickoff: where its events go, and what people have said."""

    context: RequestContext
    tell: Callable[[str, Any], None]
    #: Of earlier turns, in the order of the questions.
    answers: list[Any]
    asked: list[str] = field(default_factory=list[str])
    question: str = ""


# CrewAI runs handlers and tools with a copy of the context of whoever started the crew, in whatever thread.
# So this tells apart the events of crews that run side by side.
_current: contextvars.ContextVar[_Run | None] = contextvars.ContextVar("crewai_run", default=None)
_listening = threading.Lock()
_listens = False


def ask_human(question: str) -> Any:
    """Ask a person, from a tool or a flow's method; returns the answer, text or JSON.

    The first time it ends the run: the task is parked as INPUT_REQUIRED. With the answer the crew starts
    again from the beginning, and the same call returns it: the n-th question of a run gets the n-th answer. A
    thread cannot wait for days, and its worker may be gone by then; so make what comes before a question
    repeatable. (A model that calls a tool which asks may go on talking; its words count for nothing then.)

    Raises
    ------
    AskHuman
        Nobody has answered yet. Do not catch it.
    RuntimeError
        Called outside of a `CrewAIExecutor`.

    Example
    -------
    >>> @tool("ask")  # doctest: +SKIP
    ... def ask(question: str) -> str:
    ...     "Ask the customer."
    ...     return ask_human(question)
    """
    run = _current.get()
    if run is None:
        raise RuntimeError("ask_human() works inside a crew or flow that a CrewAIExecutor runs")
    run.asked.append(question)
    if len(run.asked) <= len(run.answers):
        return run.answers[len(run.asked) - 1]
    if not run.question:
        run.question = question
    raise AskHuman(question)


def stop_requested() -> bool:
    """True when the task was cancelled or its worker stops: for tools and flows that take long."""
    run = _current.get()
    return run is not None and bool(getattr(run.context, "stop_requested", False))


class CrewAIExecutor(AgentExecutor):
    """Runs a crew or a flow of CrewAI for each task.

    The crew's inputs are the fields of `input_data`, and ``prompt``; use them as ``{prompt}`` in tasks.
    Started and finished tasks, and calls of tools, are progress; tokens of models with ``stream=True`` are
    streamed into the artifact ``result``, which in the end holds the crew's output: its text, and JSON as a
    second artifact ``data`` when a task has ``output_json`` or ``output_pydantic``.

    `kickoff()` blocks, so it runs in a thread. A thread cannot be cancelled: tools may ask `stop_requested`,
    and what goes on after the grace period is left behind, its words dropped.

    For what a model's errors mean see `model_errors`. CrewAI repeats requests itself first; hand them to the
    worker at once with ``LLM(..., max_retries=0)`` and ``Agent(..., max_retry_limit=0)``.

    Parameters
    ----------
    crew:
        A crew (each task runs a copy of it), the class of a flow, or a function that makes one of them:
        without parameters, or of the request context.
    inputs:
        Function of the request context that returns other inputs.

    Raises
    ------
    ConfigurationError
        CrewAI is not installed, or `crew` is none of these.

    Example
    -------
    >>> crew = Crew(agents=[researcher], tasks=[report])  # doctest: +SKIP
    >>> worker = ReactiveWorker(CrewAIExecutor(crew), agent_type="crew-ai-dr")  # doctest: +SKIP
    """

    def __init__(
        self, crew: Any, *, inputs: Callable[[RequestContext], dict[str, Any]] | None = None
    ) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        self._crewai = require("crewai", "crewai")
        self._bus = require("crewai.events", "crewai").crewai_event_bus
        if isinstance(crew, self._crewai.Flow):
            raise ConfigurationError(
                "a flow keeps its state, so two tasks cannot share one: "
                "pass its class, or a function that makes it"
            )
        if not callable(crew) and not isinstance(crew, self._crewai.Crew):
            raise ConfigurationError(
                "CrewAIExecutor takes a Crew, the class of a Flow, or a function, "
                f"not {type(crew).__qualname__}"
            )
        self._source = crew
        self._inputs = inputs or _default_inputs
        _listen(self._bus)

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Run the crew to its end, or to its first unanswered question."""
        out = Output(context, event_queue)
        await out.begin()
        loop = asyncio.get_running_loop()
        said: asyncio.Queue[tuple[str, Any] | None] = asyncio.Queue()

        def tell(kind: str, what: Any) -> None:
            # From any thread; the loop may have ended under a thread that was left behind.
            if not loop.is_closed():
                loop.call_soon_threadsafe(said.put_nowait, (kind, what))

        questions, answers = _conversation(context)
        run = _Run(context, tell, answers)
        relay = asyncio.create_task(_relay(said, out))
        try:
            with model_errors():
                result = await run_blocking(self._kickoff, run, self._inputs(context))
        finally:
            said.put_nowait(None)
            # What was said before an error or a cancel is told as well.
            await relay
        if run.question:
            asked = [*zip(questions, answers, strict=True), (run.question, None)]
            await out.ask(run.question, metadata={KEY: [list(pair) for pair in asked]})
            return
        await self._publish(result, out)
        await out.updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Say that the task is cancelled; the crew's thread is told, and left behind."""
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()

    def _kickoff(self, run: _Run, inputs: dict[str, Any]) -> Any:
        _current.set(run)  # of this thread's own context, which goes with the call
        crew = self._make(run.context)
        try:
            return crew.kickoff(inputs=inputs)
        except AskHuman:
            return None
        finally:
            self._bus.flush(FLUSH)

    def _make(self, context: RequestContext) -> Any:
        if isinstance(self._source, self._crewai.Crew):
            crew: Any = self._source
            return crew.copy()
        make: Callable[..., Any] = self._source
        wants_context = not inspect.isclass(make) and bool(inspect.signature(make).parameters)
        return make(*[context] if wants_context else [])

    async def _publish(self, result: Any, out: Output) -> None:
        # A crew answers with a CrewOutput, a flow with whatever its last method returned.
        data = getattr(result, "json_dict", None)
        model = getattr(result, "pydantic", None)
        if data is None and model is not None:
            data = model.model_dump(mode="json")
        text = getattr(result, "raw", result)
        await out.whole("result", text if isinstance(text, str | dict | list) else str(text))
        if data is not None:
            await out.whole("data", data)


def _default_inputs(context: RequestContext) -> dict[str, Any]:
    data: Any = context.call_context.state.get("input_data")
    given = dict(cast("dict[str, Any]", data)) if isinstance(data, dict) else {}
    return {**given, "prompt": _prompt(context)}


def _prompt(context: RequestContext) -> str:
    """What the task was submitted with: in a later turn, the message is an answer."""
    todo = context.call_context.state.get("todo")
    if todo is not None:
        return str(todo.prompt)
    task = context.current_task
    if task is None or not task.history:
        return context.get_user_input()
    return get_message_text(task.history[0])


def _conversation(context: RequestContext) -> tuple[list[str], list[Any]]:
    """Questions asked so far, and their answers, the newest of which is this run's message."""
    if not is_answer(context):
        return [], []
    task = context.current_task
    kept: Any = getattr(context, "task_metadata", None) or (
        to_json(task.metadata) if task is not None else {}
    )
    pairs: list[Any] = list(kept.get(KEY) or [])
    answers = [pair[1] for pair in pairs[:-1]] + ([answer_of(context)] if pairs else [])
    return [str(pair[0]) for pair in pairs], answers


async def _relay(said: asyncio.Queue[tuple[str, Any] | None], out: Output) -> None:
    call: Any = None
    while (item := await said.get()) is not None:
        kind, what = item
        if kind == "token":
            # A new call of a model begins the text again: the last one's is the result.
            await out.token("result", what[1], new=call != what[0])
            call = what[0]
        else:
            await out.progress(what)


def _listen(bus: Any) -> None:
    """Hear CrewAI's one event bus, once for the process; each event goes to the run it belongs to."""
    global _listens
    with _listening:
        if _listens:
            return
        events = require("crewai.events", "crewai")

        def hear(kind: Any, told: Callable[[Any], tuple[str, Any] | None]) -> None:
            def heard(source: Any, event: Any) -> None:
                run = _current.get()
                what = told(event) if run is not None else None
                if run is not None and what is not None:
                    run.tell(*what)

            bus.on(kind)(heard)

        def on(kind: Any, line: Callable[[Any], str]) -> None:
            hear(kind, lambda event: ("progress", line(event)))

        on(events.TaskStartedEvent, lambda event: f"task: {shown(_task_name(event))}")
        on(events.TaskCompletedEvent, lambda event: f"task done: {shown(_task_name(event))}")
        on(events.ToolUsageStartedEvent, lambda event: f"{event.tool_name}({shown(event.tool_args)})")
        on(events.ToolUsageFinishedEvent, lambda event: f"{event.tool_name}: {shown(str(event.output))}")
        on(events.ToolUsageErrorEvent, lambda event: f"{event.tool_name} failed: {shown(str(event.error))}")
        hear(events.LLMStreamChunkEvent, _token)
        _listens = True


def _token(event: Any) -> tuple[str, Any] | None:
    # The arguments of a tool's call are streamed, too; they are told when the tool is used.
    if getattr(event, "tool_call", None) is not None or not event.chunk:
        return None
    return "token", (getattr(event, "call_id", None), event.chunk)


def _task_name(event: Any) -> str:
    return str(event.task_name or getattr(event.task, "description", "") or "")
