"""What the database broadcasts to workers: on which topics, and what a message says. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")


def todolist_topic(agent_type: str) -> str:
    """The topic on which tasks of `agent_type` are told, as `reactive_worker_private.push_topic` makes it.

    Example
    -------
    >>> todolist_topic("crew-ai-dr")
    'reactive_worker:todolist:crew-ai-dr'
    """
    if _PLAIN.fullmatch(agent_type):
        return f"reactive_worker:todolist:{agent_type}"
    # A topic may have 255 bytes; an agent type has up to 100 characters of up to four bytes each.
    return f"reactive_worker:todolist_sha256:{hashlib.sha256(agent_type.encode()).hexdigest()}"


def mailbox_topic(worker_id: str) -> str:
    """The topic on which a worker hears its own mailbox."""
    return f"reactive_worker:mailbox:{worker_id}"


def topics(worker_id: str, agent_types: Iterable[str]) -> list[str]:
    """What a worker listens to by broadcast."""
    return [mailbox_topic(worker_id), *(todolist_topic(agent_type) for agent_type in sorted(agent_types))]


def hinted_rows(payload: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], int]:
    """The rows a `todos` message names, and how many more there are that it does not name.

    Parameters
    ----------
    payload:
        ``{"agent_type", "todos", "more", "at"}``; each of `todos` has ``{"id", "priority", "attempt",
        "available_at", "created_at"}`` and, if they are known, ``owner_id`` and ``context_id``.

    Returns
    -------
    Rows as `Candidate.from_row` reads them, and the number of the unnamed ones.

    Raises
    ------
    ValueError
        It is no such message.

    Example
    -------
    >>> hinted_rows({"agent_type": "echo", "todos": [{"id": "1"}], "more": 4})
    ([{'id': '1', 'agent_type': 'echo'}], 4)
    """
    agent_type, todos, more = payload.get("agent_type"), payload.get("todos"), payload.get("more", 0)
    if not isinstance(agent_type, str) or not isinstance(todos, list) or not isinstance(more, int):
        raise ValueError("not a message of reactive-worker: agent_type, todos or more is missing")
    rows: list[Mapping[str, Any]] = []
    for todo in cast("Iterable[Any]", todos):
        if not isinstance(todo, Mapping):
            raise ValueError(f"a hint must be an object, not {todo!r}")
        rows.append({**cast("Mapping[str, Any]", todo), "agent_type": agent_type})
    return rows, more
