"""Typed rows: what the tables hold, as frozen values without I/O."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, cast

from reactive_worker.columns import Columns
from reactive_worker.errors import InvalidTaskError


class TodoStatus(StrEnum):
    """`todolist.agent_status`."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in (TodoStatus.COMPLETED, TodoStatus.FAILED, TodoStatus.CANCELLED)


class EventType(StrEnum):
    """`events.event_type`: what we write ourselves; executors add none of their own."""

    STARTED = "task_started"
    PROGRESS = "task_progress"
    ARTIFACT = "task_artifact"
    INPUT_REQUIRED = "task_input_required"
    AUTH_REQUIRED = "task_auth_required"
    COMPLETED = "task_completed"
    FAILED = "task_failed"
    REJECTED = "task_rejected"
    CANCELLED = "task_cancelled"
    RETRYING = "task_retrying"
    RETRIED = "task_retried"
    RELEASED = "task_released"
    LOST = "task_lost"
    MESSAGE_RECEIVED = "message_received"
    STEER_ACCEPTED = "steer_accepted"
    STEER_APPLIED = "steer_applied"
    STEER_REFUSED = "steer_refused"


#: How one run of a task ended, as `finish_todos` takes it.
OutcomeKind = Literal["completed", "failed", "cancelled", "input_required", "retry"]

Source = Literal["realtime", "sweep"]


