"""Agents of the OpenAI Agents SDK as executors. Needs the extra ``openai-agents``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater

from reactive_worker.errors import ConfigurationError, PermanentFailure
from reactive_worker.executors._frameworks import Output, answer_of, is_answer, require, shown
from reactive_worker.executors._model_errors import model_errors

#: Key in the task's metadata under which the interrupted run waits for its answer.
KEY = "openai_agents"
ARTIFACT = "answer"
_YES = frozenset(
    ["y", "yes", "ok", "okay", "true", "approve", "approved", "allow", "allowed", "예", "네", "승인"]
)


class OpenAIAgentsExecutor(AgentExecutor):
    """Runs an agent of the OpenAI Agents SDK.

    The model's text is streamed as the artifact ``answer``; text before a tool call is replaced by what
    follows it, so that the artifact ends as the final output. Tool calls, their results and handoffs are
    progress. A final output that is no text becomes a data part.

    A tool with ``needs_approval`` parks the task as INPUT_REQUIRED. The answer ``yes`` (or approve, ok, ...)
    approves; any other text rejects, and the model reads it as the reason. As data: ``{"approve": false,
    "message": "too dear"}``, or ``{"<call id>": true, ...}`` when several calls wait. The interrupted run is
    kept in the task's metadata, so any worker goes on with it, after a restart, too.

    The model is asked through Chat Completions at OPENAI_BASE_URL with OPENAI_API_KEY, and nothing is traced,
    unless `run_config` says otherwise. For what a model's errors mean see `model_errors`.

    Parameters
    ----------
    agent:
        An ``agents.Agent``.
    session:
        Function of the request context that returns an SDK session, for a memory beyond one task:
        ``lambda context: SQLiteSession(session_key(context), "memory.db")``; see `session_key`.
    context:
        Function of the request context that returns the SDK's run context, which tools see.
    max_turns:
        Calls of the model in one run, at most.
    max_retries:
        How often the client repeats a failed request before the run fails.
    run_config:
        An ``agents.RunConfig`` in place of ours: then provider, retries and tracing are its own.

    Raises
    ------
    ConfigurationError
        The SDK is not installed, or `agent` is no agent.

    Example
    -------
    >>> agent = Agent(name="helper", instructions="Be brief.", model="gpt-5-mini")  # doctest: +SKIP
    >>> worker = ReactiveWorker(OpenAIAgentsExecutor(agent), agent_type="helper")  # doctest: +SKIP
    """

    def __init__(
        self,
        agent: Any,
        *,
        session: Callable[[RequestContext], Any] | None = None,
        context: Callable[[RequestContext], Any] | None = None,
        max_turns: int = 10,
        max_retries: int = 2,
        run_config: Any = None,
    ) -> None:
        self._sdk = require("agents", "openai-agents")
        if not isinstance(agent, getattr(self._sdk, "Agent", ())):
            raise ConfigurationError(f"OpenAIAgentsExecutor takes an agents.Agent, not {agent!r}")
        self._agent: Any = agent
        self._session = session
        self._context = context
        self._max_turns = max_turns
        self._max_retries = max_retries
        self._run_config = run_config
        self._client: Any = None
        self._users = 0

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Run the agent until it has answered, or a tool needs approval."""
        out = Output(context, event_queue)
        await out.begin()
        with model_errors():
            async with self._configured() as run_config:
                given = await self._input(context)
                result = self._sdk.Runner.run_streamed(
                    self._agent,
                    given,
                    context=self._context(context) if self._context is not None else None,
                    max_turns=self._max_turns,
                    run_config=run_config,
                    session=self._session(context) if self._session is not None else None,
                )
                try:
                    await self._relay(result, out)
                finally:
                    await _end(result)
        if result.interruptions:
            await self._ask(result, out)
            return
        final = result.final_output
        if final is not None:
            await out.whole(ARTIFACT if isinstance(final, str) else "output", _plain(final))
        await out.updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Say that the task is cancelled; the run ends with its coroutine."""
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()

    # -- parts -----------------------------------------------------------------------------------------------

    async def _input(self, context: RequestContext) -> Any:
        if not is_answer(context):
            return context.get_user_input()
        task = context.current_task
        kept = task.metadata[KEY] if task is not None and KEY in task.metadata else None
        if not isinstance(kept, str):
            raise PermanentFailure("the run that asked for approval is not in the task's metadata any more")
        options: dict[str, Any] = {}
        if self._context is not None:
            options["context_override"] = self._sdk.RunContextWrapper(self._context(context))
        state = await self._sdk.RunState.from_string(self._agent, kept, **options)
        answer = answer_of(context)
        for item in state.get_interruptions():
            yes, reason = _verdict(answer, _call_id(item))
            if yes:
                state.approve(item)
            else:
                state.reject(item, rejection_message=reason)
        return state

    async def _relay(self, result: Any, out: Output) -> None:
        begun: str | None = None
        async for event in result.stream_events():
            if event.type == "raw_response_event":
                data = event.data
                if data.type == "response.created":
                    begun = None
                elif data.type == "response.output_text.delta":
                    await out.token(ARTIFACT, data.delta, new=begun is None)
                    begun = ARTIFACT
            elif event.type == "agent_updated_stream_event":
                if event.new_agent is not self._agent:
                    await out.progress(f"now {event.new_agent.name}")
            elif event.name == "tool_called":
                raw = event.item.raw_item
                await out.progress(f"calling {_field(raw, 'name')} {_field(raw, 'arguments')}".rstrip())
            elif event.name == "tool_output":
                await out.progress(f"result: {shown(event.item.output)}")

    async def _ask(self, result: Any, out: Output) -> None:
        calls = [
            {
                "call_id": _call_id(item),
                "tool": item.name,
                "arguments": _field(item.raw_item, "arguments"),
            }
            for item in result.interruptions
        ]
        lines = [f"{call['tool']} {shown(call['arguments'])}".rstrip() for call in calls]
        # As text: numbers in A2A metadata are floats, and the SDK wants its own back.
        kept = result.to_state().to_string()
        await out.ask("approve? " + "; ".join(lines), {"approvals": calls}, metadata={KEY: kept})

    @asynccontextmanager
    async def _configured(self) -> AsyncGenerator[Any]:
        """The run's configuration; one client for all runs of now, and none left open when there is none."""
        if self._run_config is not None:
            yield self._run_config
            return
        if self._client is None:
            openai = require("openai", "openai-agents")
            try:
                self._client = openai.AsyncOpenAI(max_retries=self._max_retries)
            except openai.OpenAIError as error:
                raise PermanentFailure(f"set OPENAI_API_KEY: {error}") from error
        client = self._client
        self._users += 1
        try:
            provider = self._sdk.OpenAIProvider(openai_client=client, use_responses=False)
            yield self._sdk.RunConfig(model_provider=provider, tracing_disabled=True)
        finally:
            self._users -= 1
            if self._users == 0:
                self._client = None
                await asyncio.shield(client.close())


