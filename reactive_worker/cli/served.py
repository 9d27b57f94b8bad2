"""Whether anybody runs tasks of an agent type: a typing error in its name is said at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from reactive_worker.errors import ReactiveWorkerError

if TYPE_CHECKING:
    from reactive_worker.store.store import TodoStore


async def unserved(store: TodoStore, agent_types: Iterable[str]) -> list[str]:
    """A line for each of these types that no living worker serves."""
    try:
        workers = await store.workers()
    except ReactiveWorkerError:
        return []  # a user may not look at workers; the task is submitted all the same
    served = served_types(workers)
    return [_line(agent_type, served) for agent_type in sorted(agent_types) if agent_type not in served]


def served_types(workers: Iterable[dict[str, Any]]) -> set[str]:
    """The agent types that living workers serve."""
    return {str(name) for worker in workers if worker["alive"] for name in worker["agent_types"] or ()}


def _line(agent_type: str, served: set[str]) -> str:
    said = f"no worker serves {agent_type!r} now"
    if not served:
        return f"{said}: none is alive. The task waits until one is"
    near = difflib.get_close_matches(agent_type, served, 1, cutoff=0.0)[0]
    return f"{said}; the nearest that is served: {near!r}. The task waits until one does"
