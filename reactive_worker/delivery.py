"""From a batch of events to calls of the store: progress is appended, ends are finished, in one order."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from reactive_worker import streams
from reactive_worker.models import EventType, Outcome, TodoEvent
from reactive_worker.store.store import TodoStore, event_row

#: Seconds until a retry when the outcome names no delay of its own.
DEFAULT_RETRY = 1.0


class Delivery:
    """Stores what one worker's executors said."""

    def __init__(self, store: TodoStore, worker_id: str) -> None:
        self._store = store
        self._worker_id = worker_id

    async def store_batch(self, batch: Sequence[TodoEvent]) -> streams.BatchResult:
        """Store a numbered batch; safe to repeat, for every event has its own id.

        A task that ends in this batch sends all its events of the batch with its end: one transaction, so
        that log and status cannot disagree.
        """
        runs: dict[tuple[str, int], list[TodoEvent]] = {}
        for event in batch:
            runs.setdefault((event.todolist_id, event.attempt), []).append(event)
        progress: list[TodoEvent] = []
        ends: list[dict[str, Any]] = []
        for events in runs.values():
            outcome = events[-1].outcome
            if outcome is None:
                progress.extend(events)
            else:
                ends.append(finish_row(events, outcome))
        lost: set[str] = set()
        if progress:
            lost |= await self._store.append(self._worker_id, progress)
        if ends:
            answer = await self._store.finish(self._worker_id, ends)
            lost |= {id for id, result, _ in answer if result == "lost"}
        return streams.BatchResult(lost=frozenset(lost))

    async def refuse(self, row: Mapping[str, Any], error: BaseException) -> None:
        """Fail a claimed row that cannot be read, so that it does not come back for ever."""
        event = TodoEvent(
            todolist_id=str(row["id"]),
            attempt=int(row["attempt"]),
            event_type=EventType.FAILED,
            event_data=failed_update(str(row["id"]), row.get("context_id"), str(error)),
            message=str(error),
            seq=int(row.get("seq") or 0) + 1,
            outcome=Outcome(
                "failed",
                error={"type": type(error).__name__, "message": str(error)},
                task_state="TASK_STATE_FAILED",
            ),
        )
        await self.store_batch([event])

    @staticmethod
    def unstorable(event: TodoEvent, error: BaseException) -> TodoEvent:
        """What ends a task whose own end the database refuses: failed, with the cause."""
        message = f"the result could not be stored: {error}"
        return replace(
            event,
            id=str(uuid.uuid4()),
            seq=None,
            event_type=EventType.FAILED,
            event_data=failed_update(event.todolist_id, event.context_id, message),
            message=message,
            task_state="TASK_STATE_FAILED",
            outcome=Outcome(
                "failed",
                error={"type": "UnstorableResult", "message": message},
                task_state="TASK_STATE_FAILED",
            ),
        )


def failed_update(task_id: str, context_id: object, message: str) -> dict[str, Any]:
    """A2A StreamResponse JSON of a FAILED status update."""
    return {
        "statusUpdate": {
            "taskId": task_id,
            "contextId": str(context_id or task_id),
            "status": {
                "state": "TASK_STATE_FAILED",
                "message": {
                    "messageId": str(uuid.uuid4()),
                    "role": "ROLE_AGENT",
                    "parts": [{"text": message}],
                },
            },
        }
    }


def finish_row(events: Sequence[TodoEvent], outcome: Outcome) -> dict[str, Any]:
    """The JSON `finish_todos` takes for one ended run; the last event announces its end."""
    row: dict[str, Any] = {
        "todolist_id": events[-1].todolist_id,
        "attempt": events[-1].attempt,
        "kind": outcome.kind,
        "output": outcome.output,
        "error": None if outcome.error is None else dict(outcome.error),
        "task_state": outcome.task_state,
        "events": [event_row(event) for event in events],
    }
    if outcome.kind == "retry":
        row["retry_after_seconds"] = DEFAULT_RETRY if outcome.retry_after is None else outcome.retry_after
        row["counts_as_failure"] = outcome.counts_as_failure
    return row
