"""What could not be delivered at shutdown is kept in files and delivered, fenced, at the next start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from reactive_worker.models import Outcome, TodoEvent
from reactive_worker.store.connection import Connection
from reactive_worker.store.store import TodoStore
from reactive_worker.testing.workers import WorkerProcess, eventually
from reactive_worker.worker.delivery import Delivery
from reactive_worker.worker.spool import Spool
from tests.faults.conftest import completed, worker
from tests.support import broken_logs, events_of, insert, kinds, query


@pytest.mark.timeout(300)
async def test_a_result_outlives_an_outage_a_shutdown_and_a_kill_in_between(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    db, spool = local_supabase.db_url, tmp_path / "spool"
    process = worker(local_supabase, tmp_path, spool=spool, drain_timeout=1)
    fleet.append(process.start())
    log = tmp_path / "worker.log"
    (id,) = await insert(db, ["hello world"], input_data={"sleep": 1})
    await eventually(lambda: kinds(db, id), timeout=60)
    # It ends while nobody listens, and so does the worker: the second signal spares it the wait for the API.
    local_supabase.faults.rest_status = 503
    process.terminate()
    await eventually(lambda: "no new tasks" in log.read_text())
    await eventually(lambda: "completed" in log.read_text())
    process.terminate()
    assert await process.wait() == 0
    kept = sorted(spool.iterdir())
    assert kept
    assert "are kept in" in log.read_text()
    (row,) = await query(db, "select agent_status from todolist")
    assert row["agent_status"] == "in_progress"

    # The next start finds the API away still, and keeps the file.
    process.start()
    assert await process.wait() == 3
    assert sorted(spool.iterdir()) == kept
    local_supabase.faults.reset()
    # The one after it is killed while it delivers: somebody holds the row's lock for so long.
    async with await psycopg.AsyncConnection.connect(db) as holder:
        await holder.execute("select from todolist for update")
        process.start()
        await eventually(lambda: query(db, "select pid from pg_locks where not granted"), timeout=60)
        process.kill()
    assert sorted(spool.iterdir()) == kept

    process.start()
    await eventually(lambda: completed(db, 1), timeout=60)
    await eventually(lambda: list(spool.iterdir()) == [], timeout=60)
    stored = await events_of(db, id)
    assert [event["event_type"] for event in stored].count("task_started") == 1
    (row,) = await query(db, "select agent_output, attempt, failures from todolist")
    assert (row["agent_output"]["text"], row["attempt"], row["failures"]) == ("hello world", 1, 0)
    assert await broken_logs(db) == []


async def test_a_spooled_result_of_a_task_that_went_to_another_is_refused(
    local_supabase: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    db = local_supabase.db_url
    connection = await Connection.open(local_supabase.api_url, local_supabase.service_role_key)
    store = TodoStore(connection)
    old, new = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
    try:
        for id, lease in ((old, 0.1), (new, 60)):
            await store.register(id, name="w", agent_types=["test"], concurrency=1, lease=lease, info={})
        (task,) = await insert(db, ["x"])
        await store.register(old, name="w", agent_types=["test"], concurrency=1, lease=5, info={})
        (claimed,) = (await store.claim(old, [task], 1)).claimed
        end = TodoEvent(
            task,
            claimed.attempt,
            "task_completed",
            {},
            seq=claimed.seq + 1,
            outcome=Outcome("completed", output={"text": "too late"}),
        )
        Spool(tmp_path).write(old, [end])
        await query(db, "update workers set lease_until = now() - interval '1 second' where id = %s", old)
        assert (await store.sweep(new, ["test"], 10)).reclaimed == 1
        await store.claim(new, [task], 1)
        before = await events_of(db, task)
        caplog.set_level("INFO", logger="reactive_worker")
        await Delivery(store, new, Spool(tmp_path)).deliver_spooled()
        assert "1 task(s) had gone to others" in caplog.text
        assert list(tmp_path.iterdir()) == []
        assert await events_of(db, task) == before
        (row,) = await query(db, "select agent_status, worker_id::text, agent_output from todolist")
        assert row == {"agent_status": "in_progress", "worker_id": new, "agent_output": None}
    finally:
        await connection.aclose()