def parse_time(value: object, what: str) -> datetime:
    """Read a timestamp as PostgREST and Realtime render it; raises InvalidTaskError."""
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, str):
        # PostgreSQL knows 4713 BC to the year 294276, Python's years are 1 to 9999.
        if value == "-infinity" or value.endswith(" BC"):
            moment = datetime.min
        elif value == "infinity" or value.find("-") > 4:
            moment = datetime.max
        else:
            try:
                moment = datetime.fromisoformat(value)
            except ValueError as error:
                raise InvalidTaskError(f"{what} is not a timestamp: {value!r}") from error
    else:
        raise InvalidTaskError(f"{what} is not a timestamp: {value!r}")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _uuid(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    try:
        return str(uuid.UUID(str(value)))
    except ValueError as error:
        raise InvalidTaskError(f"{key} is not a uuid: {value!r}") from error


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise InvalidTaskError(f"{key} is missing or no text: {value!r}")
    return value


def _int(row: Mapping[str, Any], key: str, default: int) -> int:
    value = row.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTaskError(f"{key} is no integer: {value!r}")
    return value


def _optional_text(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    return None if value is None else str(value)


def _optional_time(row: Mapping[str, Any], key: str) -> datetime | None:
    value = row.get(key)
    return None if value is None else parse_time(value, key)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An unclaimed row somebody told us about: a hint, never a right to run it."""

    id: str
    agent_type: str
    priority: int
    attempt: int
    available_at: datetime
    created_at: datetime
    owner_id: str | None = None
    context_id: str | None = None
    source: Source = field(default="sweep", compare=False)

    @property
    def key(self) -> tuple[str, int]:
        """What `dedupe` compares: the same row offered again after a run is a new candidate."""
        return (self.id, self.attempt)

    @classmethod
    def from_row(cls, row: Mapping[str, Any], source: Source = "sweep") -> Candidate:
        """Read a row of `sweep_todos` or a Realtime record; raises InvalidTaskError."""
        created = row.get("created_at")
        available = row.get("available_at") or created
        return cls(
            id=_uuid(row, "id"),
            agent_type=_text(row, "agent_type"),
            priority=_int(row, "priority", 0),
            attempt=_int(row, "attempt", 0),
            available_at=parse_time(available, "available_at"),
            created_at=parse_time(created or available, "created_at"),
            owner_id=_optional_text(row, "owner_id"),
            context_id=_optional_text(row, "context_id"),
            source=source,
        )


@dataclass(frozen=True, slots=True)
class Todo(Columns):
    """A whole row of `todolist`. `seq` is the last event number written for it when it was claimed."""

    id: str
    agent_type: str
    prompt: str
    input_data: Any
    agent_status: TodoStatus
    agent_output: Any
    priority: int
    created_at: datetime
    updated_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    available_at: datetime
    attempt: int
    failures: int
    max_failures: int
    timeout_seconds: int | None
    worker_id: str | None
    cancel_requested_at: datetime | None
    context_id: str | None
    task_state: str | None
    idempotency_key: str | None
    owner_id: str | None
    error: Any
    seq: int = 0
    #: The row as it came, with columns we do not know (a user's own) included.
    row: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)

    @property
    def is_finished(self) -> bool:
        return self.agent_status.is_terminal

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Todo:
        """Read a row as PostgREST renders it; raises InvalidTaskError."""
        try:
            status = TodoStatus(_text(row, "agent_status"))
        except ValueError as error:
            raise InvalidTaskError(f"unknown agent_status {row.get('agent_status')!r}") from error
        timeout = row.get("timeout_seconds")
        created = parse_time(row.get("created_at"), "created_at")
        return cls(
            id=_uuid(row, "id"),
            agent_type=_text(row, "agent_type"),
            prompt=_text(row, "prompt"),
            input_data=row.get("input_data"),
            agent_status=status,
            agent_output=row.get("agent_output"),
            priority=_int(row, "priority", 0),
            created_at=created,
            updated_at=_optional_time(row, "updated_at"),
            started_at=_optional_time(row, "started_at"),
            completed_at=_optional_time(row, "completed_at"),
            available_at=_optional_time(row, "available_at") or created,
            attempt=_int(row, "attempt", 0),
            failures=_int(row, "failures", 0),
            max_failures=_int(row, "max_failures", 3),
            timeout_seconds=None if timeout is None else int(timeout),
            worker_id=_optional_text(row, "worker_id"),
            cancel_requested_at=_optional_time(row, "cancel_requested_at"),
            context_id=_optional_text(row, "context_id"),
            task_state=_optional_text(row, "task_state"),
            idempotency_key=_optional_text(row, "idempotency_key"),
            owner_id=_optional_text(row, "owner_id"),
            error=row.get("error"),
            seq=_int(row, "seq", 0),
            row=dict(row),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run ended: what `finish_todos` is told."""

    kind: OutcomeKind
    #: New `agent_output`; None leaves the column as it is.
    output: Any = None
    #: New `error`: ``{"type", "message", "traceback"?}``; None clears it.
    error: Mapping[str, Any] | None = None
    #: Exact A2A state name, for example ``TASK_STATE_COMPLETED``.
    task_state: str | None = None
    #: Seconds until a retry is due; None lets the worker's backoff decide. Only with kind ``retry``.
    retry_after: float | None = None
    #: False when a retry must not use up the budget. Only with kind ``retry``.
    counts_as_failure: bool = True


@dataclass(frozen=True, slots=True)
class TodoEvent(Columns):
    """One row of `events`. The sink numbers it (`seq`) just before it is stored.

    The last event of a run carries `outcome`: it is stored by `finish_todos` in the same transaction as the
    status it announces. Every other event has `outcome` None and goes through `append_events`.
    """

    todolist_id: str
    attempt: int
    event_type: str
    event_data: Mapping[str, Any]
    message: str | None = None
    context_id: str | None = None
    task_id: str | None = None
    task_state: str | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    seq: int | None = None
    created_at: datetime | None = None
    worker_id: str | None = None
    outcome: Outcome | None = field(default=None, compare=False)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> TodoEvent:
        """Read a row of `events` as PostgREST or Realtime renders it; raises InvalidTaskError."""
        data = row.get("event_data")
        if not isinstance(data, Mapping):
            raise InvalidTaskError(f"event_data is no object: {data!r}")
        return cls(
            todolist_id=_uuid(row, "todolist_id"),
            attempt=_int(row, "attempt", 0),
            event_type=_text(row, "event_type"),
            event_data=cast("Mapping[str, Any]", data),
            message=_optional_text(row, "message"),
            context_id=_optional_text(row, "context_id"),
            task_id=_optional_text(row, "task_id"),
            id=_uuid(row, "id"),
            seq=_int(row, "seq", 0),
            created_at=_optional_time(row, "created_at"),
            worker_id=_optional_text(row, "worker_id"),
        )


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What `sweep_todos` found."""

    candidates: tuple[Candidate, ...]
    #: When the next pending row falls due, database time; None when there is none.
    next_due_at: datetime | None
    #: Rows of expired workers put back by this sweep.
    reclaimed: int
    #: Database time of the sweep.
    now: datetime
    #: True when `limit` rows came back: there may be more.
    full: bool = False


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """What `claim_todos` gave us."""

    claimed: tuple[Todo, ...]
    #: Ids that are no longer pending: nobody needs to offer them again.
    gone: tuple[str, ...]
    #: The attempt each of those is at, None for a row that is not there.
    attempts: Mapping[str, int | None] = field(default_factory=dict[str, "int | None"])


@dataclass(frozen=True, slots=True)
class Demand:
    """How many rows `dispatch` can take now, overall and per agent type (absent = no limit of its own)."""

    total: int
    per_type: Mapping[str, int] = field(default_factory=dict[str, int])


class PushState(StrEnum):
    """Whether Realtime truly tells this worker about new rows."""

    #: No subscription yet, or it is being rebuilt.
    CONNECTING = "connecting"
    #: A probe written by this worker came back through Realtime.
    HEALTHY = "healthy"
    #: The socket looks alive, yet the probe was not heard.
    DEAF = "deaf"
    #: Switched off by the user.
    OFF = "off"


@dataclass(frozen=True, slots=True)
class PushHealth:
    """State of the push channel, since when, and why."""

    state: PushState
    since: datetime
    detail: str = ""
    #: How rows are told while it is healthy: ``broadcast``, ``changes`` or ``both``; empty otherwise.
    mode: str = ""
