"""LangGraphExecutor: the real LangGraph and its chat model against a scripted model."""

from __future__ import annotations

import asyncio
import operator
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph", reason="needs pip install 'reactive-worker[langgraph]'")
pytest.importorskip("langchain_openai", reason="needs pip install 'reactive-worker[langgraph]'")

import openai
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt

from reactive_worker import TaskClient
from reactive_worker.errors import ConfigurationError
from reactive_worker.executors.langgraph import LangGraphExecutor
from reactive_worker.models import EventType
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
from tests.unit.execution.fakes import LogBook, Ran, make_todo, run

called: list[Any] = []
clients: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _nothing_called() -> None:
    called.clear()


@pytest.fixture(autouse=True)
async def http() -> AsyncIterator[Any]:
    """LangChain shares one HTTP client among event loops, and each test has a loop of its own."""
    async with openai.DefaultAsyncHttpxClient() as client:
        clients["http"] = client
        yield client


class Chat(TypedDict):
    messages: Annotated[list[Any], add_messages]


class Letter(TypedDict, total=False):
    prompt: str
    pages: int
    first: str
    second: str


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    called.append((a, b))
    return a + b


@tool
def delete(path: str) -> str:
    """Delete a file, once a person agrees."""
    answer = interrupt({"question": f"delete {path}?", "path": path})
    called.append((path, answer))
    return f"deleted {path}" if answer == "yes" else f"kept {path}"


def agent(saver: Any = None) -> Any:
    """Agent and tools in a loop, as `create_agent` builds it."""
    chat = ChatOpenAI(
        model=MODEL, max_retries=0, streaming=True, http_async_client=clients["http"]
    ).bind_tools([add, delete])

    async def ask(state: Chat) -> Chat:
        return {"messages": [await chat.ainvoke(state["messages"])]}

    graph = StateGraph(Chat)
    graph.add_node("agent", ask)
    graph.add_node("tools", ToolNode([add, delete]))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "agent")
    return graph.compile(checkpointer=saver)


def letter(saver: Any = None, *, second: Any = None) -> Any:
    """Two nodes without a model; the first asks."""

    def first(state: Letter) -> Letter:
        get_stream_writer()({"looking": state["prompt"]})
        called.append("first")
        return {"first": interrupt("who is it for?")}

    def last(state: Letter) -> Letter:
        called.append("second")
        return {"second": "dear " + state["first"]}

    graph = StateGraph(Letter)
    graph.add_sequence([("one", first), ("two", second or last)])
    graph.add_edge(START, "one")
    graph.add_edge("two", END)
    return graph.compile(checkpointer=saver)


async def test_it_answers_in_tokens(model: ScriptedModel) -> None:
    model.script(Answer("one two three"))
    ran = await run(LangGraphExecutor(agent()), make_todo(prompt="count"))
    assert ran.outcome.kind == "completed", ran.outcome
    assert ran.outcome.output["text"] == "one two three"
    assert artifacts(ran) == ["one ", "two ", "three"]
    assert said(ran) == ["agent is done"]
    assert model.requests[0]["messages"] == [{"role": "user", "content": "count"}]


async def test_it_calls_tools(model: ScriptedModel) -> None:
    model.script(ToolCall("add", {"a": 1, "b": 2}), Answer("it is three"))
    ran = await run(LangGraphExecutor(agent()))
    assert called == [(1, 2)]
    assert said(ran) == ['calling add {"a": 1, "b": 2}', "add: 3", "agent is done"]
    assert ran.outcome.output["text"] == "it is three"


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
    ran = await run(LangGraphExecutor(agent()))
    outcome = ran.outcome
    assert outcome.error is not None
    assert (outcome.kind, outcome.retry_after, outcome.counts_as_failure) == (kind, after, counts)
    assert text in outcome.error["message"]
    assert KEY not in str(ran.events)


async def test_a_cancelled_run_hangs_up(model: ScriptedModel) -> None:
    ran = await cancelled_in_the_middle(LangGraphExecutor(agent()), model)
    assert ran.outcome.kind == "cancelled"
    assert artifacts(ran) == ["thinking "]
    assert not [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]


