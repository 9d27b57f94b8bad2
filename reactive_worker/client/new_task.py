"""What a new task may look like: checked here, before a request is made, naming the field in every error.

PostgreSQL would refuse most of this too, but as one error for a whole batch, in words of SQL.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

from reactive_worker.errors import InvalidTaskError

_INT_MAX = 2**31 - 1
#: A century: longer is a mistake in units, and `now() + interval` must stay a timestamp.
_DELAY_MAX = 100 * 365 * 86_400.0
#: jsonb takes more, but A2A data parts and most JSON readers do not.
_DEPTH_MAX = 100
#: Python refuses to write integers beyond 4,300 digits; no reader wants them.
_INT_BITS_MAX = 4096


@dataclass(frozen=True, slots=True)
class NewTask:
    """One task for `TaskClient.submit_many`; the fields are those of `TaskClient.submit_task`.

    Example
    -------
    >>> NewTask("echo", "hello", priority=5).to_row()
    {'agent_type': 'echo', 'prompt': 'hello', 'priority': 5}
    """

    agent_type: str
    prompt: str
    input_data: Any = None
    #: Higher runs first.
    priority: int = 0
    #: Seconds (or a timedelta) until the task is due.
    delay: float | timedelta | None = None
    #: The moment the task is due; aware. Instead of `delay`.
    available_at: datetime | None = None
    #: The same key for the same agent type and owner is the same task: submitting again returns its id.
    idempotency_key: str | None = None
    #: A2A context (conversation) the task belongs to; default: its own.
    context_id: str | None = None
    #: Runs that may fail before the task is `failed`; the database's default is 3.
    max_failures: int | None = None
    #: Seconds one run may take.
    timeout: int | None = None
    #: Id of the row; default: made by the database. For back ends (the secret key) only.
    id: str | None = None
    #: For which user a back end submits it: they see it and its events, and its files are judged by them.
    #: A signed-in user's tasks are their own.
    owner_id: str | None = None

    @classmethod
    def of(cls, task: NewTask | Mapping[str, Any]) -> NewTask:
        """Accept a mapping with the same names; raises InvalidTaskError for unknown or missing ones."""
        if isinstance(task, NewTask):
            return task
        known = {spec.name for spec in fields(cls)}
        if unknown := sorted(str(name) for name in task if name not in known):
            raise InvalidTaskError(f"unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
        if missing := [name for name in ("agent_type", "prompt") if name not in task]:
            raise InvalidTaskError(f"{missing[0]} is missing")
        return cls(**task)

    def to_row(self) -> dict[str, Any]:
        """The row `submit_todos` takes; raises InvalidTaskError naming the field that is wrong."""
        row: dict[str, Any] = {
            "agent_type": text("agent_type", self.agent_type, longest=100, blank=False),
            "prompt": text("prompt", self.prompt),
            "input_data": None if self.input_data is None else plain_json("input_data", self.input_data),
            "priority": _integer("priority", self.priority, -_INT_MAX - 1),
        }
        if self.delay is not None and self.available_at is not None:
            raise InvalidTaskError("delay and available_at exclude each other")
        if self.delay is not None:
            row["delay_seconds"] = seconds("delay", self.delay)
        if self.available_at is not None:
            row["available_at"] = _moment("available_at", self.available_at)
        if self.idempotency_key is not None:
            # As the database has it: 255 characters of any script fit into an index entry.
            row["idempotency_key"] = text("idempotency_key", self.idempotency_key, longest=255, blank=False)
        if self.context_id is not None:
            row["context_id"] = text("context_id", self.context_id, longest=255, blank=False)
        if self.max_failures is not None:
            row["max_failures"] = _integer("max_failures", self.max_failures, 1)
        if self.timeout is not None:
            row["timeout_seconds"] = _integer("timeout", self.timeout, 1)
        if self.id is not None:
            row["id"] = task_id(self.id)
        if self.owner_id is not None:
            row["owner_id"] = _uuid("a user's id", self.owner_id)
        if row["input_data"] is None:
            del row["input_data"]
        return row


def task_id(value: object) -> str:
    """The id in its canonical form; raises InvalidTaskError when it cannot be a task's id."""
    return _uuid("a task id", value)


