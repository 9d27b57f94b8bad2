"""Migrations and seeds are applied as the Supabase CLI applies them."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest

from reactive_worker.local.migrations import MigrationError, migrate
from reactive_worker.local.postgres import Cluster
from reactive_worker.local.project import find_project


class Workshop:
    """A project under construction and an empty database."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder / "supabase"
        self.dsn = dsn
        (self.folder / "migrations").mkdir(parents=True)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def run(self) -> list[str]:
        return migrate(self.dsn, find_project(self.folder.parent))

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(sql.encode()).fetchall()


@pytest.fixture
def workshop(pg_cluster: Cluster, tmp_path: Path) -> Generator[Workshop]:
    pg_cluster.create_database("workshop")
    yield Workshop(tmp_path, pg_cluster.dsn("workshop"))
    pg_cluster.drop_database("workshop")


def test_only_what_is_new_is_applied(workshop: Workshop) -> None:
    workshop.write("migrations/1_first.sql", "create table a (x int);\n-- and\ninsert into a values (1);")
    workshop.write("seed.sql", "insert into a values (100);")
    assert workshop.run() == ["1_first.sql", "seed.sql"]
    assert workshop.run() == []
    workshop.write("migrations/2_second.sql", "insert into a values (2)")
    workshop.write("seed.sql", "insert into a values (200);")
    assert workshop.run() == ["2_second.sql"]
    assert workshop.rows("select x from a order by x") == [(1,), (2,), (100,)]


def test_the_history_is_the_clis(workshop: Workshop) -> None:
    workshop.write(
        "migrations/20260101_first.sql", "create table a (x int);\n-- and\ninsert into a values (1);"
    )
    workshop.run()
    assert workshop.rows("select version, name, statements from supabase_migrations.schema_migrations") == [
        ("20260101", "first", ["create table a (x int)", "-- and\ninsert into a values (1)"])
    ]


@pytest.mark.parametrize(
    ("script", "place"),
    [
        ("select 1;\n\nselect\n  wrong;\n", "2_bad.sql:4: "),
        ("select 1;\n\n-- about\ncreate table a (x int);", "2_bad.sql:4: relation"),
        ("select 1;\nselec 2;", "2_bad.sql:2: syntax error"),
        ("select 1;\n  select 1 / 0;", "2_bad.sql:2: division by zero"),
        ("do $$ begin\n raise exception 'no' using hint = 'try'; end $$", "2_bad.sql:1: no"),
    ],
)
def test_a_refused_statement_is_named_and_nothing_of_its_file_stays(
    workshop: Workshop, script: str, place: str
) -> None:
    workshop.write("migrations/1_first.sql", "create table a (x int);")
    workshop.write("migrations/2_bad.sql", "insert into a values (1);" + script)
    workshop.write("migrations/3_never.sql", "insert into a values (3);")
    with pytest.raises(MigrationError) as caught:
        workshop.run()
    assert place in str(caught.value)
    assert "SQLSTATE" in str(caught.value)
    assert workshop.rows("select x from a") == []
    assert workshop.rows("select version from supabase_migrations.schema_migrations") == [("1",)]
    workshop.write("migrations/2_bad.sql", "insert into a values (2)")
    assert workshop.run() == ["2_bad.sql", "3_never.sql"]


def test_a_migration_may_do_no_more_than_on_a_hosted_project(workshop: Workshop) -> None:
    workshop.write("migrations/1_first.sql", "copy (select 1) to program 'true'")
    with pytest.raises(MigrationError, match="42501"):
        workshop.run()


def test_settings_of_one_file_do_not_reach_the_next(workshop: Workshop) -> None:
    workshop.write("migrations/1_first.sql", "set search_path = ''; set statement_timeout = 1;")
    workshop.write("migrations/2_second.sql", "create table a (x int); select pg_sleep(0.01)")
    workshop.run()
    assert workshop.rows("select to_regclass('public.a') is not null") == [(True,)]


def test_a_file_that_commits_by_itself_is_recorded(workshop: Workshop) -> None:
    workshop.write("migrations/1_first.sql", "create table a (x int); commit;")
    assert workshop.run() == ["1_first.sql"]
    assert workshop.run() == []


def test_what_a_fresh_database_contains(workshop: Workshop) -> None:
    assert workshop.rows("select current_user, auth.uid(), auth.role(), auth.jwt(), auth.email()") == [
        ("postgres", None, None, None, None)
    ]
    owners = "select pubname, pg_get_userbyid(pubowner)::text from pg_publication order by pubname"
    assert workshop.rows(owners) == [
        ("supabase_realtime", "postgres"),
        # Realtime's own, made by the role it connects as.
        ("supabase_realtime_messages_publication", "supabase_admin"),
    ]
    workshop.write("migrations/1_first.sql", "create table a (x int);")
    workshop.run()
    granted = (
        "select has_table_privilege(rolname, 'a', 'select') from pg_roles where rolname ~ 'anon|auth|service'"
    )
    assert set(workshop.rows(granted)) == {(False,)}
    with psycopg.connect(workshop.dsn) as connection:
        connection.execute("""select set_config('request.jwt.claims',
          '{"sub": "8a4f4cf5-5a5c-4b0e-8d6a-6d6b1f0f5f10", "role": "x", "email": "e"}', false)""")
        found = connection.execute("select auth.uid()::text, auth.role(), auth.email()").fetchone()
    assert found == ("8a4f4cf5-5a5c-4b0e-8d6a-6d6b1f0f5f10", "x", "e")


def test_uuid_ossp_is_there(workshop: Workshop) -> None:
    workshop.write(
        "migrations/1_uuid.sql",
        '-- As many projects begin.\ncreate extension if not exists "uuid-ossp" with schema extensions;\n'
        "create table a (id uuid default uuid_generate_v4(), b uuid default extensions.uuid_generate_v4());"
        "insert into a default values; insert into a default values;",
    )
    assert workshop.run() == ["1_uuid.sql"]
    assert workshop.rows("select count(distinct id), count(distinct b) from a") == [(2, 2)]


def test_an_owner_may_set_what_the_api_server_reads(workshop: Workshop) -> None:
    workshop.write(
        "migrations/1_settings.sql",
        "alter role authenticator in database workshop set pgrst.db_aggregates_enabled = 'true';",
    )
    assert workshop.run() == ["1_settings.sql"]
    found = workshop.rows(
        "select setconfig from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase"
        " where d.datname = 'workshop'"
    )
    assert found == [(["pgrst.db_aggregates_enabled=true"],)]
