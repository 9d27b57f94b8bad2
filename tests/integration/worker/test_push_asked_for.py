"""REACTIVE_WORKER_PUSH decides how the workers of the tests are pushed: in this process, and as processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reactive_worker.models import PushState
from reactive_worker.testing.workers import WorkerProcess, eventually, running_worker
from tests.executors import Echo
from tests.support import query

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["broadcast", "changes"])
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("REACTIVE_WORKER_PUSH", request.param)
    return str(request.param)


async def test_a_worker_in_this_process_is_pushed_the_way_asked_for(local_supabase: Any, asked: str) -> None:
    async with running_worker(local_supabase, Echo()) as worker:
        await eventually(lambda: worker.health.state is PushState.HEALTHY)
        assert worker.health.mode == asked


async def test_a_worker_process_is_pushed_the_way_asked_for(
    local_supabase: Any, tmp_path: Path, asked: str
) -> None:
    process = WorkerProcess(local_supabase, "tests.executors:echo", cwd=ROOT, log=tmp_path / "log").start()
    try:
        healthy = "select info ->> 'push_mode' as mode from workers where info ->> 'push' = 'healthy'"
        (row,) = await eventually(lambda: query(local_supabase.db_url, healthy), timeout=60)
        assert row["mode"] == asked
    finally:
        process.kill()