async def _end(result: Any) -> None:
    """See that no task of the SDK outlives the run: it would go on asking the model and calling tools."""
    loop_task: asyncio.Task[Any] | None = getattr(result, "run_loop_task", None)
    if not result.is_complete:
        result.cancel()
    if loop_task is not None and not loop_task.done():
        loop_task.cancel()
        await asyncio.wait([loop_task])


def _verdict(answer: Any, call_id: str) -> tuple[bool, str | None]:
    """Whether a call is approved, and if not, why; whatever is not clearly a yes is a no."""
    if isinstance(answer, dict):
        data = cast("dict[str, Any]", answer)
        verdict = data.get(call_id, data.get("approve"))
        message = data.get("message")
        return verdict is True, str(message) if message else None
    text = str(answer).strip()
    return text.rstrip(".! ").casefold() in _YES, text or None


def _call_id(item: Any) -> str:
    return str(_field(item.raw_item, "call_id") or _field(item.raw_item, "id"))


def _field(raw: Any, name: str) -> Any:
    found: Any = cast("dict[str, Any]", raw).get(name) if isinstance(raw, dict) else getattr(raw, name, None)
    return "" if found is None else found


def _plain(value: Any) -> Any:
    """JSON of a final output: dataclasses and pydantic models have it."""
    if isinstance(value, str):
        return value
    pydantic = require("pydantic", "openai-agents")
    return json.loads(pydantic.TypeAdapter(type(value)).dump_json(value))
