"""Asking PostgreSQL itself, for whoever has a connection string: the same facts, whatever is applied."""

from __future__ import annotations

import asyncio
from typing import Any

from reactive_worker.access.redaction import redact
from reactive_worker.doctor.wanted import wanted
from reactive_worker.errors import ConfigurationError

_NAME = "reactive_worker_diagnose()"
#: Seconds until a host that does not answer is given up.
_CONNECT_TIMEOUT = 10


async def read_directly(db_url: str) -> tuple[dict[str, Any] | None, str]:
    """The facts, and why there are none.

    Parameters
    ----------
    db_url:
        Connection string of the role that owns the project's tables: `postgres`.

    Raises
    ------
    ConfigurationError
        psycopg is not installed.
    """
    return await asyncio.to_thread(_read, db_url)


def _read(db_url: str) -> tuple[dict[str, Any] | None, str]:
    try:
        import psycopg
    except ImportError:
        raise ConfigurationError("--db-url needs psycopg: pip install 'reactive-worker[doctor]'") from None
    # Made for this session from the file that belongs to this version, asked once, and gone with the
    # rollback: the database may have an older one, or none.
    create = wanted().functions[f"public.{_NAME}"].create.replace(f"public.{_NAME}", f"pg_temp.{_NAME}")
    try:
        with psycopg.connect(db_url, connect_timeout=_CONNECT_TIMEOUT) as connection:
            connection.execute("set local statement_timeout = '30s'")
            connection.execute(create.encode())
            row = connection.execute(f"select pg_temp.{_NAME}").fetchone()
            connection.rollback()
    except psycopg.Error as error:
        return None, redact(" ".join(str(error).split())) or type(error).__name__
    return (None if row is None else row[0]), ""
