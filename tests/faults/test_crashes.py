"""Workers are killed, stalled and restarted; every task still ends exactly once."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reactive_worker.testing.workers import WorkerProcess, eventually
from tests.faults.conftest import LITERAL, completed, registered, worker
from tests.support import broken_logs, count, events_of, insert, kinds, query

#: What stands in a log between two starts of a task, and the message that says why.
REASONS = """
select t.id, t.attempt, t.failures,
  array_agg(e.event_type || ': ' || coalesce(e.message, '')) filter (
    where e.event_type in ('task_lost', 'task_released', 'task_retrying')) as why
from todolist t join events e on e.todolist_id = t.id
where t.attempt > 1 group by t.id
"""
#: Events of an attempt that stand after the start of the next one: written by somebody who was fenced out.
LATE = """
select e.todolist_id, e.seq from events e
join events later on later.todolist_id = e.todolist_id and later.event_type = 'task_started'
 and later.attempt > e.attempt and later.seq < e.seq
"""


@pytest.mark.timeout(300)
async def test_5000_tasks_survive_a_worker_killed_every_two_seconds(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    db = local_supabase.db_url
    await query(
        db,
        # 5 to 50 ms. An unlucky task may be killed over and over: the budget is not what this test is about.
        """
        insert into todolist (agent_type, prompt, input_data, max_failures)
        select 'test', 'task ' || n, jsonb_build_object('sleep', 0.005 + 0.045 * random()), 100
        from generate_series(1, 5000) n
        """,
    )
    fleet += [worker(local_supabase, tmp_path, lease=5, concurrency=20).start() for _ in range(4)]
    await eventually(lambda: registered(db, 4), timeout=60)
    chance = random.Random(5)
    kills = 0
    next_kill = time.monotonic() + 2
    while not await completed(db, 5000):
        await asyncio.sleep(0.1)
        # On a machine so slow that the killed have not come back, somebody is left to do the work.
        if time.monotonic() >= next_kill and len(ready := await at_work(db, fleet)) >= 2:
            victim = chance.choice(ready)
            victim.kill()
            victim.start()
            kills += 1
            next_kill = time.monotonic() + 2
    assert kills >= 2, "too quick to have tested anything"
    assert await count(db, "completed") == 5000
    assert await broken_logs(db) == []
    assert await query(db, LATE) == []
    again = await query(db, REASONS)
    # Each further run has one reason, and the only one there may be is that the worker was killed. Who was
    # lost with others has not failed.
    for row in again:
        assert row["why"] == ["task_lost: worker lost"] * (row["attempt"] - 1)
        assert row["failures"] < row["attempt"]
    runs = Counter(row["attempt"] for row in again)
    print(f"{kills} kills; {len(again)} tasks ran more than once, each lost with its worker: {dict(runs)}")


@pytest.mark.timeout(300)
async def test_after_a_kill_the_next_worker_starts_within_lease_and_two_seconds(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    db = local_supabase.db_url
    lease = 30 if LITERAL else 3
    # Sweeps are far apart: a worker must know by itself when the other one's lease ends.
    options = {"lease": lease, "heartbeat": lease / 3, "polling_interval": 3600, "sweep_interval": 3600}
    fleet += [worker(local_supabase, tmp_path, **options).start() for _ in range(2)]
    waits: list[float] = []
    for round in range(3):
        await eventually(lambda: registered(db, 2), timeout=60)
        (id,) = await insert(db, [f"held {round}"], input_data={"sleep": 600})
        await eventually(lambda id=id: started_by(db, id, 1), timeout=60)
        # The next one shall not be held.
        await query(db, "update todolist set input_data = '{}' where id = %s", id)
        (holder,) = await query(
            db,
            "select (w.info ->> 'pid')::int as pid from workers w join todolist t on t.worker_id = w.id"
            " where t.id = %s",
            id,
        )
        victim = next(process for process in fleet if process.pid == holder["pid"])
        victim.kill()
        (killed,) = await query(db, "select clock_timestamp() as at")
        victim.start()
        await eventually(lambda id=id: started_by(db, id, 2), timeout=lease + 10)
        starts = [row for row in await events_of(db, id) if row["event_type"] == "task_started"]
        waits.append((starts[1]["created_at"] - killed["at"]).total_seconds())
        await eventually(lambda round=round: completed(db, round + 1))
    print(f"kill to the next task_started, lease {lease} s: {', '.join(f'{wait:.2f} s' for wait in waits)}")
    assert max(waits) <= lease + 2
    assert await broken_logs(db) == []


async def test_a_blocked_event_loop_keeps_its_lease_and_the_task_runs_once(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    db = local_supabase.db_url
    # time.sleep for four leases; the other worker is ready to take over what expires.
    lease = 5 if LITERAL else 2
    options = {"lease": lease, "heartbeat": lease / 4, "polling_interval": 0.5}
    fleet += [worker(local_supabase, tmp_path, **options).start() for _ in range(2)]
    await eventually(lambda: registered(db, 2), timeout=60)
    (id,) = await insert(db, ["blocks"], input_data={"block": 4 * lease})
    await eventually(lambda: completed(db, 1), timeout=4 * lease + 20)
    assert (await kinds(db, id)).count("task_started") == 1
    assert "has been blocked for" in (tmp_path / "worker.log").read_text()


async def test_a_loop_stalled_past_the_limit_loses_its_task_and_writes_nothing_more(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    db = local_supabase.db_url
    fleet.append(worker(local_supabase, tmp_path, lease=2, heartbeat=0.5, stall_limit=1).start())
    await eventually(lambda: registered(db, 1))
    (id,) = await insert(db, ["stalls"], input_data={"block": 9})
    await eventually(lambda: started_by(db, id, 1))
    # The second run must not block as well.
    await query(db, "update todolist set input_data = '{}' where id = %s", id)
    fleet.append(worker(local_supabase, tmp_path, lease=2, heartbeat=0.5, polling_interval=0.5).start())
    await eventually(lambda: completed(db, 1), timeout=30)
    log = await events_of(db, id)
    await eventually(lambda: "registering again" in (tmp_path / "worker.log").read_text(), timeout=30)
    assert await events_of(db, id) == log
    assert [row["event_type"] for row in log].count("task_started") == 2
    assert await broken_logs(db) == []


@pytest.mark.timeout(300)
async def test_a_task_that_kills_its_process_fails_in_the_end_and_its_neighbours_do_not(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    db = local_supabase.db_url
    (poison,) = await insert(db, ["poison"], input_data={"exit": 3})
    await query(db, "update todolist set max_failures = 2 where id = %s", poison)
    neighbours = await insert(db, [f"n {n}" for n in range(5)], input_data={"sleep": 0.05})
    await query(db, "update todolist set max_failures = 1 where id <> %s", poison)
    process = worker(local_supabase, tmp_path, lease=2, heartbeat=0.5, polling_interval=0.5)
    fleet.append(process.start())

    async def settled() -> bool:
        if process.returncode is not None:
            process.start()
        return await count(db, "failed") == 1 and await completed(db, len(neighbours))

    await eventually(settled, timeout=60, interval=0.2)
    (row,) = await query(db, "select * from todolist where id = %s", poison)
    assert row["error"]["message"] == "worker lost"
    # Six in flight, then three, then alone as often as its budget lasts; fewer, if some ended in time.
    assert row["failures"] == 2
    assert row["attempt"] <= 4
    log = await kinds(db, poison)
    assert log.count("task_started") == row["attempt"]
    assert log[-2:] == ["task_lost", "task_failed"]
    assert await count(db, "failed") == 1
    paid = await query(db, "select id from todolist where agent_status = 'completed' and failures > 0")
    assert paid == []
    assert await broken_logs(db) == []


@pytest.mark.timeout(300)
async def test_a_rolling_restart_under_load_loses_nothing_and_runs_nothing_twice(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    db = local_supabase.db_url
    fleet += [worker(local_supabase, tmp_path, concurrency=5).start() for _ in range(3)]
    await eventually(lambda: registered(db, 3), timeout=60)
    over = asyncio.Event()

    async def load() -> int:
        submitted = 0
        while not over.is_set():
            submitted += len(await insert(db, ["load"] * 20, input_data={"sleep": 0.1}))
            await asyncio.sleep(0.3)
        return submitted

    loading = asyncio.create_task(load())
    try:
        for _ in range(3):
            for process in fleet:
                process.terminate()
                assert await process.wait() == 0
                process.start()
                await eventually(lambda: registered(db, 3), timeout=60)
    finally:
        over.set()
        submitted = await loading
    await eventually(lambda: completed(db, submitted), timeout=60)
    assert await count(db, "completed") == submitted
    assert await query(db, "select id from todolist where failures > 0 or attempt > 1") == []
    assert await broken_logs(db) == []
    print(f"rolling restart, 3 rounds of 3 workers: {submitted} tasks, none twice")
    # There was load all the time: those nine that were stopped had their share.
    assert len(await query(db, "select distinct worker_id from todolist")) >= 9


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


async def at_work(db: str, fleet: list[WorkerProcess]) -> list[WorkerProcess]:
    """Processes that are up and registered."""
    rows = await query(db, "select (info ->> 'pid')::int as pid from workers where lease_until > now()")
    pids = {row["pid"] for row in rows}
    return [process for process in fleet if process.pid in pids]
