"""Messages to a running executor: accepted, applied, refused, and left for the next run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from a2a.server.agent_execution import RequestContext
from a2a.server.events import EventQueue
from a2a.types import TaskState

from reactive_worker.execution import TaskRun, steering
from reactive_worker.execution.context import TodoRequestContext
from reactive_worker.execution.steering import SteerMessage
from reactive_worker.testing.workers import eventually
from tests.unit.execution.fakes import Ran, Scripted, make_runner, make_todo, message, run, status


def say(text: str, *, accepted: bool = False) -> SteerMessage:
    return SteerMessage(f"id-{text}", message(text), accepted)


def steered(ran: Ran) -> list[tuple[str, str | None]]:
    """What the log says about messages: ``("accepted", text)``."""
    return [
        (str(event.event_type).removeprefix("steer_"), event.message)
        for event in ran.events
        if event.event_type.startswith("steer_")
    ]


def heard(context: RequestContext) -> Any:
    assert isinstance(context, TodoRequestContext)
    return context.steering()


def sending(*messages: SteerMessage) -> Any:
    async def act(task_run: TaskRun) -> None:
        await asyncio.sleep(0)
        task_run.steer(messages)

    return act


async def test_a_message_is_accepted_then_applied() -> None:
    texts: list[str] = []

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        async for said in heard(context):
            texts.append(said.text)
            if said.text == "enough":
                break
        await queue.enqueue_event(status(TaskState.TASK_STATE_COMPLETED))

    ran = await run(execute, act=sending(say("one"), say("one"), say("enough")))
    assert texts == ["one", "enough"]
    assert steered(ran) == [
        ("accepted", "one"),
        ("accepted", "enough"),
        ("applied", "one"),
        # It ended well, so what it was handed last was dealt with.
        ("applied", "enough"),
    ]
    assert ran.types[-1] == "task_completed"
    first = next(event for event in ran.events if event.event_type == "steer_accepted")
    assert first.event_data["steer"]["messageId"] == "id-one"
    assert first.event_data["steer"]["message"]["parts"] == [{"text": "one"}]


async def test_a_message_waits_for_an_executor_that_begins_to_listen() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await asyncio.sleep(0.05)
        async for _ in heard(context):
            return

    ran = await run(execute, act=sending(say("early")))
    assert steered(ran) == [("accepted", "early"), ("applied", "early")]


async def test_an_executor_that_does_not_listen_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "PATIENCE", 0.02)
    refused = asyncio.Event()

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await refused.wait()

    ran = Ran()
    task_run = make_runner(Scripted(execute)).start(make_todo(), ran.events.append)
    task_run.steer([say("hello")])
    await eventually(lambda: steered(ran))
    refused.set()
    await task_run.wait()
    assert steered(ran) == [("refused", "this agent cannot be steered")]
    assert ran.outcome.kind == "completed"


async def test_who_leaves_the_loop_listens_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "PATIENCE", 0.02)
    left, end = asyncio.Event(), asyncio.Event()

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        async for _ in heard(context):
            break
        left.set()
        await end.wait()

    ran = Ran()
    task_run = make_runner(Scripted(execute)).start(make_todo(), ran.events.append)
    task_run.steer([say("one")])
    await left.wait()
    await asyncio.sleep(0)
    task_run.steer([say("two")])
    await eventually(lambda: ("refused", "this agent cannot be steered") in steered(ran))
    end.set()
    await task_run.wait()
    assert [what for what, _ in steered(ran)] == ["accepted", "refused", "applied"]


async def test_what_comes_too_late_is_refused_before_the_end() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        heard(context)
        await asyncio.sleep(0.02)
        await queue.enqueue_event(status(TaskState.TASK_STATE_COMPLETED))

    ran = await run(execute, act=sending(say("a"), say("b")))
    assert steered(ran)[2:] == [("refused", "the task ended before the agent got to it")] * 2
    assert ran.types[-1] == "task_completed"


async def test_a_run_that_fails_leaves_its_messages_to_the_next() -> None:
    async def fail(context: RequestContext, queue: EventQueue) -> None:
        async for _ in heard(context):
            raise RuntimeError("oops")

    ran = await run(fail, act=sending(say("a"), say("b")))
    assert ran.outcome.kind == "retry"
    assert steered(ran) == [("accepted", "a"), ("accepted", "b")]

    async def listen(context: RequestContext, queue: EventQueue) -> None:
        count = 0
        async for _ in heard(context):
            count += 1
            if count == 2:
                return

    again = await run(listen, act=sending(say("a", accepted=True), say("b", accepted=True)))
    assert steered(again) == [("applied", "a"), ("applied", "b")]


async def test_a_run_that_is_lost_says_nothing_more() -> None:
    ended = asyncio.Event()

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        async def listen() -> None:
            async for _ in heard(context):
                pass
            ended.set()

        listening = asyncio.create_task(listen())
        # Never cancelled: it ends by itself, for the iterator ends with the run.
        tasks.append(listening)
        await asyncio.sleep(60)

    tasks: list[asyncio.Task[None]] = []
    ran = Ran()
    task_run = make_runner(Scripted(execute)).start(make_todo(), ran.events.append)
    await asyncio.sleep(0.01)
    task_run.lose()
    task_run.steer([say("late")])
    await task_run.wait()
    await asyncio.wait_for(ended.wait(), 5)
    assert ran.events == []
