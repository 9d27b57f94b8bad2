"""CrewAIExecutor: the real CrewAI and its OpenAI client against a scripted model."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

# Before the import: CrewAI reads them then.
os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true", CREWAI_TRACING_ENABLED="false")
pytest.importorskip("crewai", reason="needs pip install 'reactive-worker[crewai]'")

from crewai import LLM, Agent, Crew, Task
from crewai.flow.flow import Flow, listen, start
from crewai.tools import tool
from pydantic import BaseModel

from reactive_worker import TaskClient
from reactive_worker.errors import ConfigurationError
from reactive_worker.executors.crewai import CrewAIExecutor, ask_human, stop_requested
from reactive_worker.testing.workers import eventually, running_worker
from tests.integration.frameworks.openai_server import (
    KEY,
    MODEL,
    Answer,
    Cut,
    Failure,
    ScriptedModel,
    Stall,
    ToolCall,
    reached,
)
from tests.integration.frameworks.runs import artifacts, said
from tests.integration.programs import ROOT
from tests.unit.execution.fakes import LogBook, Ran, make_runner, make_todo, run

# The framework's own: pydantic and chromadb warn about each other at import and in use.
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:UserWarning")


@tool("add")
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@tool("ask")
def ask(question: str) -> str:
    """Ask the customer."""
    return f"the customer says: {ask_human(question)}"


def crew(model: ScriptedModel, *tools: Any, **task: Any) -> Any:
    llm = LLM(model=f"openai/{MODEL}", base_url=model.base_url, api_key=KEY, stream=True, max_retries=0)
    agent = Agent(role="clerk", goal="answer", backstory="old", llm=llm, tools=list(tools), max_retry_limit=0)
    job = Task(description="Answer: {prompt}", expected_output="a line", agent=agent, **task)
    return Crew(agents=[agent], tasks=[job])


async def test_an_answer_is_streamed_and_is_the_result(model: ScriptedModel) -> None:
    model.script(Answer("forty two"))
    ran = await run(CrewAIExecutor(crew(model)), make_todo(prompt="the question"))
    assert ran.outcome.kind == "completed"
    assert artifacts(ran) == ["forty ", "two"]
    assert ran.outcome.output["text"] == "forty two"
    assert said(ran)[0] == "task: Answer: the question"
    assert "the question" in str(model.requests[0]["messages"])


async def test_a_tool_is_called_and_told(model: ScriptedModel) -> None:
    model.script(ToolCall("add", {"a": 1, "b": 2}), Answer("three"))
    ran = await run(CrewAIExecutor(crew(model, add)), make_todo())
    assert ran.outcome.output["text"] == "three"
    assert [line for line in said(ran) if line.startswith("add")] == ['add({"a": 1, "b": 2})', "add: 3"]
    assert model.requests[1]["messages"][-1]["content"] == "3"


class Verdict(BaseModel):
    good: bool


async def test_json_is_an_artifact_of_its_own(model: ScriptedModel) -> None:
    model.script(*[Answer('{"good": true}')] * 3)
    ran = await run(CrewAIExecutor(lambda: crew(model, output_pydantic=Verdict)), make_todo())
    assert ran.outcome.output["artifacts"][-1]["parts"][0]["data"] == {"good": True}


@pytest.mark.parametrize(
    ("reply", "kind", "error"),
    [
        (Failure(429, retry_after=7), "retry", "RetryLater"),
        (Failure(500), "retry", "ModelError"),
        (Cut(), "retry", "ModelError"),
        (Failure(401, message=f"wrong key {KEY}"), "failed", "PermanentFailure"),
    ],
    ids=["429", "500", "cut", "401"],
)
async def test_errors_of_the_model(model: ScriptedModel, reply: Any, kind: str, error: str) -> None:
    model.script(*[reply] * 8)
    ran = await run(CrewAIExecutor(crew(model)), make_todo())
    assert (ran.outcome.kind, (ran.outcome.error or {}).get("type")) == (kind, error)
    assert KEY not in str(ran.outcome) + str(ran.events)
    if error == "RetryLater":
        assert ran.outcome.retry_after == 7


async def test_a_cancel_in_the_middle_leaves_the_thread_behind(model: ScriptedModel) -> None:
    stall, ran = Stall(), Ran()
    model.script(stall)
    runner = make_runner(CrewAIExecutor(crew(model)), cancel_grace=0.2)
    task_run = runner.start(make_todo(), ran.events.append)
    await eventually(lambda: artifacts(ran))
    task_run.cancel()
    outcome = await task_run.wait()
    assert outcome.kind == "cancelled"
    stall.release.set()
    await reached(stall.reached)


async def test_tools_are_told_of_a_stop(model: ScriptedModel) -> None:
    begun, stopped = threading.Event(), threading.Event()

    @tool("dig")
    def dig(where: str) -> str:
        """Dig for long."""
        begun.set()
        while not stop_requested():
            stopped.wait(0.01)
        stopped.set()
        return "nothing"

    ran = Ran()
    model.script(ToolCall("dig", {"where": "here"}), Answer("nothing"))
    task_run = make_runner(CrewAIExecutor(crew(model, dig))).start(make_todo(), ran.events.append)
    await reached(begun)
    task_run.cancel()
    assert (await task_run.wait()).kind == "cancelled"
    await reached(stopped)


async def test_a_question_parks_the_task_and_its_answer_reaches_the_tool(model: ScriptedModel) -> None:
    executor, log = CrewAIExecutor(crew(model, ask)), LogBook().started()
    asks = ToolCall("ask", {"question": "which?"}), ToolCall("ask", {"question": "sure?"})
    model.script(asks[0], *[Answer("never mind")] * 4)
    first = await run(executor, log.todo(prompt="choose"), load_events=log.load)
    assert first.outcome.kind == "input_required"
    assert "which?" in str(first.last.event_data)

    model.reset()
    model.script(*asks, *[Answer("never mind")] * 4)
    log.extend(first.events).answered("the red one").started()
    second = await run(executor, log.todo(prompt="choose"), load_events=log.load)
    assert second.outcome.kind == "input_required"
    assert "sure?" in str(second.last.event_data)
    assert model.requests[1]["messages"][-1]["content"] == "the customer says: the red one"
    # The task is still about what it was submitted with.
    assert "choose" in str(model.requests[0]["messages"])

    model.reset()
    model.script(*asks, Answer("red, surely"))
    log.extend(second.events).answered("yes", "answer 2").started()
    third = await run(executor, log.todo(prompt="choose"), load_events=log.load)
    assert third.outcome.output["text"] == "red, surely"
    assert model.requests[2]["messages"][-1]["content"] == "the customer says: yes"


class Greeting(Flow[Any]):
    @start()
    def who(self) -> str:
        return str(ask_human(f"who is {self.state['prompt']}?"))

    @listen(who)
    def greet(self, name: str) -> str:
        return f"hello {name}"


async def test_a_flow_asks_and_goes_on(model: ScriptedModel) -> None:
    executor, log = CrewAIExecutor(Greeting), LogBook().started()
    asked = await run(executor, log.todo(prompt="there"), load_events=log.load)
    assert asked.outcome.kind == "input_required"
    assert "who is there?" in str(asked.last.event_data)
    log.extend(asked.events).answered("Ada").started()
    done = await run(executor, log.todo(prompt="there"), load_events=log.load)
    assert done.outcome.output["text"] == "hello Ada"


async def test_crews_side_by_side_do_not_mix(model: ScriptedModel) -> None:
    executor = CrewAIExecutor(crew(model))
    model.script(*[Answer("one two three")] * 4)
    prompts = ["a", "b", "c", "d"]
    ran = await asyncio.gather(*(run(executor, make_todo(prompt=prompt)) for prompt in prompts))
    for prompt, each in zip(prompts, ran, strict=True):
        assert said(each) == [f"task: Answer: {prompt}", f"task done: Answer: {prompt}"]
        assert each.outcome.output["text"] == "one two three"


def test_what_is_no_crew_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="takes a Crew"):
        CrewAIExecutor("crew")
    with pytest.raises(ConfigurationError, match="pass its class"):
        CrewAIExecutor(Greeting())
    with pytest.raises(RuntimeError, match="inside a crew or flow"):
        ask_human("anybody?")


async def test_a_worker_runs_a_crew(local_supabase: Any, model: ScriptedModel) -> None:
    model.script(Answer("done and dusted"))
    async with (
        running_worker(local_supabase, CrewAIExecutor(crew(model))),
        TaskClient.from_settings(url=local_supabase.api_url, key=local_supabase.service_role_key) as client,
    ):
        id = await client.submit_task("test", "dust")
        todo = await client.wait_for_completion(id, timeout=60)
    assert todo.agent_output["text"] == "done and dusted"


async def test_the_deep_research_sample(model: ScriptedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import crew_ai_dr

    model.script(Answer("what is a lease?"), Answer("a promise with an end"), Answer("# Leases"))
    ran = await run(crew_ai_dr.executor(), make_todo(prompt="leases", input_data={"sources": ["the book"]}))
    assert ran.outcome.output["text"] == "# Leases"
    assert "the book" in str(model.requests[1]["messages"])
    # Each of the crew has read what the ones before it found.
    assert "a promise with an end" in str(model.requests[2]["messages"])
