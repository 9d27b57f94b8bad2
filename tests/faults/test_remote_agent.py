"""A worker that forwards to a remote agent is killed; the next one goes on over there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reactive_worker.testing.workers import WorkerProcess, eventually
from tests.remote_agent import serving
from tests.support import broken_logs, events_of, insert, query

ROOT = Path(__file__).parents[2]


async def test_a_killed_workers_remote_task_is_resumed_not_sent_again(
    local_supabase: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = local_supabase.db_url
    async with serving() as remote:
        monkeypatch.setenv("REMOTE_AGENT_URL", remote.url)
        workers = [
            WorkerProcess(
                local_supabase,
                "tests.remote_agent:forwarding",
                cwd=ROOT,
                log=tmp_path / "worker.log",
                lease=2,
                heartbeat=0.5,
            )
            for _ in range(2)
        ]
        try:
            workers[0].start()
            (id,) = await insert(db, ["wait"])

            async def artifact_stored() -> bool:
                return any(row["event_type"] == "task_artifact" for row in await events_of(db, id))

            await eventually(artifact_stored, timeout=60)
            workers[1].start()
            workers[0].kill()
            await eventually(lambda: query(db, "select 1 from todolist where attempt = 2"), timeout=60)
            remote.agent.go.set()
            await eventually(
                lambda: query(db, "select 1 from todolist where agent_status = 'completed'"), timeout=60
            )
        finally:
            for worker in workers:
                worker.kill()
        (row,) = await query(db, "select agent_output ->> 'text' as text, attempt from todolist")
        assert (row["text"], row["attempt"]) == ("first second", 2)
        assert [message.parts[0].text for message in remote.agent.received] == ["wait"]
        assert await broken_logs(db) == []
