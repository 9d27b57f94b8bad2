"""Getting a task's history from the database, however long that takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from reactive_worker.backoff import Backoff
from reactive_worker.errors import SupabaseError
from reactive_worker.execution.conversation import Conversation, read_log
from reactive_worker.execution.sanitise import describe
from reactive_worker.models import Todo, TodoEvent

_logger = logging.getLogger(__name__)

LoadEvents = Callable[[str], Awaitable[Collection[TodoEvent]]]

# An unreachable database is waited for like this; claims back off the same way.
_RELOAD = Backoff(0.5, 10.0, jitter="full")


def has_history(todo: Todo) -> bool:
    """False when the log of a claimed row can hold nothing but its first `task_started`."""
    return todo.attempt > 1 or todo.seq > 1


async def history_of(todo: Todo, load_events: LoadEvents) -> Conversation:
    """Load and read a task's log; waits while the database cannot be reached.

    The row is ours for as long as the lease holds, so an outage is no failure of the task, and neither is a
    refusal that has nothing to do with it (a key that is being rotated, a schema that is being reloaded).
    Raises whatever else `load_events` raises.
    """
    tries = 0
    while True:
        try:
            return read_log(todo, await load_events(todo.id), for_run=True)
        except SupabaseError as error:
            if tries == 0:
                _logger.warning(
                    "task %s waits for its history: %s",
                    todo.id,
                    describe(error),
                    extra={"action": "history_waits", "todolist_id": todo.id, "attempt": todo.attempt},
                )
            tries += 1
            await asyncio.sleep(_RELOAD.delay(tries))
