"""steer_task end to end: pushed at once, found by a heartbeat when push is deaf, kept for the next run."""

from __future__ import annotations

from typing import Any

import pytest
from a2a.helpers import new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater

from reactive_worker.client.tasks import TaskClient
from reactive_worker.errors import TaskConflictError, TaskNotFoundError
from reactive_worker.execution import steering
from reactive_worker.execution.context import TodoRequestContext
from reactive_worker.models import PushState
from reactive_worker.testing.workers import eventually, running_worker
from tests.executors import Echo
from tests.support import broken_logs, kinds, query


class Listener(AgentExecutor):
    """Repeats what it is told until it is told "stop"; dies of "die", once."""

    def __init__(self) -> None:
        self.runs = 0

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert isinstance(context, TodoRequestContext)
        self.runs += 1
        updater = TaskUpdater(event_queue, context.task_id or "", context.context_id or "")
        said = 0
        async for message in context.steering():
            if message.text == "die" and context.attempt == 1:
                raise RuntimeError("dead")
            await updater.add_artifact([new_text_part(f"{message.text} ")], artifact_id="a", append=said > 0)
            said += 1
            if message.text == "stop":
                return

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


async def test_a_running_agent_is_steered(local_supabase: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "PATIENCE", 0.5)
    db = local_supabase.db_url
    slow = {"heartbeat": 30.0, "lease": 60.0, "probe_interval": 0.5}
    async with (
        TaskClient.from_settings(url=local_supabase.api_url, key=local_supabase.service_role_key) as client,
        running_worker(
            local_supabase, executors={"listen": Listener(), "echo": Echo()}, settings=slow
        ) as worker,
    ):
        await eventually(lambda: worker.health.state is PushState.HEALTHY)
        id = await client.submit_task("listen", "go")
        with pytest.raises(TaskConflictError, match="cannot be steered: it is pending"):
            await client.steer_task(await client.submit_task("nobody", "x"), "hello")
        with pytest.raises(TaskNotFoundError):
            await client.steer_task("00000000-0000-4000-8000-000000000000", "hello")
        await eventually(lambda: worker.running)

        # The next heartbeat is half a minute away: what arrives, was pushed.
        first = await client.steer_task(id, "one")
        assert first.state == "sent"
        await eventually(lambda: _said(db, id, "steer_accepted"), timeout=10)
        last = await client.steer_task(id, "stop", wait=10)
        assert (last.state, last.reason) == ("applied", None)
        todo = await client.wait_for_completion(id, timeout=20)
        assert todo.agent_output["text"] == "one stop "
        assert [kind for kind in await kinds(db, id) if kind.startswith("steer")] == [
            "steer_accepted",
            "steer_applied",
            "steer_accepted",
            "steer_applied",
        ]
        with pytest.raises(TaskConflictError, match="it is completed"):
            await client.steer_task(id, "more")

        # One that does not listen.
        other = await client.submit_task("echo", "x", {"sleep": 60})
        await eventually(lambda: worker.running)
        refused = await client.steer_task(other, "hello", wait=15)
        assert (refused.state, refused.reason) == ("refused", "this agent cannot be steered")
        await client.cancel_task(other)
        await eventually(lambda: _said(db, other, "task_cancelled"))
        assert await broken_logs(db) == []


async def test_a_message_survives_a_deaf_line_and_a_failed_run(local_supabase: Any) -> None:
    db = local_supabase.db_url
    local_supabase.faults.deaf = True
    listener = Listener()
    async with (
        TaskClient.from_settings(url=local_supabase.api_url, key=local_supabase.service_role_key) as client,
        running_worker(
            local_supabase, listener, settings={"polling_interval": 0.3, "heartbeat": 0.5}
        ) as worker,
    ):
        id = await client.submit_task("test", "go")
        await eventually(lambda: worker.running)
        await client.steer_task(id, "hello")
        await eventually(lambda: _said(db, id, "steer_accepted"))
        await client.steer_task(id, "die")
        await client.steer_task(id, "stop")
        todo = await client.wait_for_completion(id, timeout=30)
    # Applied ones are not said again; the one it died of, and what came after, are for the next run.
    assert listener.runs == 2
    assert todo.agent_output["text"] == "die stop "
    rows = await query(db, "select applied_at is not null as applied from steering order by n")
    assert [row["applied"] for row in rows] == [True, True, True]
    log = await kinds(db, id)
    assert log.count("steer_applied") == log.count("steer_accepted") == 3
    assert await broken_logs(db) == []


async def _said(db: str, id: str, kind: str) -> bool:
    return kind in await kinds(db, id)
