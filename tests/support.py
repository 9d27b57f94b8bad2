"""What the worker tests share: submitting rows the way users do, and reading tables past every API."""

from __future__ import annotations

import asyncio
import json
import select
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

#: Open connections by event loop and database. A condition that is waited for asks fifty times a second, and
#: a session of its own for each question costs PostgreSQL and us more than all the rest.
_open: dict[tuple[int, str], psycopg.AsyncConnection[dict[str, Any]]] = {}


async def query(db_url: str, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    """Rows of a statement, straight from PostgreSQL."""
    key = (id(asyncio.get_running_loop()), db_url)
    # Taken out while it is in use: statements at the same time have a session each.
    connection = _open.pop(key, None)
    if connection is not None and _has_ended(connection):
        connection.pgconn.finish()
        connection = None
    if connection is None:
        connection = await psycopg.AsyncConnection.connect(
            db_url, autocommit=True, row_factory=dict_row, prepare_threshold=None
        )
    done = False
    try:
        cursor = await connection.execute(sql, parameters)  # type: ignore[arg-type]
        rows = await cursor.fetchall() if cursor.description else []
        done = True
    finally:
        if done and key not in _open:
            _open[key] = connection
        else:
            connection.pgconn.finish()
    return rows


def close_connections() -> None:
    """Close what `query` keeps open; called after each test."""
    while _open:
        _, connection = _open.popitem()
        # Not `await connection.close()`: the event loop it belongs to may have ended.
        connection.pgconn.finish()


def _has_ended(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Whether the server has closed it: then there is something to read, though nobody has asked."""
    return connection.closed or bool(select.select([connection.fileno()], [], [], 0)[0])


async def insert(
    db_url: str,
    prompts: Iterable[str],
    *,
    agent_type: str = "test",
    input_data: Any = None,
    priority: int = 0,
) -> list[str]:
    """Insert pending rows in one statement; returns their ids in order."""
    rows = await query(
        db_url,
        """
        insert into public.todolist (agent_type, prompt, input_data, priority)
        select %s, p, %s::jsonb, %s from unnest(%s::text[]) with ordinality as t(p, n) order by n
        returning id::text
        """,
        agent_type,
        None if input_data is None else json.dumps(input_data),
        priority,
        list(prompts),
    )
    return [row["id"] for row in rows]


def deafen(faults: Any, deaf: bool) -> None:
    """Let Realtime tell nothing any more, by no way, while its sockets stay alive."""
    faults.apply({"deaf": deaf, "broadcast_deaf": deaf})


async def count(db_url: str, status: str) -> int:
    """How many rows are in a status."""
    rows = await query(db_url, "select count(*) as n from public.todolist where agent_status = %s", status)
    return int(rows[0]["n"])


async def events_of(db_url: str, id: str) -> list[dict[str, Any]]:
    """A task's events by seq."""
    return await query(db_url, "select * from public.events where todolist_id = %s order by seq", id)


async def kinds(db_url: str, id: str) -> list[str]:
    """A task's event types by seq."""
    return [row["event_type"] for row in await events_of(db_url, id)]


TERMINAL = ("task_completed", "task_failed", "task_rejected", "task_cancelled")


async def broken_logs(db_url: str) -> list[dict[str, Any]]:
    """Tasks whose events are not seq 1..n, or not exactly one terminal event for a terminal status."""
    return await query(
        db_url,
        """
        select t.id, t.agent_status, count(e.*) as events, min(e.seq) as first, max(e.seq) as last,
               count(*) filter (where e.event_type = any(%s)) as ends
        from public.todolist t left join public.events e on e.todolist_id = t.id
        group by t.id, t.agent_status
        having count(e.*) > 0 and (min(e.seq) <> 1 or max(e.seq) <> count(e.*))
            or count(*) filter (where e.event_type = any(%s))
               <> case when t.agent_status in ('completed', 'failed', 'cancelled') then 1 else 0 end
        """,
        list(TERMINAL),
        list(TERMINAL),
    )


async def runs_more_than_once(db_url: str) -> list[dict[str, Any]]:
    """Tasks that were claimed more than once."""
    return await query(db_url, "select id, attempt, failures, error from public.todolist where attempt > 1")


def order_of(started: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """`started` restricted to `wanted`, in the order it happened."""
    keep = set(wanted)
    return [one for one in started if one in keep]
