"""Typed rows: what the tables hold, as frozen values without I/O."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, cast

from reactive_worker.columns import (
    FlawedRow,
    int_in,
    optional_int_in,
    optional_text_in,
    optional_time_in,
    parse_time,
    shown,
    text_in,
    uuid_in,
)
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
        """True when nothing runs any more, unless somebody retries it."""
        return self in TERMINAL_STATUSES


#: How a task can end: the one list of them, for whatever waits, follows or counts.
TERMINAL_STATUSES = frozenset({TodoStatus.COMPLETED, TodoStatus.FAILED, TodoStatus.CANCELLED})


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


#: The events that announce such an end.
TERMINAL_EVENTS = frozenset({EventType.COMPLETED, EventType.FAILED, EventType.REJECTED, EventType.CANCELLED})

#: Levels of lists and objects in `input_data` and in an answer's data: what protobuf, which A2A is made of,
#: is sure to hold wherever it stands. Deeper ones fail their run.
MOST_LEVELS = 30

#: How one run of a task ended, as `finish_todos` takes it.
OutcomeKind = Literal["completed", "failed", "cancelled", "input_required", "retry"]

Source = Literal["realtime", "sweep"]


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
            id=uuid_in(row, "id"),
            agent_type=text_in(row, "agent_type"),
            priority=int_in(row, "priority", 0),
            attempt=int_in(row, "attempt", 0),
            available_at=parse_time(available, "available_at"),
            created_at=parse_time(created or available, "created_at"),
            owner_id=optional_text_in(row, "owner_id"),
            context_id=optional_text_in(row, "context_id"),
            source=source,
        )


@dataclass(frozen=True, slots=True)
class Todo:
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
    #: Why a part of the row cannot be read; that part is missing here. None: everything could be.
    unreadable: str | None = None
    #: The row as it came, with columns we do not know (a user's own) included.
    row: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)

    @property
    def is_finished(self) -> bool:
        return self.agent_status.is_terminal

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Todo:
        """Read a row as PostgREST renders it; raises InvalidTaskError."""
        _whole(row)
        try:
            status = TodoStatus(text_in(row, "agent_status"))
        except ValueError as error:
            raise InvalidTaskError(f"unknown agent_status {shown(row.get('agent_status'))}") from error
        created = parse_time(row.get("created_at"), "created_at")
        return cls(
            id=uuid_in(row, "id"),
            agent_type=text_in(row, "agent_type"),
            prompt=text_in(row, "prompt"),
            input_data=row.get("input_data"),
            agent_status=status,
            agent_output=row.get("agent_output"),
            priority=int_in(row, "priority", 0),
            created_at=created,
            updated_at=optional_time_in(row, "updated_at"),
            started_at=optional_time_in(row, "started_at"),
            completed_at=optional_time_in(row, "completed_at"),
            available_at=optional_time_in(row, "available_at") or created,
            attempt=int_in(row, "attempt", 0),
            failures=int_in(row, "failures", 0),
            max_failures=int_in(row, "max_failures", 3),
            timeout_seconds=optional_int_in(row, "timeout_seconds"),
            worker_id=optional_text_in(row, "worker_id"),
            cancel_requested_at=optional_time_in(row, "cancel_requested_at"),
            context_id=optional_text_in(row, "context_id"),
            task_state=optional_text_in(row, "task_state"),
            idempotency_key=optional_text_in(row, "idempotency_key"),
            owner_id=optional_text_in(row, "owner_id"),
            error=row.get("error"),
            seq=int_in(row, "seq", 0),
            row=dict(row),
        )

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Todo:
        """Read as much of a row as can be read; what cannot is missing, and `unreadable` says why.

        So that one odd column harms its own task only, and that task can be failed, shown and cancelled.
        Raises InvalidTaskError when not even id, status and attempt can be read.
        """
        try:
            return cls.from_row(row)
        except InvalidTaskError as error:
            reason = str(error)
        flaws = row.flaws if isinstance(row, FlawedRow) else {}
        required = {name: row.get(name) for name in ("id", "agent_status", "attempt")}
        good: dict[str, Any] = {"prompt": "", "agent_type": "", "created_at": "-infinity", **required}
        cls.from_row(good)
        for name, value in row.items():
            if name in flaws:
                continue
            try:
                cls.from_row({**good, name: value})
            except InvalidTaskError:
                continue
            good[name] = value
        return replace(cls.from_row(good), unreadable=reason)


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
class TodoEvent:
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
    #: Why `event_data` cannot be read (it is empty then); None: it could be.
    unreadable: str | None = field(default=None, compare=False)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> TodoEvent:
        """Read a row of `events` as PostgREST or Realtime renders it; raises InvalidTaskError."""
        _whole(row)
        data = row.get("event_data")
        if not isinstance(data, Mapping):
            raise InvalidTaskError(f"event_data is no object: {shown(data)}")
        return cls(
            todolist_id=uuid_in(row, "todolist_id"),
            attempt=int_in(row, "attempt", 0),
            event_type=text_in(row, "event_type"),
            event_data=cast("Mapping[str, Any]", data),
            message=optional_text_in(row, "message"),
            context_id=optional_text_in(row, "context_id"),
            task_id=optional_text_in(row, "task_id"),
            id=uuid_in(row, "id"),
            seq=int_in(row, "seq", 0),
            created_at=optional_time_in(row, "created_at"),
            worker_id=optional_text_in(row, "worker_id"),
        )

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> TodoEvent:
        """Read an event whose data may be unreadable: then it keeps its place without them.

        `unreadable` says why. Raises InvalidTaskError when the other columns cannot be read either.
        """
        try:
            return cls.from_row(row)
        except InvalidTaskError as error:
            reason = str(error)
        return replace(cls.from_row({**row, "event_data": {}}), unreadable=reason)


def _whole(row: Mapping[str, Any]) -> None:
    if isinstance(row, FlawedRow):
        raise InvalidTaskError(row.reason)


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
    #: Ids somebody else has locked; None from a claim that does not say.
    busy: tuple[str, ...] | None = None


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
