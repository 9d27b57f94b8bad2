"""Moving in: the predecessor's database is upgraded in place, by our migrator and by the official CLI."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from reactive_worker.local.gateway import Gateway
from reactive_worker.local.migrations import MigrationError, migrate
from reactive_worker.local.postgres import Cluster
from reactive_worker.local.project import find_project
from reactive_worker.testing.workers import eventually, running_worker
from tests.executors import Echo
from tests.integration.sql.test_migrations import empty_database, push, schema
from tests.support import broken_logs, count, kinds

OLD = (Path(__file__).parent / "predecessor.sql").read_text(encoding="utf-8")
#: What is the user's own, and stays.
KEPT = (
    "column todolist.customer ",
    "function update_updated_at_column()",
    "index CREATE INDEX idx_",
    "trigger CREATE TRIGGER switched_off ",
    "trigger CREATE TRIGGER update_todolist_updated_at ",
)
ID = "00000000-0000-0000-0000-00000000000{}"


def rows(dsn: str, sql: str) -> list[dict[str, Any]]:
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        return connection.execute(sql.encode()).fetchall()


def by_migrator(dsn: str, folder: Path) -> None:
    migrate(dsn, find_project(), seed=False)


def by_cli(dsn: str, folder: Path) -> None:
    if shutil.which("supabase") is None:
        pytest.skip("the Supabase CLI is not on PATH: npm install supabase@3")
    shutil.copytree(find_project().folder, folder / "supabase")
    push(dsn, folder)


@pytest.mark.parametrize(
    "upgrade", [by_migrator, pytest.param(by_cli, marks=pytest.mark.supabase_cli)], ids=["migrator", "cli"]
)
async def test_the_old_tables_get_the_new_shape_and_keep_every_row(
    pg_cluster: Cluster, pg_template: str, tmp_path: Path, upgrade: Callable[[str, Path], None]
) -> None:
    with empty_database(pg_cluster, "never_old") as dsn:
        migrate(dsn, find_project(), seed=False)
        fresh = schema(dsn)
    with empty_database(pg_cluster, "moved_in") as dsn:
        with psycopg.connect(dsn, autocommit=True) as owner:
            owner.execute(OLD.encode())
        upgrade(dsn, tmp_path)
        upgraded = schema(dsn)
        assert [line for line in fresh if line not in upgraded] == []
        assert [line for line in upgraded if line not in fresh and not line.startswith(KEPT)] == []
        off = "select tgenabled::text as t from pg_trigger where tgname = 'switched_off'"
        assert rows(dsn, off) == [{"t": "D"}]

        tasks = {row["prompt"]: row for row in rows(dsn, "select * from todolist")}
        assert {prompt: row["agent_status"] for prompt, row in tasks.items()} == {
            "waits": "pending",
            "was running": "in_progress",
            "done": "completed",
            "broke": "failed",
            "half empty": "pending",
            "put aside": "failed",
        }
        assert tasks["waits"]["available_at"] == tasks["waits"]["created_at"]
        assert tasks["waits"]["customer"] == "acme"
        assert tasks["done"]["agent_output"] == {"answer": 42}
        assert tasks["done"]["updated_at"] == tasks["done"]["completed_at"]
        assert tasks["broke"]["completed_at"] == tasks["broke"]["updated_at"]
        assert tasks["broke"]["error"] == {"type": "Failed", "message": "no such model"}
        assert tasks["put aside"]["error"]["message"] == 'had the status "archived" before the move'
        log = "select event_type from events where todolist_id = '{}' order by seq"
        assert [row["event_type"] for row in rows(dsn, log.format(ID.format(3)))] == [
            "task_started",
            "crew_says",
            "task_completed",
        ]
        await _run_what_waits(pg_cluster, dsn)


async def _run_what_waits(cluster: Cluster, dsn: str) -> None:
    name = dsn.rsplit("/", 1)[1]
    gateway = Gateway(project=find_project())
    gateway.start(
        db_url=dsn, authenticator_dsn=cluster.dsn(name, "authenticator"), admin_dsn=cluster.admin_dsn(name)
    )
    try:
        async with running_worker(gateway, Echo()):
            # The one that was running is held by nobody: the first sweep puts it back.
            await eventually(lambda: _all(dsn, 4))
    finally:
        gateway.stop()
    assert await kinds(dsn, ID.format(2)) == [
        "task_started",
        "task_released",
        "task_started",
        "task_artifact",
        "task_completed",
    ]
    assert await broken_logs(dsn) == []


async def _all(dsn: str, completed: int) -> bool:
    return await count(dsn, "completed") == completed


def test_tables_that_only_share_the_name_are_left_alone(pg_cluster: Cluster, pg_template: str) -> None:
    with empty_database(pg_cluster, "somebody_elses") as dsn:
        with psycopg.connect(dsn, autocommit=True) as owner:
            owner.execute("create table todolist (id bigint primary key, what text)")
            with pytest.raises(MigrationError, match=r"public\.todolist, but no public\.events"):
                migrate(dsn, find_project(), seed=False)
            owner.execute("create table events (id uuid primary key)")
            with pytest.raises(MigrationError, match=r"public\.\w+\.\w+ is missing, or of another type"):
                migrate(dsn, find_project(), seed=False)
        assert rows(dsn, "select to_regclass('workers') is null as untouched") == [{"untouched": True}]
