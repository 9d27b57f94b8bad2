"""`init` beside a project that is there, pushed by the official CLI; tasks from a table of that project."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reactive_worker.cli import main
from reactive_worker.local.migrations import migrate
from reactive_worker.local.postgres import Cluster
from reactive_worker.local.project import find_project
from tests.integration.sql.test_migrations import empty_database, push, schema

CONFIG = 'project_id = "shop"\n[db]\nmajor_version = 17\n'
SEED = "insert into public.tickets (body) values ('from the seed');\n"
TICKETS = """
create table public.tickets (id bigint generated always as identity primary key, body text not null);
"""
RECIPE = find_project().folder / "optional" / "start_tasks.sql"


def own_project(folder: Path) -> dict[Path, str]:
    """A project with tables, a seed, and migrations older and newer than ours."""
    files = {
        folder / "supabase" / "config.toml": CONFIG,
        folder / "supabase" / "seed.sql": SEED,
        folder / "supabase" / "migrations" / "20240101000000_tickets.sql": TICKETS,
        folder
        / "supabase"
        / "migrations"
        / "20991231000000_more.sql": "create table public.more (id int);\n",
        folder / ".env": "MINE=1\n",
        folder / ".gitignore": "mine\n",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return files


@pytest.mark.supabase_cli
def test_the_official_cli_pushes_into_a_project_with_newer_migrations_upgraded_twice(
    pg_cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("supabase") is None:
        pytest.skip("the Supabase CLI is not on PATH: npm install supabase@3")
    files = own_project(tmp_path)
    with empty_database(pg_cluster, "beside") as dsn:
        push(dsn, tmp_path, "--include-seed")
        for _ in range(2):
            assert main(["init", str(tmp_path)]) == 0
            assert "supabase db push --include-all" in capsys.readouterr().out
            push(dsn, tmp_path, "--include-all")
        with psycopg.connect(dsn) as connection:
            assert connection.execute("select body from tickets").fetchall() == [("from the seed",)]
            connection.execute("drop table public.tickets, public.more")
        pushed = schema(dsn)
    with empty_database(pg_cluster, "by_hand") as dsn:
        migrate(dsn, find_project())
        assert pushed == schema(dsn)
    assert {path: path.read_text() for path in files} == files


def test_an_insert_into_a_table_of_ones_own_starts_a_task(local_supabase: Any) -> None:
    """Rows that were there get theirs, once; a user's belong to the user, who may not submit a task alone."""
    user = str(uuid.uuid4())
    with psycopg.connect(local_supabase.db_url, autocommit=True) as owner:
        owner.execute(TICKETS.encode())
        owner.execute(
            "alter table tickets enable row level security; grant insert on tickets to authenticated;"
            "create policy anybody on tickets for insert to authenticated with check (true)"
        )
        owner.execute("insert into tickets (body) select 'old ' || n from generate_series(1, 1200) n")
        owner.execute(RECIPE.read_bytes())
        owner.execute("insert into tickets (body) values ('new 1'), (''), ('new 2')")
        with owner.transaction():
            owner.execute("set local role authenticated")
            owner.execute("select set_config('request.jwt.claims', %s, true)", [f'{{"sub": "{user}"}}'])
            owner.execute("insert into tickets (body) values ('of a user')")
        for _ in range(2):
            owner.execute(RECIPE.read_bytes())
        tasks = owner.execute(
            "select prompt, owner_id::text, input_data ->> 'ticket_id' from todolist"
            " where agent_type = 'triage'"
        ).fetchall()
        bodies = dict(owner.execute("select id::text, body from tickets where body <> ''").fetchall())
    assert len(tasks) == 1203
    assert {ticket: prompt for prompt, _, ticket in tasks} == bodies
    assert [(prompt, whose) for prompt, whose, _ in tasks if whose] == [("of a user", user)]


def test_a_row_that_is_rolled_back_starts_nothing(local_supabase: Any) -> None:
    with psycopg.connect(local_supabase.db_url, autocommit=True) as owner:
        owner.execute(TICKETS.encode())
        owner.execute(RECIPE.read_bytes())
        with owner.transaction() as transaction:
            owner.execute("insert into tickets (body) values ('never')")
            raise psycopg.Rollback(transaction)
    with psycopg.connect(local_supabase.db_url) as owner:
        assert owner.execute("select count(*) from todolist").fetchone() == (0,)