async def test_an_interrupt_in_a_tool_is_a_question(model: ScriptedModel) -> None:
    model.script(ToolCall("delete", {"path": "a.txt"}), Answer("it is gone"))
    saver, log = InMemorySaver(), LogBook().started()
    first = await run(LangGraphExecutor(agent(saver)), log.todo(), load_events=log.load)
    assert first.outcome.kind == "input_required"
    assert "delete a.txt?" in str(first.last.event_data)
    log.extend(first.events).answered("yes").started()
    second = await run(LangGraphExecutor(agent(saver)), log.todo(), load_events=log.load)
    assert second.outcome.output["text"] == "it is gone"
    assert called == [("a.txt", "yes")]
    assert model.requests[1]["messages"][-1]["content"] == "deleted a.txt"


async def test_a_lost_run_goes_on_after_the_last_finished_node() -> None:
    def fails(state: Letter) -> Letter:
        raise RuntimeError("the printer is out of paper")

    saver, log = InMemorySaver(), LogBook().started()
    asked = await run(LangGraphExecutor(letter(saver)), log.todo(), load_events=log.load)
    assert said(asked) == ['{"looking": "hello"}']
    # A run that was lost before it could ask: the next one asks, and does not run the node again.
    lost = LogBook().started().started()
    again = await run(LangGraphExecutor(letter(saver)), lost.todo(), load_events=lost.load)
    assert again.outcome.kind == "input_required"
    assert called == ["first"]
    log.extend(asked.events).answered("Ada").started()
    failed = await run(LangGraphExecutor(letter(saver, second=fails)), log.todo(), load_events=log.load)
    assert "out of paper" in failed.outcome.error["message"]
    assert called == ["first", "first"]
    log.extend(failed.events).started()
    done = await run(LangGraphExecutor(letter(saver)), log.todo(), load_events=log.load)
    assert called == ["first", "first", "second"]
    output = done.outcome.output["artifacts"][0]["parts"][0]["data"]
    assert output == {"prompt": "hello", "first": "Ada", "second": "dear Ada"}
    # The log ends without the outcome, as when the worker dies before it is stored.
    log.started()
    same = await run(LangGraphExecutor(letter(saver)), log.todo(), load_events=log.load)
    assert same.outcome.output == done.outcome.output
    assert called == ["first", "first", "second"]


class Both(TypedDict, total=False):
    prompt: str
    heard: Annotated[list[str], operator.add]


def two_questions(saver: Any) -> LangGraphExecutor:
    """Two nodes ask at the same time; each says what it was answered."""

    def asking(name: str) -> Any:
        def node(state: Both) -> Both:
            answer = interrupt(f"question {name}")
            called.append(name)
            return {"heard": [f"{name} got {answer!r}"]}

        return node

    graph = StateGraph(Both)
    for name in ("a", "b"):
        graph.add_node(name, asking(name))
        graph.add_edge(START, name)
    return LangGraphExecutor(
        graph.compile(checkpointer=saver), output=lambda state: " | ".join(state["heard"])
    )


def asked(ran: Ran) -> dict[str, str]:
    """The questions a run ended with: text -> id."""
    assert ran.outcome.kind == "input_required", ran.outcome
    parts = ran.last.event_data["statusUpdate"]["status"]["message"]["parts"]
    return {each["value"]: each["id"] for each in parts[1]["data"]["interrupts"]}


def answer(log: LogBook, data: Any) -> LogBook:
    return log.add(EventType.MESSAGE_RECEIVED, {"message": {"parts": [{"data": data}]}}).started()


async def test_an_answer_by_id_resumes_that_interrupt_and_asks_the_other_again() -> None:
    saver, log = InMemorySaver(), LogBook().started()
    first = await run(two_questions(saver), log.todo(), load_events=log.load)
    ids = asked(first)
    assert set(ids) == {"question a", "question b"}
    answer(log.extend(first.events), {ids["question a"]: {"n": 2**53 + 1, "k": 5}})
    second = await run(two_questions(saver), log.todo(), load_events=log.load)
    assert asked(second) == {"question b": ids["question b"]}
    # The run that was lost after it had asked: its answer is used up, and not given to the other.
    log.started()
    again = await run(two_questions(saver), log.todo(), load_events=log.load)
    assert asked(again) == {"question b": ids["question b"]}
    assert called == ["a"]
    answer(log.extend(again.events), 7)
    done = await run(two_questions(saver), log.todo(), load_events=log.load)
    assert done.outcome.output["text"] == f"a got {{'n': {2**53 + 1}, 'k': 5}} | b got 7"


