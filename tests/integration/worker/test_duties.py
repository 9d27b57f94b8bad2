"""Duties whose loss is not noticed at once: pausing, the time limit, news of lost tasks, handing back."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import psycopg
import pytest
import reactivex.operators as ops

from reactive_worker.errors import WorkerStoppedError
from reactive_worker.testing.database import Database
from reactive_worker.testing.workers import eventually, running_worker
from tests.executors import Echo
from tests.support import count, insert, kinds, query


async def _row(db: str, id: str) -> dict[str, Any]:
    (row,) = await query(db, "select * from todolist where id = %s", id)
    return row


async def test_a_paused_worker_claims_nothing_until_it_is_resumed(
    local_supabase: Any, caplog: pytest.LogCaptureFixture
) -> None:
    db = local_supabase.db_url
    offered: list[str] = []

    def noted(candidates: Any) -> Any:
        return candidates.pipe(ops.do_action(lambda candidate: offered.append(candidate.id)))

    settings = {"polling_interval": 0.1, "sweep_interval": 0.1, "heartbeat": 0.2}
    caplog.set_level(logging.INFO, "reactive_worker")
    async with running_worker(local_supabase, Echo(), settings=settings, candidates=noted) as worker:
        await query(db, "select set_worker_state(%s, 'paused')", worker.id)
        await eventually(lambda: "paused" in caplog.messages)
        (id,) = await insert(db, ["waits"])
        # Seen again and again, and left alone each time; a claimed row would not be offered any more.
        await eventually(lambda: offered.count(id) >= 4)
        assert (await _row(db, id))["agent_status"] == "pending"
        await query(db, "select set_worker_state(%s, 'running')", worker.id)
        await eventually(lambda: count(db, "completed"))


async def test_the_default_time_limit_ends_a_run_whose_row_has_none(local_supabase: Any) -> None:
    db = local_supabase.db_url
    async with running_worker(local_supabase, Echo(), settings={"default_timeout": 0.3}):
        (id,) = await insert(db, ["for ever"], input_data={"sleep": 3600})
        await eventually(lambda: count(db, "failed"))
    row = await _row(db, id)
    assert row["error"]["type"] == "timeout"
    assert row["attempt"] == 1


async def test_a_run_whose_task_was_taken_away_is_stopped_by_the_next_heartbeat(local_supabase: Any) -> None:
    """It says nothing any more, so no event of it is refused: only a heartbeat tells."""
    db = local_supabase.db_url
    quiet = {"polling_interval": 3600.0, "sweep_interval": 3600.0, "lease": 600.0, "heartbeat": 0.2}
    async with running_worker(local_supabase, Echo(), settings=quiet) as worker:
        (id,) = await insert(db, ["long"], input_data={"sleep": 3600})

        async def said_all() -> bool:
            return "task_artifact" in await kinds(db, id)

        await eventually(said_all)
        other = str(uuid.uuid4())
        await query(db, "select register_worker(%s, 'other', array['other'], 1, 3600)", other)
        await query(db, "update todolist set worker_id = %s, attempt = attempt + 1 where id = %s", other, id)
        await eventually(lambda: not worker.running)
    row = await _row(db, id)
    assert (row["agent_status"], str(row["worker_id"]), row["attempt"]) == ("in_progress", other, 2)
    assert await kinds(db, id) == ["task_started", "task_artifact"]


async def test_what_has_not_ended_at_shutdown_is_handed_back_even_if_the_worker_cannot_sign_off(
    local_supabase: Any, database: Database
) -> None:
    """Unregistering hands back, too; here it is refused, and the lease would hold the task for an hour."""
    db = local_supabase.db_url
    with psycopg.connect(database.admin_dsn, autocommit=True) as admin:
        admin.execute("revoke execute on function unregister_worker(uuid) from service_role")
    settings = {"lease": 3600.0, "heartbeat": 0.5, "drain_timeout": 0.1, "cancel_grace": 0.5}
    async with running_worker(local_supabase, Echo(), settings=settings) as worker:
        (id,) = await insert(db, ["long"], input_data={"sleep": 3600})
        await eventually(lambda: worker.running)
    assert await query(db, "select 1 from workers where lease_until > now()"), "the worker could not leave"
    row = await _row(db, id)
    assert (row["agent_status"], row["worker_id"], row["failures"]) == ("pending", None, 0)
    assert (await kinds(db, id))[-1] == "task_released"


async def test_a_worker_whose_heartbeat_died_ends_at_once_and_says_why(local_supabase: Any) -> None:
    """Without its lease it would run what others soon run, too: no drain, which here would last an hour."""
    db = local_supabase.db_url

    def broken() -> Any:
        raise MemoryError("no room for a report")

    settings = {"lease": 3600.0, "heartbeat": 1800.0, "drain_timeout": 3600.0, "cancel_grace": 0.5}

    ended: list[bool] = []

    async def work_until_it_breaks() -> None:
        async with running_worker(local_supabase, Echo(), settings=settings) as worker:
            await insert(db, ["long"], input_data={"sleep": 3600})
            await eventually(lambda: worker.running)
            heartbeat = worker._session.heartbeat  # type: ignore[union-attr] - it runs, so it has a session
            heartbeat._report = broken
            heartbeat.beat_now()
            try:
                await eventually(lambda: not worker.running)
                ended.append(True)
            finally:
                # With the one that follows the second: also a worker that goes on draining ends now.
                worker.stop()

    with pytest.raises(
        WorkerStoppedError, match="a background duty died: the heartbeat: no room for a report"
    ):
        await work_until_it_breaks()
    assert ended, "it ended only when it was told to"
    (row,) = await query(db, "select * from todolist")
    assert (row["agent_status"], row["worker_id"], row["failures"]) == ("pending", None, 0)
