"""Calling the SQL functions the way PostgREST does: by name, one jsonb back, as one of the API roles."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

#: SQL type of the parameters that are neither text, number nor JSON.
TYPES = {
    "p_worker_id": "uuid",
    "p_id": "uuid",
    "p_ids": "uuid[]",
    "p_agent_types": "text[]",
    "p_except": "uuid[]",
}

TERMINAL = ("task_completed", "task_failed", "task_rejected", "task_cancelled")

#: The last event of a run that ended in this way.
LAST_EVENT = {
    "completed": "task_completed",
    "failed": "task_failed",
    "cancelled": "task_cancelled",
    "input_required": "task_input_required",
    "retry": "task_failed",
}


def call_statement(function: str, arguments: Mapping[str, Any]) -> tuple[sql.Composed, list[Any]]:
    """``select public.function(p_a => ..., ...)`` and its parameters."""
    values: list[Any] = []
    named: list[sql.Composable] = []
    for name, value in arguments.items():
        is_json = name not in TYPES and isinstance(value, dict | list)
        values.append(Jsonb(value) if is_json else value)
        cast = sql.SQL("::{}").format(sql.SQL(TYPES[name])) if name in TYPES else sql.SQL("")
        named.append(sql.SQL("{} => %s{}").format(sql.Identifier(name), cast))
    statement = sql.SQL("select public.{}({})").format(sql.Identifier(function), sql.SQL(", ").join(named))
    return statement, values


def event(seq: int, event_type: str = "task_progress", **more: Any) -> dict[str, Any]:
    """An event as the sink sends it, without task and attempt."""
    return {
        "id": str(uuid.uuid4()),
        "seq": seq,
        "event_type": event_type,
        "event_data": {"statusUpdate": {"n": seq}},
        **more,
    }


def result(run: Mapping[str, Any], kind: str = "completed", **more: Any) -> dict[str, Any]:
    """A result of a claimed row as `finish_todos` takes it; `after` events were appended since the claim."""
    after = more.pop("after", 0)
    events = more.pop("events", None) or [event(run["seq"] + after + 1, LAST_EVENT[kind])]
    return {"todolist_id": run["id"], "attempt": run["attempt"], "kind": kind, "events": events, **more}


class Caller:
    """A session that calls functions; `service_role` unless connected otherwise."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection

    @property
    def pid(self) -> int:
        """Its server process."""
        return self.connection.info.backend_pid

    async def call(self, function: str, **arguments: Any) -> Any:
        """Call a function by parameter names and return its value."""
        statement, values = call_statement(function, arguments)
        row = await (await self.connection.execute(statement, values)).fetchone()
        assert row is not None
        return row[0]

    async def rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        """Rows of a statement as dictionaries."""
        async with self.connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query, parameters)  # type: ignore[arg-type]
            return await cursor.fetchall() if cursor.description else []

    async def move_clock(self, seconds: float) -> None:
        """Let this session see the time `seconds` from now."""
        await self.rows(
            "select set_config('app.settings.reactive_worker_clock_offset', %s, false)", f"{seconds} seconds"
        )

    # -- what nearly every test does ---------------------------------------------------------------

    async def submit(self, **row: Any) -> str:
        """Submit one task and return its id."""
        row = {"agent_type": "echo", "prompt": "hello", **row}
        return (await self.call("submit_todos", p_rows=[row]))[0]["id"]

    async def register(
        self, worker: str | None = None, *, lease: float = 30, types: Sequence[str] = ("echo",)
    ) -> str:
        """Register a worker and return its id."""
        worker = worker or str(uuid.uuid4())
        await self.call(
            "register_worker",
            p_worker_id=worker,
            p_name="test",
            p_agent_types=list(types),
            p_concurrency=10,
            p_lease_seconds=lease,
            p_info={},
        )
        return worker

    async def claim(self, worker: str, *ids: str) -> list[dict[str, Any]]:
        """Claim these tasks and return the rows got."""
        answer = await self.call("claim_todos", p_worker_id=worker, p_ids=list(ids), p_want=len(ids))
        return answer["claimed"]

    async def running(self, worker: str | None = None, **row: Any) -> dict[str, Any]:
        """A task that has just been claimed; `worker_id` says by whom."""
        worker = worker or await self.register()
        return (await self.claim(worker, await self.submit(**row)))[0]

    async def finish(self, worker: str, *results: Mapping[str, Any]) -> list[str]:
        """Finish runs; returns what became of each result."""
        answer = await self.call("finish_todos", p_worker_id=worker, p_results=list(results))
        return [item["result"] for item in answer["results"]]

    async def sweep(
        self, by: str | None = None, *, types: Sequence[str] = ("echo",), limit: int = 100
    ) -> dict[str, Any]:
        """Reclaim, then sweep, as a worker does it, and with the answers of both.

        Only a living worker puts tasks of the dead back, so name one (`by`) where that matters.
        """
        worker = by or await self.register(types=types, lease=3600)
        reclaimed = await self.call("reclaim_todos", p_worker_id=worker)
        swept = await self.call("sweep_todos", p_worker_id=worker, p_agent_types=list(types), p_limit=limit)
        return {**reclaimed, **swept}

    async def todo(self, id: str) -> dict[str, Any]:
        """A task's row."""
        return (await self.rows("select * from public.todolist where id = %s", id))[0]

    async def log(self, id: str) -> list[str]:
        """A task's event types; asserts that they are numbered 1, 2, 3 ... without a gap."""
        rows = await self.events(id)
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        return [row["event_type"] for row in rows]

    async def events(self, id: str) -> list[dict[str, Any]]:
        """A task's events in order."""
        return await self.rows("select * from public.events where todolist_id = %s order by seq", id)


class Refused:
    """Context manager: the call inside is refused with this SQLSTATE and a message that contains `text`."""

    def __init__(self, sqlstate: str, text: str = "") -> None:
        self.sqlstate = sqlstate
        self.text = text

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> bool:
        assert error is not None, f"was not refused with {self.sqlstate}"
        if not isinstance(error, psycopg.Error):
            return False
        assert (error.sqlstate, self.text in str(error)) == (self.sqlstate, True), error
        return True
