"""Workers are killed, stalled and restarted; every task still ends exactly once."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest

from reactive_worker.testing.workers import WorkerProcess, eventually
from tests.support import broken_logs, count, events_of, insert, kinds, query

ROOT = Path(__file__).parents[2]


def worker(supabase: Any, tmp_path: Path, **options: Any) -> WorkerProcess:
    return WorkerProcess(supabase, "tests.executors:echo", cwd=ROOT, log=tmp_path / "worker.log", **options)


@pytest.fixture
def fleet() -> Any:
    """Processes to be ended whatever happens."""
    started: list[WorkerProcess] = []
    yield started
    for process in started:
        process.kill()


async def completed(supabase: Any, wanted: int) -> bool:
    return await count(supabase.db_url, "completed") >= wanted


@pytest.mark.timeout(300)
async def test_5000_tasks_survive_a_worker_killed_every_two_seconds(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    db = local_supabase.db_url
    await insert(db, [f"task {n}" for n in range(5000)], input_data={"sleep": 0.02})
    # An unlucky task may be killed over and over: the budget is not what this test is about.
    await query(db, "update todolist set max_failures = 100")
    fleet += [worker(local_supabase, tmp_path, lease=5, concurrency=20).start() for _ in range(4)]
    chance = random.Random(5)
    kills = 0
    next_kill = time.monotonic() + 2
    while not await completed(local_supabase, 5000):
        await asyncio.sleep(0.1)
        if time.monotonic() >= next_kill:
            victim = chance.choice(fleet)
            victim.kill()
            victim.start()
            kills += 1
            next_kill = time.monotonic() + 2
    assert kills >= 2, "too quick to have tested anything"
    assert await count(db, "completed") == 5000
    assert await broken_logs(db) == []
    # A fenced-out attempt wrote nothing: every event of an attempt stands before the next attempt's start.
    late = await query(
        db,
        """
        select e.todolist_id, e.seq from events e
        join events later on later.todolist_id = e.todolist_id and later.event_type = 'task_started'
         and later.attempt > e.attempt and later.seq < e.seq
        """,
    )
    assert late == []
    again = await query(
        db, "select count(*) as n from todolist where attempt > 1 and failures = 0 and attempt > failures + 1"
    )
    # Whatever ran more than once was lost with a killed worker, and says so.
    assert again[0]["n"] == 0


async def test_after_a_kill_the_next_worker_starts_within_lease_and_two_seconds(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    db = local_supabase.db_url
    lease = 3
    first = worker(local_supabase, tmp_path, lease=lease, heartbeat=1)
    # Its sweeps are far apart: it must know by itself when the other one's lease ends.
    other = worker(
        local_supabase, tmp_path, lease=lease, heartbeat=1, polling_interval=3600, sweep_interval=3600
    )
    fleet += [first, other]
    first.start()
    (id,) = await insert(db, ["held"], input_data={"sleep": 60})
    await eventually(lambda: started_by(db, id, 1))
    await query(db, "update todolist set input_data = '{}'")
    other.start()
    await eventually(lambda: workers(db, 2))
    first.kill()
    (killed_at,) = await query(db, "select clock_timestamp() as at")
    await eventually(lambda: started_by(db, id, 2), timeout=lease + 10)
    starts = [row for row in await events_of(db, id) if row["event_type"] == "task_started"]
    assert (starts[1]["created_at"] - killed_at["at"]).total_seconds() <= lease + 2
    await eventually(lambda: completed(local_supabase, 1))
    assert await broken_logs(db) == []


async def test_a_blocked_event_loop_keeps_its_lease_and_the_task_runs_once(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    db = local_supabase.db_url
    # Twice the lease; the other worker is ready to take over what expires.
    fleet += [worker(local_supabase, tmp_path, lease=3, polling_interval=0.5).start() for _ in range(2)]
    await eventually(lambda: workers(db, 2))
    (id,) = await insert(db, ["blocks"], input_data={"block": 8})
    await eventually(lambda: completed(local_supabase, 1), timeout=30)
    assert (await kinds(db, id)).count("task_started") == 1
    assert "has been blocked for" in (tmp_path / "worker.log").read_text()


async def test_a_loop_stalled_past_the_limit_loses_its_task_and_writes_nothing_more(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    db = local_supabase.db_url
    fleet.append(worker(local_supabase, tmp_path, lease=2, heartbeat=0.5, stall_limit=1).start())
    await eventually(lambda: workers(db, 1))
    (id,) = await insert(db, ["stalls"], input_data={"block": 9})
    await eventually(lambda: started_by(db, id, 1))
    # The second run must not block as well.
    await query(db, "update todolist set input_data = '{}' where id = %s", id)
    fleet.append(worker(local_supabase, tmp_path, lease=2, heartbeat=0.5, polling_interval=0.5).start())
    await eventually(lambda: completed(local_supabase, 1), timeout=30)
    log = await events_of(db, id)
    await eventually(lambda: "registering again" in (tmp_path / "worker.log").read_text(), timeout=30)
    assert await events_of(db, id) == log
    assert [row["event_type"] for row in log].count("task_started") == 2
    assert await broken_logs(db) == []


async def test_a_task_that_kills_its_process_fails_in_the_end_and_its_neighbours_do_not(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    db = local_supabase.db_url
    (poison,) = await insert(db, ["poison"], input_data={"exit": 3})
    await query(db, "update todolist set max_failures = 2 where id = %s", poison)
    neighbours = await insert(db, [f"n {n}" for n in range(5)], input_data={"sleep": 0.05})
    await query(db, "update todolist set max_failures = 10 where id <> %s", poison)
    process = worker(local_supabase, tmp_path, lease=2, heartbeat=0.5, polling_interval=0.5)
    fleet.append(process.start())

    async def settled() -> bool:
        if process.returncode is not None:
            process.start()
        return await count(db, "failed") == 1 and await completed(local_supabase, len(neighbours))

    await eventually(settled, timeout=60, interval=0.2)
    (row,) = await query(db, "select * from todolist where id = %s", poison)
    assert row["error"]["message"] == "worker lost"
    assert await broken_logs(db) == []


async def test_sigterm_drains_and_a_rolling_restart_loses_nothing(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    db = local_supabase.db_url
    await insert(db, [f"task {n}" for n in range(600)], input_data={"sleep": 0.05})
    fleet += [worker(local_supabase, tmp_path, concurrency=5).start() for _ in range(3)]
    await eventually(lambda: workers(db, 3))
    for _ in range(3):
        for process in fleet:
            process.terminate()
            assert await process.wait() == 0
            process.start()
            await eventually(lambda: workers(db, 3))
    await eventually(lambda: completed(local_supabase, 600), timeout=60)
    assert await query(db, "select id from todolist where failures > 0 or attempt > 1") == []
    assert await broken_logs(db) == []


async def test_a_second_signal_ends_now_and_hands_the_task_back(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    """Every patience is an hour: only the second signal can end this worker."""
    db = local_supabase.db_url
    process = worker(local_supabase, tmp_path, drain_timeout=3600, cancel_grace=3600)
    fleet.append(process.start())
    (id,) = await insert(db, ["stubborn"], input_data={"stubborn": 3600})
    await eventually(lambda: started_by(db, id, 1))
    process.terminate()
    await eventually(lambda: "no new tasks" in (tmp_path / "worker.log").read_text())
    assert process.returncode is None
    process.terminate()
    assert await process.wait(timeout=30) == 0
    (row,) = await query(db, "select agent_status, failures from todolist where id = %s", id)
    assert row == {"agent_status": "pending", "failures": 0}
    assert await query(db, "select id from workers") == []


async def started_by(db: str, id: str, attempt: int) -> bool:
    rows = await query(db, "select attempt from todolist where id = %s", id)
    return int(rows[0]["attempt"]) >= attempt


async def workers(db: str, wanted: int) -> bool:
    rows = await query(db, "select count(*) as n from workers")
    return int(rows[0]["n"]) >= wanted
