"""TodoStore: one typed async call for each SQL function."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from reactive_worker.access.redaction import redact
from reactive_worker.errors import (
    InvalidTaskError,
    ReactiveWorkerError,
    SchemaMissingError,
    TaskNotFoundError,
)
from reactive_worker.models import (
    Candidate,
    ClaimResult,
    SweepResult,
    Todo,
    TodoEvent,
    parse_time,
)
from reactive_worker.store.connection import Connection, Filter
from reactive_worker.store.translate import unreadable

logger = logging.getLogger(__name__)

#: The schema version this code was written for; older workers keep running against newer schemas.
SCHEMA_VERSION = 2


def event_row(event: TodoEvent) -> dict[str, Any]:
    """The JSON `append_events` takes for one event."""
    return {
        "id": event.id,
        "todolist_id": event.todolist_id,
        "attempt": event.attempt,
        "seq": event.seq,
        "event_type": event.event_type,
        "event_data": event.event_data,
        "message": event.message,
        "context_id": event.context_id,
        "task_id": event.task_id,
        "task_state": event.task_state,
    }


def _read_all(rows: Iterable[Mapping[str, Any]]) -> list[Todo]:
    """Rows for a list: one that not even says what it is keeps no other from being shown."""
    found: list[Todo] = []
    for row in rows:
        try:
            found.append(Todo.read(row))
        except InvalidTaskError as error:
            logger.warning("a task is left out of the list, its row cannot be read: %s", error)
    return found


@dataclass(frozen=True, slots=True)
class TailPage:
    """A page of what was committed since some moment."""

    events: tuple[TodoEvent, ...]
    #: The moment: `since` of the next look.
    until: str
    #: This look goes on: ask again with this `until`, and `last` as `after`.
    more: bool = False
    last: tuple[str, int] | None = None
    #: The moment asked for is one of another database.
    restarted: bool = False


#: One run of a task: its id and attempt. An id alone says nothing about a run.
Run = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the runs in a write; of those that are not named everything was written."""

    #: Another worker's now.
    lost: frozenset[Run] = frozenset()
    #: Held by somebody's transaction: nothing was written, the same may pass later.
    busy: frozenset[Run] = frozenset()
    #: Refused for a reason that lies in what was sent, with that reason.
    refused: Mapping[Run, str] = field(default_factory=dict[Run, str])

    @classmethod
    def of(cls, answer: Mapping[str, Any], sent: Mapping[str, int]) -> Written:
        """Read an answer; `sent` is the attempt each id was sent with, one for each."""
        return cls(
            lost=frozenset(_run(row, sent) for row in answer.get("lost") or ()),
            busy=frozenset(_run(row, sent) for row in answer.get("busy") or ()),
            refused={
                _run(row, sent): str(row.get("reason") or "the database gives no reason")
                for row in answer.get("refused") or ()
            },
        )


def _run(row: Any, sent: Mapping[str, int]) -> Run:
    if isinstance(row, Mapping):
        named = cast("Mapping[str, Any]", row)
        id = str(named.get("id") or named.get("todolist_id"))
        attempt = named.get("attempt")
        return (id, sent[id] if attempt is None else int(attempt))
    return (str(row), sent[str(row)])


