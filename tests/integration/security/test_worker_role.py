"""The role reactive_worker: does a worker's whole job, and nothing else; its token opens nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from reactive_worker.access.tokens import mint_token
from reactive_worker.client.tasks import TaskClient
from reactive_worker.models import PushState, TodoStatus
from reactive_worker.testing.workers import eventually, running_worker
from tests.executors import Echo
from tests.integration.client.test_conversation import Ask
from tests.support import broken_logs, kinds, query

#: For a hint that overtakes its row: streamed from the log, it may come before others see the commit.
SWEEPS = {"polling_interval": 3600.0, "sweep_interval": 2.0}


def worker_keys(supabase: Any, **options: Any) -> dict[str, str]:
    """What a worker on a hosted project has: the publishable key, and a token of its own."""
    token = mint_token(supabase.jwt_secret, **{"expires_in": 3600, **options})
    return {"key": supabase.publishable_key, "worker_token": token}


@pytest.mark.parametrize("push", ["changes", "broadcast"])
async def test_it_does_the_whole_main_job(local_supabase: Any, push: str) -> None:
    url, db = local_supabase.api_url, local_supabase.db_url
    settings = {**SWEEPS, **worker_keys(local_supabase), "push": push, "probe_interval": 0.5}
    async with (
        TaskClient.from_settings(url=url, key=local_supabase.secret_key) as client,
        running_worker(
            local_supabase, executors={"test": Echo(), "asks": Ask()}, settings=settings
        ) as worker,
    ):
        # The probe came back: the mailbox is written, and heard, with this token.
        await eventually(lambda: worker.health.state is PushState.HEALTHY)
        # Claim, run, events, result.
        done = await client.submit_task("test", "hello world")
        assert (await client.wait_for_completion(done, timeout=20)).agent_output["text"] == "hello world"
        # Park and answer: the worker reads the log to go on.
        asked = await client.submit_task("asks", "who?")
        await client.wait_for_completion(asked, timeout=20, return_when_parked=True)
        await client.answer_task(asked, "Ann")
        answered = await client.wait_for_completion(asked, timeout=20)
        assert answered.agent_output["text"] == "you said Ann"
        # Cancel while it runs.
        long = await client.submit_task("test", "for ever", {"sleep": 3600})
        await eventually(lambda: any(todo.id == long for todo in worker.running))
        await client.cancel_task(long, "enough")
        assert (await client.wait_for_completion(long, timeout=20)).agent_status is TodoStatus.CANCELLED
        # Heartbeats, and the sweep that puts back what a dead worker held.
        [row] = await query(
            db,
            "with w as ("
            "insert into workers (id, lease_until) values (gen_random_uuid(), 'epoch') returning id)"
            " insert into todolist (agent_type, prompt, agent_status, attempt, worker_id)"
            " select 'test', 'lost', 'in_progress', 1, w.id from w returning id::text",
        )
        lost = row["id"]
        beat = "select heartbeat_at from workers where id = %s"
        (before,) = await query(db, beat, worker.id)
        worker._session.sweep_now()  # type: ignore[union-attr]
        assert (await client.wait_for_completion(lost, timeout=20)).agent_status is TodoStatus.COMPLETED
        await eventually(lambda: _moved(db, beat, worker.id, before))
    assert (await kinds(db, lost))[:2] == ["task_lost", "task_started"]
    assert await broken_logs(db) == []
    assert await query(db, "select 1 from workers") == [], "it signed off"


async def _moved(db: str, statement: str, id: str, before: Mapping[str, Any]) -> bool:
    (now,) = await query(db, statement, id)
    return now != before