async def test_answers_for_all_interrupts_at_once() -> None:
    for given, heard in (
        (lambda ids: {ids["question a"]: 1, ids["question b"]: [2.5]}, "a got 1 | b got [2.5]"),
        (lambda ids: {"unknown": True}, "a got {'unknown': True} | b got {'unknown': True}"),
        (lambda ids: 2**63 - 1, f"a got {2**63 - 1} | b got {2**63 - 1}"),
    ):
        saver, log = InMemorySaver(), LogBook().started()
        first = await run(two_questions(saver), log.todo(), load_events=log.load)
        answer(log.extend(first.events), given(asked(first)))
        done = await run(two_questions(saver), log.todo(), load_events=log.load)
        assert done.outcome.output["text"] == heard


async def test_the_same_id_of_another_owner_is_another_thread() -> None:
    """A deleted task's id may be used again by somebody else, who must not go on with its graph."""
    saver, ada, eve = InMemorySaver(), str(uuid.uuid4()), str(uuid.uuid4())
    first = await run(LangGraphExecutor(letter(saver)), make_todo(prompt="Ada's secret", owner_id=ada))
    assert first.outcome.kind == "input_required"
    for owner in (eve, None):
        theirs = await run(LangGraphExecutor(letter(saver)), make_todo(prompt="mine", owner_id=owner))
        assert said(theirs) == ['{"looking": "mine"}']
        assert "secret" not in str(theirs.events)


async def test_a_breakpoint_is_a_question_too() -> None:
    graph = StateGraph(Letter)
    graph.add_node("write", lambda state: {"first": "written"})
    graph.add_edge(START, "write")
    compiled = graph.compile(checkpointer=InMemorySaver(), interrupt_before=["write"])
    executor, log = LangGraphExecutor(compiled, output=lambda state: state["first"]), LogBook().started()
    paused = await run(executor, log.todo(), load_events=log.load)
    assert paused.outcome.kind == "input_required"
    assert "paused before write" in str(paused.last.event_data)
    log.extend(paused.events).answered("go on").started()
    done = await run(executor, log.todo(), load_events=log.load)
    assert done.outcome.output["text"] == "written"


async def test_what_is_missing_is_said() -> None:
    ran = await run(LangGraphExecutor(letter()))
    assert ran.outcome.kind == "failed"
    assert "no checkpointer" in ran.outcome.error["message"]

    # The checkpoint was in the memory of a worker that is gone.
    log = LogBook().started()
    asked = await run(LangGraphExecutor(letter(InMemorySaver())), log.todo(), load_events=log.load)
    log.extend(asked.events).answered("Ada").started()
    gone = await run(LangGraphExecutor(letter(InMemorySaver())), log.todo(), load_events=log.load)
    assert gone.outcome.kind == "failed"
    assert "durable checkpointer" in gone.outcome.error["message"]

    with pytest.raises(ConfigurationError, match="compile"):
        LangGraphExecutor(StateGraph(Chat))


async def test_input_and_output_are_ones_own() -> None:
    def node(state: Letter) -> Letter:
        return {"first": f"{state['prompt']} on {state['pages']} pages"}

    graph = StateGraph(Letter)
    graph.add_node("write", node)
    graph.add_edge(START, "write")
    todo = make_todo(prompt="a letter", input_data={"pages": 3, "other": 1})
    executor = LangGraphExecutor(graph.compile(), output=lambda state: state["first"])
    assert (await run(executor, todo)).outcome.output["text"] == "a letter on 3 pages"
    executor = LangGraphExecutor(
        graph.compile(),
        input=lambda context: {"prompt": context.get_user_input().upper(), "pages": 1},
        output=lambda state: state["first"],
    )
    assert (await run(executor, todo)).outcome.output["text"] == "A LETTER on 1 pages"


async def test_a_worker_asks_and_goes_on(model: ScriptedModel, local_supabase: Any) -> None:
    model.script(ToolCall("delete", {"path": "a.txt"}), Answer("it is gone"))
    url, key = local_supabase.api_url, local_supabase.service_role_key
    executor = LangGraphExecutor(agent(InMemorySaver()))
    async with (
        TaskClient.from_settings(url=url, key=key) as client,
        running_worker(local_supabase, executor, agent_type="graph"),
    ):
        task = await client.submit_task("graph", "clean up")

        async def parked() -> bool:
            return (await client.get_task(task)).agent_status == "input_required"

        await eventually(parked)
        await client.answer_task(task, "yes")
        done = await client.wait_for_completion(task, timeout=60)
        assert done.agent_output is not None, done.error
        assert done.agent_output["text"] == "it is gone"
    assert called == [("a.txt", "yes")]