class TodoStore:
    """The tables and functions of `supabase/migrations`, typed.

    Every method raises the errors `store.translate` names. Methods that change state are safe to repeat.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        #: Rows that came back and could not be read, as (row, error); the worker logs them.
        self.unreadable: list[tuple[Mapping[str, Any], InvalidTaskError]] = []

    # -- what clients do -------------------------------------------------------------------------------------

    async def submit(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
        """Insert many tasks; returns ``(id, created)`` in input order."""
        answer = await self.connection.rpc("submit_todos", {"p_rows": list(rows)}, answers=list)
        return [(str(row["id"]), bool(row["created"])) for row in answer]

    async def get(self, id: str) -> Todo:
        """Read one row; raises TaskNotFoundError when it is not there, or not ours to see."""
        rows = await self.connection.select("todolist", filters=[("id", "eq", id)])
        if not rows:
            raise TaskNotFoundError(f"no task {id}, or it belongs to somebody else")
        return Todo.read(rows[0])

    async def events(self, id: str, after: int = 0, limit: int = 500) -> list[TodoEvent]:
        """Read a task's events with ``seq > after``, in order."""
        rows = await self.connection.select(
            "events",
            filters=[("todolist_id", "eq", id), ("seq", "gt", str(after))],
            order=[("seq", False)],
            limit=limit,
        )
        return [TodoEvent.read(row) for row in rows]

    async def all_events(self, id: str, after: int = 0) -> list[TodoEvent]:
        """Read all events of a task with ``seq > after``, in pages (max_rows caps one answer silently)."""
        found: list[TodoEvent] = []
        while True:
            page = await self.events(id, after=found[-1].seq or 0 if found else after)
            if not page:
                return found
            found.extend(page)

    async def list_tasks(
        self,
        *,
        status: str | None = None,
        agent_type: str | None = None,
        limit: int = 50,
        offset: int | None = None,
    ) -> list[Todo]:
        """Newest tasks first."""
        filters: list[Filter] = []
        if status is not None:
            filters.append(("agent_status", "eq", status))
        if agent_type is not None:
            filters.append(("agent_type", "eq", agent_type))
        rows = await self.connection.select(
            "todolist",
            filters=filters,
            order=[("created_at", True), ("id", True)],
            limit=limit,
            offset=offset,
        )
        return _read_all(rows)

    async def recent_events(self, limit: int = 10) -> list[TodoEvent]:
        """Newest events of all tasks first."""
        rows = await self.connection.select(
            "events", order=[("created_at", True), ("seq", True)], limit=limit
        )
        return [TodoEvent.read(row) for row in rows]

    async def tail(
        self,
        since: str | None = None,
        *,
        limit: int = 500,
        until: str | None = None,
        after: tuple[str, int] | None = None,
    ) -> TailPage:
        """Events of all tasks committed since a look before (its `until`); without one the newest.

        Parameters
        ----------
        until, after:
            For a further page of the same look: its `until`, and `last` of the page before.
        """
        task, seq = after or (None, None)
        answer = await self.connection.rpc(
            "tail_events",
            {
                "p_since": since,
                "p_limit": limit,
                "p_until": until,
                "p_after_task": task,
                "p_after_seq": seq,
            },
        )
        rows = cast("list[dict[str, Any]]", answer["events"])
        return TailPage(
            events=tuple(self._readable(rows)),
            until=str(answer["until"]),
            more=bool(answer["more"]) and bool(rows),
            last=(str(rows[-1]["todolist_id"]), int(rows[-1]["seq"])) if rows else None,
            restarted=bool(answer["restarted"]),
        )

    def _readable(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[TodoEvent]:
        for row in rows:
            try:
                yield TodoEvent.from_row(row)
            except InvalidTaskError as error:
                # Whoever watches everybody's events must not be blinded by one of them.
                logger.warning(
                    "event %s of task %s is not shown: %s", row.get("id"), row.get("todolist_id"), error
                )

    async def cancel(self, id: str, reason: str | None = None) -> Todo:
        """Cancel a task; a running one is told. Raises TaskNotFoundError, TaskConflictError."""
        return Todo.read(await self.connection.rpc("cancel_todo", {"p_id": id, "p_reason": reason}))

    async def retry(self, id: str) -> Todo:
        """Put a failed or cancelled task back. Raises TaskNotFoundError, TaskConflictError."""
        return Todo.read(await self.connection.rpc("retry_todo", {"p_id": id}))

    async def answer(self, id: str, message: Mapping[str, Any]) -> Todo:
        """Answer a waiting task with an A2A message. Raises TaskNotFoundError, TaskConflictError."""
        return Todo.read(await self.connection.rpc("answer_todo", {"p_id": id, "p_message": dict(message)}))

    async def steer(self, id: str, message: Mapping[str, Any]) -> int:
        """Store a message to a running task and wake its worker; what becomes of it is said after this seq.

        Raises TaskNotFoundError, TaskConflictError.
        """
        answer = await self.connection.rpc("steer_todo", {"p_id": id, "p_message": dict(message)})
        return int(answer["seq"])

    async def stats(self, agent_type: str | None = None) -> dict[str, Any]:
        """The monitor's figures, in one query."""
        return cast("dict[str, Any]", await self.connection.rpc("todo_stats", {"p_agent_type": agent_type}))

    async def list_running(self, limit: int) -> list[Todo]:
        """Tasks in progress, oldest start first."""
        rows = await self.connection.select(
            "todolist",
            filters=[("agent_status", "eq", "in_progress")],
            order=[("started_at", False), ("id", False)],
            limit=limit,
        )
        return _read_all(rows)

    async def timings(self, agent_type: str | None, window: float) -> dict[str, Any]:
        """Recent wait and run times, completions by minute, failures by cause, in one query."""
        arguments = {"p_agent_type": agent_type, "p_window_seconds": window}
        return cast("dict[str, Any]", await self.connection.rpc("todo_timings", arguments))

    async def workers(self) -> list[dict[str, Any]]:
        """Every registered worker, alive or not."""
        return cast("list[dict[str, Any]]", await self.connection.rpc("list_workers", {}, answers=list))

    async def set_worker_state(self, worker_id: str, state: str) -> dict[str, Any]:
        """Ask a worker to be ``running``, ``paused`` or ``draining``; it hears at once."""
        params = {"p_worker_id": worker_id, "p_state": state}
        return cast("dict[str, Any]", await self.connection.rpc("set_worker_state", params))

    async def schema_version(self) -> int:
        """Version of the migrations applied; raises SchemaMissingError when there are none."""
        return int(await self.connection.rpc("reactive_worker_schema_version", {}, answers=int))

    # -- what workers do -------------------------------------------------------------------------------------

    async def register(
        self,
        worker_id: str,
        *,
        name: str,
        agent_types: Sequence[str],
        concurrency: int,
        lease: float,
        info: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Make the worker known and give it a lease of `lease` seconds."""
        return cast(
            "dict[str, Any]",
            await self.connection.rpc(
                "register_worker",
                {
                    "p_worker_id": worker_id,
                    "p_name": name,
                    "p_agent_types": list(agent_types),
                    "p_concurrency": concurrency,
                    "p_lease_seconds": lease,
                    "p_info": dict(info),
                },
            ),
        )

    async def unregister(self, worker_id: str) -> None:
        """Remove the worker; whatever it still holds is released unharmed."""
        await self.connection.rpc("unregister_worker", {"p_worker_id": worker_id})

    async def sweep(
        self, worker_id: str, agent_types: Sequence[str], limit: int, fair_by: str | None = None
    ) -> SweepResult:
        """Put rows of expired workers back, then return the best due candidates: of all, or of each owner.

        Two calls, so that neither takes the other along: a row that cannot be put back hides nothing.
        """
        reclaimed = await self._reclaim(worker_id)
        arguments = {"p_worker_id": worker_id, "p_agent_types": list(agent_types), "p_limit": limit}
        if fair_by is not None:
            arguments["p_fair_by"] = fair_by
        answer = await self.connection.rpc("sweep_todos", arguments)
        candidates: list[Candidate] = []
        for row in answer["candidates"]:
            try:
                candidates.append(Candidate.from_row(row, "sweep"))
            except InvalidTaskError as error:
                logger.warning("a task cannot be offered, its row cannot be read: %s", error)
        due = answer["next_due_at"]
        return SweepResult(
            candidates=tuple(candidates),
            next_due_at=None if due is None else parse_time(due, "next_due_at"),
            reclaimed=reclaimed,
            now=parse_time(answer["now"], "now"),
            full=bool(answer["full"]),
        )

    async def _reclaim(self, worker_id: str) -> int:
        try:
            answer = await self.connection.rpc("reclaim_todos", {"p_worker_id": worker_id})
        except ReactiveWorkerError as error:
            logger.warning("what dead workers held could not be put back: %s", error)
            return 0
        for run in answer["refused"]:
            logger.warning(
                "task %s of a dead worker cannot be put back: %s", run["id"], redact(str(run["reason"]))
            )
        return int(answer["reclaimed"])

    async def claim(self, worker_id: str, ids: Sequence[str], want: int) -> ClaimResult:
        """Take up to `want` of `ids`, in order. Raises WorkerExpiredError when the lease has run out."""
        answer = await self.connection.rpc(
            "claim_todos", {"p_worker_id": worker_id, "p_ids": list(ids), "p_want": want}
        )
        claimed: list[Todo] = []
        for row in answer["claimed"]:
            try:
                claimed.append(Todo.read(row))
            except InvalidTaskError as error:
                self.unreadable.append((row, error))
        return ClaimResult(
            claimed=tuple(claimed),
            gone=tuple(str(id) for id in answer["gone"]),
            attempts=answer.get("attempts") or {},
            busy=tuple(str(id) for id in answer["busy"]) if "busy" in answer else None,
        )

    async def append(self, worker_id: str, events: Sequence[TodoEvent]) -> Written:
        """Store events of running tasks, of one attempt of each."""
        arguments = {"p_worker_id": worker_id, "p_events": [event_row(event) for event in events]}
        answer = await self.connection.rpc("append_events", arguments, needs=("lost",))
        return Written.of(answer, {event.todolist_id: event.attempt for event in events})

    async def finish(self, worker_id: str, results: Sequence[Mapping[str, Any]]) -> Written:
        """End runs, one of each task; safe to repeat: one that has ended already counts as written."""
        arguments = {"p_worker_id": worker_id, "p_results": list(results)}
        answer = await self.connection.rpc("finish_todos", arguments, needs=("results",))
        said: dict[str, list[Any]] = {"lost": [], "busy": [], "refused": []}
        for row in answer["results"]:
            if not isinstance(row, Mapping):
                raise unreadable(self.connection.url, "rpc finish_todos")
            result = cast("Mapping[str, Any]", row)
            what = str(result.get("result"))
            if what == "refused" and result.get("agent_status", "in_progress") != "in_progress":
                # Refused once too often: the database has put the row back and counted a failure.
                what = "lost"
            said.setdefault(what, []).append(result)
        sent = {str(result["todolist_id"]): int(result["attempt"]) for result in results}
        return Written.of(said, sent)

    async def release(self, worker_id: str, runs: Iterable[tuple[str, int]]) -> None:
        """Hand rows back unharmed: pending again, no failure counted."""
        items = [{"id": id, "attempt": attempt} for id, attempt in runs]
        await self.connection.rpc("release_todos", {"p_worker_id": worker_id, "p_items": items})

    async def read_steering(self, worker_id: str, runs: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
        """Messages to these runs that wait to be applied; of runs that are still this worker's."""
        items = [{"id": id, "attempt": attempt} for id, attempt in runs]
        answer = await self.connection.rpc("read_steering", {"p_worker_id": worker_id, "p_runs": items})
        return cast("list[dict[str, Any]]", answer["messages"])

    async def touch_probe(self, worker_id: str) -> str:
        """Write a probe of push into the mailbox; returns its `probe_at` as Realtime will render it."""
        answer = await self.connection.rpc("touch_probe", {"p_worker_id": worker_id})
        return str(answer["probe_at"])

    async def push_ways(self) -> tuple[bool, str]:
        """Whether the database sends broadcasts, and if not, why; False before their migration is applied."""
        try:
            answer = await self.connection.rpc("push_ways", {})
        except SchemaMissingError:
            return False, "the migration broadcast_push is not applied"
        return bool(answer["broadcast"]), str(answer["reason"] or "")
