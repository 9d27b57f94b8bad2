"""Applying `supabase/migrations` and the seed the way the Supabase CLI does.

The history is the CLI's own table, so `supabase db push` and this can take turns on one database.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from reactive_worker.errors import ConfigurationError
from reactive_worker.local.project import Migration, Project
from reactive_worker.local.statements import Statement, split_statements

# The wheel's server comes without it; bootstrap.sql has made uuid_generate_v4() then.
_UUID_OSSP = re.compile(
    r"\A(?:\s|--[^\n]*\n)*create\s+extension\s+(?:if\s+not\s+exists\s+)?\"?uuid-ossp\"?(?:\s|\Z)",
    re.IGNORECASE,
)

_HISTORY = """
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
alter table supabase_migrations.schema_migrations add column if not exists statements text[];
alter table supabase_migrations.schema_migrations add column if not exists name text;
create table if not exists supabase_migrations.seed_files (
  path text not null primary key, hash text not null
);
"""


class MigrationError(ConfigurationError):
    """A migration or seed file was refused by PostgreSQL."""


def migrate(dsn: str, project: Project, *, seed: bool = True) -> list[str]:
    """Bring a database up to date: new migrations, then seed files that never ran on it.

    Parameters
    ----------
    dsn:
        Connection string, of the role `postgres`: what a hosted project lets its owner do, and no more.
    project:
        Whose migrations.
    seed:
        Whether to run seed files.

    Returns
    -------
    list[str]
        Names of the files that were applied now, in order.

    Raises
    ------
    MigrationError
        A statement was refused; the text names file and line. Nothing of that file stays.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set client_min_messages = warning")
        connection.execute(_HISTORY)
        connection.execute("reset all")
        applied = _apply_migrations(connection, project.migrations())
        return applied + (_apply_seeds(connection, project) if seed else [])


def _apply_migrations(connection: psycopg.Connection[Any], migrations: Sequence[Migration]) -> list[str]:
    known = connection.execute("select version from supabase_migrations.schema_migrations").fetchall()
    done = {row[0] for row in known}
    applied: list[str] = []
    for migration in migrations:
        if migration.version in done:
            continue
        statements = _run_file(connection, migration.path)
        connection.execute(
            "insert into supabase_migrations.schema_migrations (version, statements, name)"
            " values (%s, %s, %s)",
            [migration.version, [statement.text for statement in statements], migration.name],
        )
        _commit(connection)
        applied.append(migration.path.name)
    return applied


def _apply_seeds(connection: psycopg.Connection[Any], project: Project) -> list[str]:
    known = connection.execute("select path from supabase_migrations.seed_files").fetchall()
    done = {row[0] for row in known}
    applied: list[str] = []
    for path in project.seed_files():
        # The CLI records seeds by their path from the project's root.
        name = (Path(project.folder.name) / path.relative_to(project.folder)).as_posix()
        if name in done:
            continue
        _run_file(connection, path)
        connection.execute(
            "insert into supabase_migrations.seed_files (path, hash) values (%s, %s)",
            [name, hashlib.sha256(path.read_bytes()).hexdigest()],
        )
        _commit(connection)
        applied.append(path.name)
    return applied


def _run_file(connection: psycopg.Connection[Any], path: Path) -> list[Statement]:
    """Run a file in a transaction that stays open, so that its record is part of it."""
    try:
        statements = split_statements(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise MigrationError(f"{path} is not UTF-8: {error}") from error
    connection.execute("reset all")
    connection.execute("begin")
    for statement in statements:
        if _is_imitated(connection, statement):
            continue
        try:
            connection.execute(statement.text.encode())
        except psycopg.Error as error:
            with contextlib.suppress(psycopg.Error):
                connection.execute("rollback")
            raise MigrationError(_explain(path, statement, error)) from error
    return statements


def _is_imitated(connection: psycopg.Connection[Any], statement: Statement) -> bool:
    """Whether a statement makes uuid-ossp on a server without it: its function is there already."""
    if not _UUID_OSSP.search(statement.text):
        return False
    found = connection.execute("select from pg_available_extensions where name = 'uuid-ossp'").fetchone()
    return found is None


def _commit(connection: psycopg.Connection[Any]) -> None:
    # A file may have committed by itself; its record has then been written outside a transaction.
    if connection.info.transaction_status == TransactionStatus.INTRANS:
        connection.execute("commit")


def _explain(path: Path, statement: Statement, error: psycopg.Error) -> str:
    line = statement.line
    if error.diag.statement_position:
        # Counted in characters, from 1, in the text that was sent.
        offset = int(error.diag.statement_position) - 1
        line = statement.start_line + statement.text.count("\n", 0, offset)
    parts = [f"{path}:{line}: {error.diag.message_primary or error} (SQLSTATE {error.sqlstate or 'none'})"]
    for title, text in (("detail", error.diag.message_detail), ("hint", error.diag.message_hint)):
        if text:
            parts.append(f"{title}: {text}")
    return "; ".join(parts)
