"""`supabase/` on empty databases: by our own migrator, by the official CLI, on every PostgreSQL there is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reactive_worker.local.migrations import migrate
from reactive_worker.local.postgres import Cluster
from reactive_worker.local.project import find_project
from reactive_worker.store.store import SCHEMA_VERSION
from reactive_worker.testing.database import Database
from tests.integration.sql.calling import call_statement

PUBLISHED = ["events", "todolist", "worker_mailbox"]

#: Everything the migrations make, as text that is the same on every PostgreSQL.
SCHEMA = """
select 'function ' || p.oid::regprocedure || pg_get_functiondef(p.oid) || coalesce(p.proacl::text, '')
from pg_proc p where p.pronamespace in ('public'::regnamespace, 'reactive_worker_private'::regnamespace)
union all
select format('column %s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default)
from information_schema.columns where table_schema = 'public'
union all
select 'index ' || indexdef from pg_indexes where schemaname = 'public'
union all
select 'constraint ' || conname || pg_get_constraintdef(oid) from pg_constraint
where connamespace = 'public'::regnamespace and contype <> 'n'
union all
select format('policy %s %s %s %s %s %s', tablename, policyname, roles, cmd, qual, with_check)
from pg_policies
union all
select format('table %s %s %s', relname, relrowsecurity, reloptions) from pg_class
where relkind = 'r' and relnamespace = 'public'::regnamespace
union all
select 'trigger ' || pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
union all
select 'published ' || tablename from pg_publication_tables where pubname = 'supabase_realtime'
order by 1
"""


def schema(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute(SCHEMA).fetchall()]


@contextmanager
def empty_database(cluster: Cluster, name: str) -> Generator[str]:
    """Connection string of a database that holds what a fresh Supabase project holds."""
    cluster.create_database(name)
    try:
        yield cluster.dsn(name)
    finally:
        cluster.drop_database(name)


def call(connection: psycopg.Connection[Any], function: str, **arguments: Any) -> Any:
    statement, values = call_statement(function, arguments)
    row = connection.execute(statement, values).fetchone()
    assert row is not None
    return row[0]


def test_the_installed_version_is_the_one_the_worker_needs(database: Database) -> None:
    with psycopg.connect(database.dsn) as connection:
        assert call(connection, "reactive_worker_schema_version") == SCHEMA_VERSION
        done = connection.execute("select version from supabase_migrations.schema_migrations order by 1")
        assert [row[0] for row in done] == [migration.version for migration in find_project().migrations()]


def test_files_are_named_as_the_cli_orders_them() -> None:
    names = [migration.path.name for migration in find_project().migrations()]
    assert names == sorted(names)
    assert all(re.fullmatch(r"\d{14}_[a-z_]+\.sql", name) for name in names)


def test_migrating_and_seeding_again_changes_nothing(pg_cluster: Cluster) -> None:
    project = find_project()
    with empty_database(pg_cluster, "migrate_twice") as dsn:
        assert migrate(dsn, project)
        assert migrate(dsn, project) == []
        with psycopg.connect(dsn) as connection:
            # A task that nobody serves would only wait: the seed is for rows of the user's own.
            assert connection.execute("select count(*) from todolist").fetchone() == (0,)


@pytest.mark.parametrize("publication", ["missing", "full", "everything"])
def test_the_publication_is_completed_whatever_is_there(pg_cluster: Cluster, publication: str) -> None:
    with empty_database(pg_cluster, f"publication_{publication}") as dsn:
        with psycopg.connect(pg_cluster.admin_dsn(dsn.rsplit("/", 1)[1]), autocommit=True) as admin:
            admin.execute("drop publication supabase_realtime")
            if publication == "everything":
                admin.execute("create publication supabase_realtime for all tables")
        project = find_project()
        migrate(dsn, project, seed=False)
        with psycopg.connect(dsn, autocommit=True) as owner:
            if publication == "full":
                [last] = [m.path for m in project.migrations() if m.path.name.endswith("_realtime.sql")]
                owner.execute(last.read_bytes())
            rows = owner.execute(
                "select tablename from pg_publication_tables where pubname = 'supabase_realtime'"
                " and schemaname = 'public' order by 1"
            ).fetchall()
        wanted = sorted([*PUBLISHED, "workers", "steering"]) if publication == "everything" else PUBLISHED
        assert [row[0] for row in rows] == wanted


def other_installations() -> list[Path]:
    return sorted(path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres"))


@pytest.mark.debian_postgres
def test_every_other_postgresql_gets_the_same_schema(pg_cluster: Cluster, pg_template: str) -> None:
    installations = other_installations()
    if not installations:
        pytest.skip("no PostgreSQL of a distribution below /usr/lib/postgresql")
    with empty_database(pg_cluster, "reference") as dsn:
        migrate(dsn, find_project())
        expected = schema(dsn)
    for pg_bin in installations:
        with Cluster(pg_bin=pg_bin) as cluster:
            migrate(cluster.dsn(), find_project())
            assert schema(cluster.dsn()) == expected, pg_bin
            with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
                live_once(connection)


def live_once(connection: psycopg.Connection[Any]) -> None:
    """Every function once, as far as that is possible in one straight line."""
    worker = "00000000-0000-0000-0000-000000000001"
    rows = [{"agent_type": "echo", "prompt": "x", "priority": priority} for priority in (0, 10)]
    call(connection, "submit_todos", p_rows=rows)
    call(
        connection,
        "register_worker",
        p_worker_id=worker,
        p_name="w",
        p_agent_types=["echo"],
        p_concurrency=1,
        p_lease_seconds=30,
    )
    swept = call(connection, "sweep_todos", p_worker_id=worker, p_agent_types=["echo"], p_limit=10)
    ids = [row["id"] for row in swept["candidates"]]
    claimed = call(connection, "claim_todos", p_worker_id=worker, p_ids=ids, p_want=10)["claimed"]
    assert [row["priority"] for row in claimed] == [10, 0]
    first, second = claimed
    said = {"id": first["id"], "seq": 2, "event_type": "task_progress", "event_data": {}}
    item = {"todolist_id": first["id"], "attempt": 1, **said}
    assert call(connection, "append_events", p_worker_id=worker, p_events=[item])["stored"] == 1
    said = {"id": second["id"], "seq": 3, "event_type": "task_completed", "event_data": {}}
    end = {"todolist_id": first["id"], "attempt": 1, "kind": "completed", "events": [said]}
    assert (
        call(connection, "finish_todos", p_worker_id=worker, p_results=[end])["results"][0]["result"]
        == "finished"
    )
    in_flight = [{"id": second["id"], "attempt": 1}]
    beat = call(connection, "heartbeat_worker", p_worker_id=worker, p_lease_seconds=30, p_in_flight=in_flight)
    assert (beat["known"], beat["lost"]) == (True, [])
    call(connection, "cancel_todo", p_id=second["id"], p_reason="enough")
    call(connection, "touch_probe", p_worker_id=worker)
    assert call(connection, "unregister_worker", p_worker_id=worker) == {
        "released": 1,
        "busy": [],
        "refused": [],
    }
    assert call(connection, "retry_todo", p_id=second["id"])["agent_status"] == "pending"
    assert call(connection, "todo_stats")["completed_tasks"] == 1


def push(dsn: str, folder: Path, *options: str) -> str:
    """`supabase db push` of the project in `folder`; returns what it says."""
    answer = subprocess.run(
        ["supabase", "db", "push", *options, "--yes", "--db-url", f"{dsn}?sslmode=disable"],
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr


@pytest.mark.supabase_cli
def test_the_official_cli_pushes_the_same_schema(pg_cluster: Cluster, tmp_path: Path) -> None:
    if shutil.which("supabase") is None:
        pytest.skip("the Supabase CLI is not on PATH: npm install supabase@3")
    shutil.copytree(find_project().folder, tmp_path / "supabase")
    with empty_database(pg_cluster, "by_hand") as dsn:
        migrate(dsn, find_project())
        expected = schema(dsn)
    with empty_database(pg_cluster, "pushed") as dsn:
        push(dsn, tmp_path, "--include-seed")
        # The second time there is nothing to do.
        assert "up to date" in push(dsn, tmp_path, "--include-seed")
        assert schema(dsn) == expected
        # What the CLI applied, our migrator takes as applied.
        assert migrate(dsn, find_project()) == []
        with psycopg.connect(dsn, autocommit=True) as connection:
            live_once(connection)
