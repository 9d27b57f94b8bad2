"""A task is cancelled at every moment of its life; each time there is one `task_cancelled`."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue

from reactive_worker.client.tasks import TaskClient
from reactive_worker.executors.echo import EchoExecutor
from reactive_worker.executors.function import FunctionExecutor
from reactive_worker.models import PushState, TodoStatus
from reactive_worker.store.store import TodoStore
from reactive_worker.testing.workers import eventually, running_worker
from tests.support import TERMINAL, broken_logs, kinds, query

#: Ends of threads that were told, or never would be.
_released = threading.Event()


def told(context: Any) -> str:
    """Blocks its thread until it is told to stop."""
    return "told" if context.wait_for_stop(60) else "not told"


def deaf_thread(prompt: str) -> str:
    """Blocks its thread and looks at nothing."""
    _released.wait(60)
    return prompt


class Watched(AgentExecutor):
    """Another executor, and how often it was started and asked to stop."""

    def __init__(self, inner: AgentExecutor) -> None:
        self.inner = inner
        self.calls: Counter[tuple[str, str]] = Counter()

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        self.calls[context.task_id or "", "execute"] += 1
        await self.inner.execute(context, event_queue)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        self.calls[context.task_id or "", "cancel"] += 1
        await self.inner.cancel(context, event_queue)


@pytest.fixture
async def client(local_supabase: Any) -> AsyncIterator[TaskClient]:
    async with TaskClient.from_settings(
        url=local_supabase.api_url, key=local_supabase.service_role_key
    ) as client:
        yield client
    _released.set()


async def status(db: str, id: str) -> str:
    (row,) = await query(db, "select agent_status from todolist where id = %s", id)
    return str(row["agent_status"])


async def is_cancelled(db: str, id: str) -> bool:
    return await status(db, id) == "cancelled"


async def is_in(db: str, id: str, wanted: str) -> bool:
    return await status(db, id) == wanted


async def ended_once(db: str, id: str) -> bool:
    log = await kinds(db, id)
    return [kind for kind in log if kind in TERMINAL] == ["task_cancelled"] and log[-1] == "task_cancelled"


async def test_each_moment_ends_in_exactly_one_task_cancelled(
    client: TaskClient, local_supabase: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    db = local_supabase.db_url
    _released.clear()
    read_history = TodoStore.all_events
    reading, may_read = asyncio.Event(), asyncio.Event()

    async def slow_history(self: TodoStore, id: str) -> Any:
        reading.set()
        await may_read.wait()
        return await read_history(self, id)

    echo = Watched(EchoExecutor())
    executors = {
        "echo": echo,
        "told": Watched(FunctionExecutor(told)),
        "deaf thread": Watched(FunctionExecutor(deaf_thread)),
    }

    # 1. Before anybody has claimed it.
    pending = await client.submit_task("echo", "never runs")
    assert (await client.cancel_task(pending)).agent_status is TodoStatus.CANCELLED

    monkeypatch.setattr(TodoStore, "all_events", slow_history)
    settings = {"cancel_grace": 0.5, "sweep_interval": 3600.0}
    async with running_worker(local_supabase, executors=executors, settings=settings) as worker:
        await eventually(lambda: worker.health.state is PushState.HEALTHY)

        # 2. While it is parked: held by nobody.
        parked = await client.submit_task("echo", "asks", {"ask": "well?"})
        await eventually(lambda: is_in(db, parked, "input_required"))
        assert (await client.cancel_task(parked)).agent_status is TodoStatus.CANCELLED

        # 3. Claimed, but before execute(): its history is being read.
        claimed = await client.submit_task("echo", "asks", {"ask": "well?"})
        await eventually(lambda: is_in(db, claimed, "input_required"))
        await client.answer_task(claimed, "go on")
        await reading.wait()
        await client.cancel_task(claimed)
        await eventually(lambda: is_cancelled(db, claimed))
        assert (echo.calls[claimed, "execute"], echo.calls[claimed, "cancel"]) == (1, 1)
        may_read.set()

        # 4. While it awaits something.
        running = await client.submit_task("echo", "a b c d", {"delay": 60})
        await eventually(lambda: echo.calls[running, "execute"])
        await client.cancel_task(running)
        await client.cancel_task(running)
        await eventually(lambda: is_cancelled(db, running))
        assert echo.calls[running, "cancel"] == 1

        # 5. While it blocks a thread: one that listens is told, one that does not is left behind.
        threads = [await client.submit_task(kind, "blocks") for kind in ("told", "deaf thread")]
        await eventually(lambda: len(worker.running) == 2)
        for id in threads:
            await client.cancel_task(id)
        for id in threads:
            await eventually(lambda id=id: is_cancelled(db, id))
        await eventually(lambda: "is left behind" in caplog.text)
        assert caplog.text.count("is left behind") == 1

        # And while nobody is told: the heartbeat finds it.
        local_supabase.faults.apply({"deaf": True, "broadcast_deaf": True})
        silent = await client.submit_task("echo", "a b c d", {"delay": 60})
        assert worker._session is not None
        worker._session.sweep_now()
        await eventually(lambda: echo.calls[silent, "execute"])
        await client.cancel_task(silent)
        await eventually(lambda: is_cancelled(db, silent))

        for id in (pending, parked, claimed, running, *threads, silent):
            assert await ended_once(db, id), await kinds(db, id)
        assert not worker.running
    assert await broken_logs(db) == []
    assert await query(db, "select id from todolist where failures > 0") == []
