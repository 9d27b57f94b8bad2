"""Many rows, several worker processes: each row runs exactly once, and memory does not follow the backlog."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reactive_worker.testing.workers import WorkerProcess, eventually
from tests.support import broken_logs, count, query, runs_more_than_once

ROOT = Path(__file__).parents[3]


@pytest.fixture
def fleet() -> Iterator[list[WorkerProcess]]:
    """Processes to be ended whatever happens."""
    started: list[WorkerProcess] = []
    yield started
    for process in started:
        process.kill()


async def fill(db: str, rows: int) -> None:
    await query(
        db,
        "insert into todolist (agent_type, prompt) select 'test', 'row ' || n from generate_series(1, %s) n",
        rows,
    )


@pytest.mark.timeout(300)
async def test_10000_rows_on_four_processes_run_exactly_once(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    db = local_supabase.db_url
    # Both sources offer the same rows: pushes as they are inserted, and sweeps twice a second.
    options = {"concurrency": 20, "polling_interval": 0.5, "sweep_interval": 0.5}
    fleet += [
        WorkerProcess(
            local_supabase, "tests.executors:echo", cwd=ROOT, log=tmp_path / "log", **options
        ).start()
        for _ in range(4)
    ]
    await eventually(lambda: registered(db, 4), timeout=60)
    for _ in range(20):
        await fill(db, 500)
    await eventually(lambda: completed(db, 10_000), timeout=240, interval=0.5)
    assert await runs_more_than_once(db) == []
    assert await broken_logs(db) == []
    shares = await query(db, "select worker_id, count(*) as n from todolist group by worker_id")
    assert len(shares) == 4, "every worker had its share"


async def test_100000_waiting_rows_do_not_fill_memory(
    local_supabase: Any, tmp_path: Path, fleet: list[WorkerProcess]
) -> None:
    db = local_supabase.db_url
    await fill(db, 100_000)
    process = WorkerProcess(
        local_supabase,
        "tests.executors:echo",
        cwd=ROOT,
        log=tmp_path / "log",
        concurrency=50,
        polling_interval=0.5,
        sweep_interval=0.5,
    ).start()
    fleet.append(process)
    await eventually(lambda: completed(db, 2_000), timeout=100, interval=0.2)
    assert peak_memory(process.pid) < 200_000_000


async def completed(db: str, wanted: int) -> bool:
    return await count(db, "completed") >= wanted


async def registered(db: str, wanted: int) -> bool:
    rows = await query(db, "select count(*) as n from workers")
    return int(rows[0]["n"]) >= wanted


def peak_memory(pid: int) -> int:
    """Bytes of resident memory a process has had at most."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell VmHWM")
