"""A project that has names of ours learns it before anything is touched, and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest

from reactive_worker.local.migrations import MigrationError, migrate
from reactive_worker.local.postgres import Cluster
from reactive_worker.local.project import find_project
from reactive_worker.testing.database import Database
from tests.integration.sql.test_migrations import empty_database, schema

OLD = (Path(__file__).parent / "predecessor.sql").read_text(encoding="utf-8")

#: What a project may have, and how it is called in the error.
TAKEN = {
    "events without todolist": ("create table events (id int primary key, what text)", "table public.events"),
    "events like the predecessor's": (
        "create table events (id uuid primary key, created_at timestamptz, event_type text)",
        "table public.events",
    ),
    "workers": ("create table workers (name text)", "table public.workers"),
    "a view": ("create view worker_mailbox as select 1 as x", "view public.worker_mailbox"),
    "a type": ("create type steering as enum ('left', 'right')", "type public.steering"),
    "a function": (
        "create function submit_todos(p text, n int) returns int language sql as 'select 1'",
        "function public.submit_todos(p text, n integer)",
    ),
    "an index of a table that was renamed": (
        "create table events (id int, created_at timestamptz);"
        "create index events_created_idx on events (created_at); alter table events rename to my_events",
        "index public.events_created_idx",
    ),
    "the schema": ("create schema reactive_worker_private", "schema reactive_worker_private"),
    "a table beside the predecessor's": (OLD + "create table workers (name text);", "table public.workers"),
}


@pytest.mark.parametrize("what", TAKEN)
def test_names_that_are_taken_are_named_and_nothing_is_touched(
    pg_cluster: Cluster, pg_template: str, what: str
) -> None:
    statement, name = TAKEN[what]
    with empty_database(pg_cluster, "taken_" + re.sub(r"\W+", "_", what)) as dsn:
        with psycopg.connect(dsn, autocommit=True) as owner:
            owner.execute(statement.encode())
        before = public(dsn)
        with pytest.raises(MigrationError) as refused:
            migrate(dsn, find_project(), seed=False)
        said = str(refused.value)
        assert f"uses for something else: {name}" in said
        assert "Nothing has been changed. Rename what is your own" in said
        assert public(dsn) == before


def public(dsn: str) -> list[tuple[str, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "select relname::text, relacl::text, reloptions::text from pg_class"
            " where relnamespace = 'public'::regnamespace union all"
            " select p.oid::regprocedure::text, proacl::text, null from pg_proc p"
            " where pronamespace = 'public'::regnamespace union all"
            " select nspname::text, null, null from pg_namespace where nspname like 'reactive%' order by 1"
        ).fetchall()


def test_a_project_with_other_names_is_left_as_it_is(pg_cluster: Cluster, pg_template: str) -> None:
    with empty_database(pg_cluster, "fresh_names") as dsn:
        migrate(dsn, find_project(), seed=False)
        fresh = schema(dsn)
    with empty_database(pg_cluster, "with_my_own") as dsn:
        with psycopg.connect(dsn, autocommit=True) as owner:
            owner.execute("create table my_events (id int primary key); create schema app")
            owner.execute("create table app.events (id int primary key)")
        migrate(dsn, find_project(), seed=False)
        assert [line for line in fresh if line not in schema(dsn)] == []


def test_every_name_is_looked_at(database: Database) -> None:
    """Whoever adds a table, an index or a function adds its name to the first migration."""
    first = min(find_project().migrations(), key=lambda migration: migration.version).path.read_text("utf-8")
    looked_at = set(re.findall(r"'(\w+)'", first[: first.index("v_taken text")]))
    with psycopg.connect(database.dsn) as connection:
        made = connection.execute(
            "select relname from pg_class where relnamespace = 'public'::regnamespace"
            " and not exists (select from pg_constraint where conindid = pg_class.oid and contype = 'p')"
            " and not exists (select from pg_depend where objid = pg_class.oid and deptype = 'i')"
            " and relkind <> 'S' union"
            " select proname from pg_proc where pronamespace = 'public'::regnamespace"
        ).fetchall()
    assert {name for (name,) in made} - looked_at == set()