def _uuid(what: str, value: object) -> str:
    try:
        return str(value if isinstance(value, uuid.UUID) else uuid.UUID(str(value)))
    except ValueError:
        raise InvalidTaskError(f"not {what} (a uuid): {value!r}") from None


def text(name: str, value: object, *, longest: int | None = None, blank: bool = True) -> str:
    """Text PostgreSQL can store; raises InvalidTaskError."""
    if not isinstance(value, str):
        raise InvalidTaskError(f"{name} must be text, not {type(value).__name__}")
    if not blank and not value.strip():
        raise InvalidTaskError(f"{name} must not be empty")
    if longest is not None and len(value) > longest:
        raise InvalidTaskError(f"{name} is longer than {longest} characters ({len(value)})")
    if (at := value.find("\0")) >= 0:
        raise InvalidTaskError(f"{name} contains a NUL character at position {at}; PostgreSQL stores none")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidTaskError(
            f"{name} contains a lone surrogate (half a character) at position {error.start}; "
            "was it decoded with the wrong encoding?"
        ) from None
    return value


def seconds(name: str, value: object) -> float:
    """A duration; raises InvalidTaskError."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidTaskError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    # Compared before it is converted: a huge int does not fit a float.
    if not 0 <= value <= _DELAY_MAX:
        raise InvalidTaskError(f"{name} must be between 0 s and 100 years, not {_short(value)}")
    return float(value)


def plain_json(name: str, value: Any) -> Any:
    """A copy of `value` that JSON and jsonb can hold; raises InvalidTaskError naming the path in it.

    Dates become ISO text and UUIDs text, as supabase-py does; tuples become lists.
    """
    return _plain(name, value, 0)


def _plain(path: str, value: Any, depth: int) -> Any:
    if depth > _DEPTH_MAX:
        raise InvalidTaskError(f"{path.split('.', 1)[0].split('[', 1)[0]} is nested deeper than {_DEPTH_MAX}")
    match value:
        case None | bool():
            return value
        case str():
            return text(path, value)
        case int():
            if value.bit_length() > _INT_BITS_MAX:
                raise InvalidTaskError(f"{path} is an integer of {value.bit_length()} bits")
            return int(value)
        case float():
            if not math.isfinite(value):
                raise InvalidTaskError(f"{path} is {value}; JSON has no such number")
            return value
        case Mapping():
            return _plain_object(path, cast("Mapping[Any, Any]", value), depth)
        case list() | tuple():
            items = cast("list[Any] | tuple[Any, ...]", value)
            return [_plain(f"{path}[{index}]", item, depth + 1) for index, item in enumerate(items)]
        case datetime() | date():
            return value.isoformat()
        case uuid.UUID():
            return str(value)
        case _:
            raise InvalidTaskError(f"{path} is a {type(value).__name__}, which JSON cannot hold")


def _plain_object(path: str, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise InvalidTaskError(f"{path} has the key {key!r}; JSON keys are text")
        plain[text(f"a key of {path}", key)] = _plain(f"{path}.{key}", item, depth + 1)
    return plain


def _integer(name: str, value: object, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTaskError(f"{name} must be a whole number, not {_short(value)}")
    if not lowest <= value <= _INT_MAX:
        raise InvalidTaskError(f"{name} must be between {lowest} and {_INT_MAX}, not {_short(value)}")
    return value


def _moment(name: str, value: object) -> str:
    if not isinstance(value, datetime):
        raise InvalidTaskError(f"{name} must be a datetime, not {type(value).__name__}")
    if value.tzinfo is None:
        raise InvalidTaskError(f"{name} has no time zone; use datetime.now(UTC) or .astimezone()")
    return value.astimezone(UTC).isoformat()


def _short(value: object) -> str:
    # str() of an integer beyond 4,300 digits raises; repr of a big one is no help either.
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
