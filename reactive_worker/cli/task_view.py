"""Tasks and their events as lines for people. Whatever a row holds, nothing here raises for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from reactive_worker.cli.console import Console
from reactive_worker.cli.ids import brief
from reactive_worker.cli.styled import Styled, status
from reactive_worker.cli.text import age, clock, duration, object_of, plain, short, text_of
from reactive_worker.columns import as_row

if TYPE_CHECKING:
    from reactive_worker.models import Todo, TodoEvent

STATUSES = ("pending", "in_progress", "input_required", "completed", "failed", "cancelled")

EVENT_STYLE = {
    "task_started": "blue",
    "task_completed": "green",
    "task_failed": "red",
    "task_rejected": "red",
    "task_lost": "red",
    "task_retrying": "yellow",
    "task_cancelled": "dim",
    "task_input_required": "magenta",
    "task_auth_required": "magenta",
    "message_received": "cyan",
    "steer_accepted": "cyan",
    "steer_applied": "cyan",
    "steer_refused": "red",
}

#: Columns of a fact's name, with the gap behind it.
_NAME = 12
#: Columns of what a line shows of a text where no terminal says how wide it is.
_LINE = 120


def todo_json(todo: Todo) -> dict[str, Any]:
    """The row as the table holds it."""
    return as_row(todo)


def say_tasks(console: Console, todos: Sequence[Todo]) -> None:
    """A table; in a terminal as much of each id as tells it from the others."""
    ids = brief([todo.id for todo in todos]) if console.is_terminal else {}
    console.table(
        ("id", "agent type", "status", "prio", "runs", "age", "prompt"),
        [
            (
                ids.get(todo.id, todo.id),
                short(todo.agent_type, 24),
                status(todo.agent_status),
                str(todo.priority),
                str(todo.attempt),
                age(todo.created_at),
                short(todo.prompt, console.columns(60)),
            )
            for todo in todos
        ],
        optional=("runs", "prio"),
    )


def say_facts(console: Console, todo: Todo) -> None:
    """What a task is, a line each."""
    ran = (
        (todo.completed_at - todo.started_at).total_seconds()
        if todo.completed_at is not None and todo.started_at is not None
        else None
    )
    room = console.columns(_LINE) - _NAME
    state = f"  ({todo.task_state})" if todo.task_state else ""
    facts: dict[str, Sequence[str | Styled]] = {
        "task": (todo.id,),
        "agent type": (short(todo.agent_type, room),),
        "status": (status(todo.agent_status), state),
        "prompt": (short(todo.prompt, room),),
        "input": (short(_as_json(todo.input_data), room) if todo.input_data is not None else "",),
        "priority": (str(todo.priority),),
        "submitted": (f"{todo.created_at.isoformat(timespec='seconds')}  ({age(todo.created_at)} ago)",),
        "ran": (duration(ran) if ran is not None else "",),
        "runs": (f"{todo.attempt}, of which failed: {todo.failures} (at most {todo.max_failures})",),
        "worker": (todo.worker_id or "",),
        "context": (short(todo.context_id or "", room),),
        "key": (short(todo.idempotency_key or "", room),),
    }
    for name, parts in facts.items():
        if any(part if isinstance(part, str) else part.text for part in parts):
            console.say(Styled("dim", name.ljust(_NAME)), *parts)


def say_events(console: Console, events: Iterable[TodoEvent], *, started: datetime | None = None) -> None:
    """A task's log, a line each; times count from `started` where it is given."""
    for event in events:
        say_event(console, event, started=started)


def say_event(
    console: Console, event: TodoEvent, *, started: datetime | None = None, with_task: bool = False
) -> None:
    """One event as one line: when, number, type, what was said."""
    if event.created_at is not None and started is not None:
        when = f"+{max(0.0, (event.created_at - started).total_seconds()):.2f} s"
    else:
        when = clock(event.created_at)
    task = f"{event.todolist_id[:8] if console.is_terminal else event.todolist_id}  " if with_task else ""
    kind = short(event.event_type, 20)
    head = f"{when:>12}  {task}{event.seq or 0:>4}  "
    room = max(8, console.columns(_LINE + len(task)) - len(head) - 22)
    said = short(event.message or "", room)
    console.say(
        head,
        Styled(EVENT_STYLE.get(event.event_type, "bold"), f"{kind:<20}" if said else kind),
        f"  {said}" if said else "",
    )


def say_result(console: Console, todo: Todo, *, traceback: bool = False) -> None:
    """Print what a task answered, asks or failed with.

    Parameters
    ----------
    traceback:
        Whether to show where an executor's exception came from, where that is known.
    """
    if todo.agent_status == "input_required":
        console.say()
        console.say(f"waits for an answer: reactive-worker answer {todo.id} TEXT")
    if todo.error:
        error = object_of(todo.error) or {"message": todo.error}
        console.say()
        trace = text_of(error, "traceback")
        if traceback and trace:
            console.say(Styled("dim", trace.rstrip()))
        kind = text_of(error, "type") or "error"
        console.say(Styled("red", f"{kind}: {text_of(error, 'message')}"))
    elif todo.agent_output is not None:
        console.say()
        text = text_of(todo.agent_output, "text")
        console.say(text or _as_json(todo.agent_output, indent=2))


def _as_json(value: Any, *, indent: int | None = None) -> str:
    # With indentation Python's own encoder works, which gives up earlier than the one in C.
    for chosen in (indent, None):
        try:
            return json.dumps(value, ensure_ascii=False, indent=chosen)
        except (RecursionError, ValueError):
            continue
    return plain(value)
