"""Many people at one task: one of them is first, and the others are told."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from a2a.helpers import new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater

from reactive_worker.backoff import Backoff
from reactive_worker.client.tasks import TaskClient
from reactive_worker.models import TodoStatus
from reactive_worker.testing.workers import eventually, running_worker
from tests.support import broken_logs, kinds, query


class FiveQuestions(AgentExecutor):
    """Asks five times, then repeats what it was told; each turn fails twice before it works."""

    def __init__(self) -> None:
        self.tries: dict[int, int] = {}
        self.heard: list[str] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        updater = TaskUpdater(event_queue, context.task_id or "", context.context_id or "")
        task = context.current_task
        answers = [m for m in task.history if m.role == 1] if task is not None else []
        await self.hold.wait()
        turn = len(self.heard)
        self.tries[turn] = self.tries.get(turn, 0) + 1
        if self.tries[turn] < 3:
            raise RuntimeError(f"turn {turn}, failure {self.tries[turn]}")
        self.heard.append(context.get_user_input())
        assert turn == 0 or len(answers) >= turn, "the earlier answers are in the task's history"
        if turn < 5:
            await updater.requires_input(new_text_message(f"question {turn + 1}"))
            return
        await updater.complete(new_text_message(" ".join(self.heard[1:])))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


@pytest.fixture
async def client(local_supabase: Any) -> AsyncIterator[TaskClient]:
    async with TaskClient.from_settings(
        url=local_supabase.api_url, key=local_supabase.service_role_key
    ) as client:
        yield client


@pytest.fixture
async def crowd(local_supabase: Any) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Twenty HTTP clients, each with a connection of its own."""
    key = local_supabase.service_role_key
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=f"{local_supabase.api_url}/rest/v1/rpc",
                    headers={"apikey": key, "Authorization": f"Bearer {key}"},
                    # Reading the machine's certificates twenty times takes seconds; this is plain HTTP.
                    verify=False,
                    timeout=60,
                )
            )
            for _ in range(20)
        ]


@pytest.fixture(autouse=True)
def _retries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactive_worker.execution.runner.RETRY_BACKOFF", Backoff(1e-6, 1e-6))


async def asked(db: str, id: str, questions: int) -> bool:
    return (await kinds(db, id)).count("task_input_required") == questions


async def test_a_conversation_of_five_turns_with_failures_in_each(
    client: TaskClient, local_supabase: Any
) -> None:
    """Twelve failures in all, never three in a row: an answer gives the whole budget back."""
    db = local_supabase.db_url
    async with running_worker(local_supabase, FiveQuestions(), settings={"polling_interval": 0.2}):
        id = await client.submit_task("test", "start", max_failures=3)
        for turn in range(1, 6):
            await eventually(lambda turn=turn: asked(db, id, turn))
            await client.answer_task(id, f"answer{turn}")
        done = await client.wait_for_completion(id, timeout=30)
    assert done.agent_status is TodoStatus.COMPLETED
    assert done.agent_output["text"] == "answer1 answer2 answer3 answer4 answer5"
    log = await kinds(db, id)
    assert log.count("task_retrying") == 12
    assert log.count("task_input_required") == log.count("message_received") == 5
    assert await broken_logs(db) == []


async def test_of_simultaneous_answers_one_starts_a_turn(
    client: TaskClient, crowd: list[httpx.AsyncClient], local_supabase: Any
) -> None:
    db = local_supabase.db_url
    executor = FiveQuestions()
    async with running_worker(local_supabase, executor, settings={"polling_interval": 0.2}):
        id = await client.submit_task("test", "start")
        await eventually(lambda: asked(db, id, 1))
        # Two as people would, and eighteen more; the second question must not be up before all have tried.
        executor.hold = asyncio.Event()
        message = {"role": "ROLE_USER", "messageId": str(uuid.uuid4())}
        said = await asyncio.gather(
            *(
                one.post(
                    "/answer_todo", json={"p_id": id, "p_message": {**message, "parts": [{"text": str(n)}]}}
                )
                for n, one in enumerate(crowd)
            )
        )
        executor.hold.set()
        codes = [answer.status_code for answer in said]
        assert sorted(codes) == [200] + [409] * 19, [answer.text for answer in said]
        refused = next(answer for answer in said if answer.status_code == 409)
        assert "is not waiting for an answer" in refused.json()["message"]
        await eventually(lambda: asked(db, id, 2))
    assert executor.heard == ["start", str(codes.index(200))]
    assert (await kinds(db, id)).count("message_received") == 1


async def test_one_key_from_twenty_clients_over_http_is_one_row(
    crowd: list[httpx.AsyncClient], local_supabase: Any
) -> None:
    row = {"agent_type": "nobody", "prompt": "once", "idempotency_key": "the same"}
    answers = await asyncio.gather(*(one.post("/submit_todos", json={"p_rows": [row]}) for one in crowd))
    assert {answer.status_code for answer in answers} == {200}
    items = [answer.json()[0] for answer in answers]
    assert len({item["id"] for item in items}) == 1
    assert sum(item["created"] for item in items) == 1
    assert len(await query(local_supabase.db_url, "select id from todolist")) == 1
