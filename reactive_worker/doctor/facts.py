"""Looking: what a Supabase shows through its API and, when asked to, a direct connection. No judgement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from reactive_worker.access.credentials import Credentials
from reactive_worker.access.tokens import WORKER_ROLE
from reactive_worker.doctor.direct import read_directly
from reactive_worker.doctor.probe import PushFacts, probe_push
from reactive_worker.doctor.wanted import wanted
from reactive_worker.errors import (
    InvalidKeyError,
    InvalidTaskError,
    PermissionDeniedError,
    ReactiveWorkerError,
    SchemaMissingError,
    SupabaseError,
    UnreachableError,
)
from reactive_worker.models import parse_time
from reactive_worker.store.connection import Connection

#: Rows that are asked for to see where the API cuts answers off: Supabase's own default.
ROWS_ASKED = 1000

#: Whom the workers' functions are for.
WORKING_ROLES = ("service_role", WORKER_ROLE)


@dataclass(frozen=True)
class Facts:
    """All that was seen. What could not be seen is None.

    Attributes
    ----------
    url:
        The project.
    unreachable:
        Why nothing answers there; empty when something does.
    key_problem:
        Why the key is not accepted; empty when it is.
    role:
        Which role the key is for; empty when that cannot be told.
    expires_at:
        When the key or token ends.
    schema_version:
        What the database says.
    schema_missing:
        True when it has no such function.
    unexposed:
        What the API says when it does not serve the schema public at all.
    database:
        What `reactive_worker_diagnose` says.
    no_database:
        Why there is none of that.
    direct:
        True when `database` was read from a direct connection.
    direct_problem:
        Why a direct connection that was asked for did not work.
    tables:
        By REST alone, for each table: empty when the key may read it, else what was said.
    workers:
        By REST alone: what `list_workers` returns.
    rows:
        How many rows came of `ROWS_ASKED`.
    skew:
        Seconds by which the server's clock is ahead of ours.
    skew_precision:
        Seconds by which that may be wrong.
    push:
        Of the probe; None when it was not sent.
    """

    url: str
    unreachable: str = ""
    key_problem: str = ""
    role: str = ""
    expires_at: datetime | None = None
    schema_version: int | None = None
    schema_missing: bool = False
    unexposed: str = ""
    database: dict[str, Any] | None = None
    no_database: str = ""
    direct: bool = False
    direct_problem: str = ""
    tables: dict[str, str] = field(default_factory=dict[str, str])
    workers: list[dict[str, Any]] | None = None
    rows: int | None = None
    skew: float | None = None
    skew_precision: float = 0.0
    push: PushFacts | None = None


async def gather(
    url: str,
    credentials: Credentials,
    *,
    db_url: str | None = None,
    timeout: float = 10.0,
    probe: bool = True,
    clock: Callable[[], float] = time.time,
) -> Facts:
    """Look at a Supabase; only the probe of push writes, and it takes away what it wrote.

    Parameters
    ----------
    url:
        Project URL.
    credentials:
        What a worker would use.
    db_url:
        Connection string, to look into the database directly as well.
    timeout:
        Seconds to wait for Realtime: to be let in, and for each echo.
    probe:
        Whether to send a probe through Realtime.
    clock:
        Seconds since 1970.

    Raises
    ------
    ConfigurationError
        The URL is malformed; `db_url` was given and psycopg is not installed.
    """
    told = credentials.facts()
    seen: dict[str, Any] = {
        "url": url,
        "role": _role(credentials),
        "expires_at": told.expires_at if told else None,
    }
    if db_url is not None:
        database, problem = await read_directly(db_url)
        seen.update(database=database, direct=database is not None, direct_problem=problem)
    connection = await Connection.open(url, credentials)
    try:
        await _look(connection, seen, timeout=timeout, probe=probe, clock=clock)
    finally:
        await connection.aclose()
    return Facts(**seen)


def _role(credentials: Credentials) -> str:
    told = credentials.facts()
    if told is not None:
        return told.role or "anon"
    kinds = {"sb_secret_": "service_role", "sb_publishable_": "anon"}
    return next((role for start, role in kinds.items() if credentials.token().startswith(start)), "")


async def _look(
    connection: Connection, seen: dict[str, Any], *, timeout: float, probe: bool, clock: Callable[[], float]
) -> None:
    try:
        seen["schema_version"] = int(await connection.rpc("reactive_worker_schema_version", {}, answers=int))
    except SchemaMissingError:
        seen["schema_missing"] = True
    except PermissionDeniedError:
        pass  # a role without rights; what it may not do is found below
    except InvalidTaskError as error:
        # There is nothing in this request to refuse but the schema it is meant for (PGRST106).
        seen["unexposed"] = str(error)
        return
    except InvalidKeyError as error:
        seen["key_problem"] = str(error)
        return
    except (UnreachableError, SupabaseError) as error:
        # Another code than those above is no PostgREST's.
        seen["unreachable"] = str(error)
        return
    await _read_facts(connection, seen, clock)
    if "schema_missing" in seen:
        return
    try:
        rows = await connection.rpc("reactive_worker_rows", {"p_rows": ROWS_ASKED}, answers=list)
        seen["rows"] = len(rows)
    except ReactiveWorkerError:
        seen["rows"] = None  # an older schema or another role: unknown
    if seen.get("database") is None:
        await _read_tables(connection, seen)
    if probe and seen["role"] in (*WORKING_ROLES, ""):
        seen["push"] = await probe_push(
            connection, as_service=seen["role"] == "service_role", timeout=timeout
        )


async def _read_facts(connection: Connection, seen: dict[str, Any], clock: Callable[[], float]) -> None:
    before = clock()
    try:
        database = await connection.rpc("reactive_worker_diagnose", {})
    except ReactiveWorkerError as error:
        seen["no_database"] = "missing" if isinstance(error, SchemaMissingError) else str(error)
        await _read_date(connection, seen, clock)
        return
    after = clock()
    seen["skew"] = parse_time(database["now"], "now").timestamp() - (before + after) / 2
    seen["skew_precision"] = (after - before) / 2
    if seen.get("database") is None:
        seen["database"] = database


async def _read_date(connection: Connection, seen: dict[str, Any], clock: Callable[[], float]) -> None:
    """The clock of whatever answers, from the header every HTTP server sends."""
    async with httpx.AsyncClient(timeout=10) as http:
        before = clock()
        try:
            answer = await http.head(f"{connection.url}/rest/v1/", headers=connection.credentials.headers())
        except httpx.HTTPError:
            return  # unknown; that it can be reached is known by now
        after = clock()
    try:
        date = parsedate_to_datetime(answer.headers.get("date", ""))
    except ValueError:
        return
    seen["skew"] = date.timestamp() + 0.5 - (before + after) / 2
    seen["skew_precision"] = 0.5 + (after - before) / 2


async def _read_tables(connection: Connection, seen: dict[str, Any]) -> None:
    tables: dict[str, str] = {}
    for table in wanted().tables:
        column = "worker_id" if table == "worker_mailbox" else "id"
        try:
            await connection.select(table, column, limit=1)
            tables[table] = ""
        except ReactiveWorkerError as error:
            tables[table] = str(error)
    seen["tables"] = tables
    try:
        seen["workers"] = await connection.rpc("list_workers", {}, answers=list)
    except ReactiveWorkerError:
        seen["workers"] = None  # not for this role
