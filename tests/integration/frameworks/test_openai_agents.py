"""OpenAIAgentsExecutor: the real SDK against a scripted model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

pytest.importorskip("agents", reason="needs pip install 'reactive-worker[openai-agents]'")

from agents import Agent, SQLiteSession, add_trace_processor, function_tool
from agents.tracing import TracingProcessor

from reactive_worker import TaskClient
from reactive_worker.errors import ConfigurationError
from reactive_worker.execution import session_key
from reactive_worker.executors.openai_agents import OpenAIAgentsExecutor
from reactive_worker.testing.workers import eventually, running_worker
from tests.integration.frameworks.openai_server import (
    KEY,
    MODEL,
    Answer,
    Cut,
    Failure,
    ScriptedModel,
    ToolCall,
)
from tests.integration.frameworks.runs import artifacts, cancelled_in_the_middle, said
from tests.unit.execution.fakes import LogBook, make_todo, run

called: list[Any] = []


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    called.append((a, b))
    return a + b


@function_tool(needs_approval=True)
def delete(path: str) -> str:
    """Delete a file."""
    called.append(path)
    return f"deleted {path}"


@pytest.fixture(autouse=True)
def _nothing_called() -> None:
    called.clear()


def executor(**options: Any) -> OpenAIAgentsExecutor:
    agent = Agent(name="helper", instructions="Be brief.", model=MODEL, tools=[add, delete])
    return OpenAIAgentsExecutor(agent, max_retries=0, **options)


async def test_it_answers_in_tokens(model: ScriptedModel) -> None:
    model.script(Answer("one two three"))
    ran = await run(executor(), make_todo(prompt="count"))
    assert ran.outcome.kind == "completed"
    assert ran.outcome.output["text"] == "one two three"
    assert artifacts(ran) == ["one ", "two ", "three"]
    assert model.requests[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "count"},
    ]


async def test_it_calls_tools(model: ScriptedModel) -> None:
    model.script(ToolCall("add", {"a": 1, "b": 2}), Answer("it is three"))
    ran = await run(executor())
    assert called == [(1, 2)]
    assert said(ran) == ['calling add {"a": 1, "b": 2}', "result: 3"]
    assert ran.outcome.output["text"] == "it is three"
    assert model.requests[1]["messages"][-1]["content"] == "3"


class Traces(TracingProcessor):
    """Counts the traces that begin."""

    def __init__(self) -> None:
        self.begun = 0

    def on_trace_start(self, trace: Any) -> None:
        self.begun += 1

    def on_trace_end(self, trace: Any) -> None: ...
    def on_span_start(self, span: Any) -> None: ...
    def on_span_end(self, span: Any) -> None: ...
    def shutdown(self) -> None: ...
    def force_flush(self) -> None: ...


async def test_nothing_is_traced(model: ScriptedModel) -> None:
    """A trace goes to OpenAI, prompts and all, also when the model is somewhere else."""
    traces = Traces()
    add_trace_processor(traces)
    model.script(Answer("one"))
    assert (await run(executor())).outcome.kind == "completed"
    assert traces.begun == 0


class Verdict(BaseModel):
    good: bool


async def test_a_typed_output_is_data(model: ScriptedModel) -> None:
    model.script(Answer('{"good": true}'))
    agent = Agent(name="judge", model=MODEL, output_type=Verdict)
    ran = await run(OpenAIAgentsExecutor(agent, max_retries=0))
    output = {each["artifactId"]: each["parts"][0] for each in ran.outcome.output["artifacts"]}
    assert output["output"]["data"] == {"good": True}


@pytest.mark.parametrize(
    ("reply", "kind", "after", "counts", "text"),
    [
        (Failure(429, retry_after=7), "retry", 7, False, "busy for 7 s"),
        (Failure(429), "retry", 30, True, "busy"),
        (Failure(500), "retry", 0.5, True, "HTTP 500"),
        (Cut(), "retry", 0.5, True, "connection"),
        (Failure(404), "failed", None, True, "check the model's name"),
        (Failure(400, message=f"not with {KEY}"), "failed", None, True, "HTTP 400"),
    ],
)
async def test_errors_of_the_model(
    model: ScriptedModel, reply: Any, kind: str, after: float | None, counts: bool, text: str
) -> None:
    model.script(reply)
    ran = await run(executor())
    outcome = ran.outcome
    assert outcome.error is not None
    assert (outcome.kind, outcome.retry_after, outcome.counts_as_failure) == (kind, after, counts)
    assert text in outcome.error["message"]
    assert KEY not in str(ran.events)
    assert len(model.requests) == 1


async def test_no_key_a_wrong_key_and_nobody_there(
    model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A key that does not look like one.
    monkeypatch.setenv("OPENAI_API_KEY", "correct horse battery")
    ran = await run(executor())
    assert ran.outcome.kind == "failed"
    assert "check OPENAI_API_KEY" in ran.outcome.error["message"]
    assert "horse" not in str(ran.events)
    monkeypatch.delenv("OPENAI_API_KEY")
    ran = await run(executor())
    assert "set OPENAI_API_KEY" in ran.outcome.error["message"]
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    ran = await run(executor())
    assert ran.outcome.kind == "retry"
    assert "connection to the model failed" in ran.outcome.error["message"]


async def test_a_cancelled_run_hangs_up(model: ScriptedModel) -> None:
    ran = await cancelled_in_the_middle(executor(), model)
    assert ran.outcome.kind == "cancelled"
    assert artifacts(ran) == ["thinking "]
    assert not [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]


@pytest.mark.parametrize(
    ("answer", "approved"), [("Yes.", True), ("approve", True), ("no, it is mine", False)]
)
async def test_an_approval_is_a_question(model: ScriptedModel, answer: str, approved: bool) -> None:
    model.script(ToolCall("delete", {"path": "a.txt"}), Answer("so be it"))
    log = LogBook().started()
    first = await run(executor(), log.todo(), load_events=log.load)
    assert first.outcome.kind == "input_required"
    assert "approve? delete" in str(first.last.event_data)
    assert not called
    log.extend(first.events).answered(answer).started()
    # Another executor, as after a restart.
    second = await run(executor(), log.todo(), load_events=log.load)
    assert second.outcome.kind == "completed", second.outcome
    assert second.outcome.output["text"] == "so be it"
    assert called == (["a.txt"] if approved else [])
    history = model.requests[1]["messages"]
    assert [each["role"] for each in history] == ["system", "user", "assistant", "tool"]
    assert history[-1]["content"] == ("deleted a.txt" if approved else "no, it is mine")


async def test_a_session_remembers_earlier_tasks(model: ScriptedModel, tmp_path: Any) -> None:
    sessions: list[SQLiteSession] = []

    def session(context: Any) -> SQLiteSession:
        sessions.append(SQLiteSession(session_key(context), tmp_path / "memory.db"))
        return sessions[-1]

    model.script(Answer("hello Ada"), Answer("Ada"))
    try:
        await run(executor(session=session), make_todo(prompt="I am Ada"))
        await run(executor(session=session), make_todo(prompt="who am I?"))
    finally:
        for each in sessions:
            each.close()
    said = [each["content"] for each in model.requests[1]["messages"] if each["role"] == "user"]
    assert said == ["I am Ada", "who am I?"]


def test_what_is_no_agent_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"agents\.Agent"):
        OpenAIAgentsExecutor("helper")


async def test_a_worker_asks_and_goes_on(model: ScriptedModel, local_supabase: Any) -> None:
    model.script(ToolCall("delete", {"path": "a.txt"}), Answer("it is gone"))
    url, key = local_supabase.api_url, local_supabase.service_role_key
    async with (
        TaskClient.from_settings(url=url, key=key) as client,
        running_worker(local_supabase, executor(), agent_type="helper"),
    ):
        task = await client.submit_task("helper", "clean up")

        async def parked() -> bool:
            return (await client.get_task(task)).agent_status == "input_required"

        await eventually(parked)
        await client.answer_task(task, {"approve": True})
        done = await client.wait_for_completion(task, timeout=60)
        assert done.agent_output is not None, done.error
        assert done.agent_output["text"] == "it is gone"
    assert called == ["a.txt"]
    assert KEY not in str(done)
