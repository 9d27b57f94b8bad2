"""From a batch of events to calls of the store: progress is appended, ends are finished, in one order."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from a2a.types import TaskState

from reactive_worker import streams
from reactive_worker.artifacts.offload import Artifacts
from reactive_worker.errors import DataRefusedError, ReactiveWorkerError, UnreachableError
from reactive_worker.execution import wire
from reactive_worker.models import EventType, Outcome, TodoEvent
from reactive_worker.store.store import Run, TodoStore, Written, event_row
from reactive_worker.worker.spool import Spool

logger = logging.getLogger(__name__)

# What surrounds the content of an event in a request, and each value in it: names, quotes, commas.
_OVERHEAD, _PUNCTUATION = 400, 4

#: Bytes that every server takes: a 413 to less than that is weather, from something in between.
NEVER_TOO_LARGE = 64 * 1024

#: `error.type` of a task whose own end was refused.
UNSTORABLE = "UnstorableResult"

#: Seconds until a retry when the outcome names no delay of its own.
DEFAULT_RETRY = 1.0


class Delivery:
    """Stores what one worker's executors said.

    Parameters
    ----------
    store, worker_id:
        Where to, and as whom.
    spool:
        Takes what cannot be delivered once `give_up` was called; None: it stays undelivered.
    artifacts:
        Takes what is too large for a row; None: everything goes into the row.
    """

    def __init__(
        self,
        store: TodoStore,
        worker_id: str,
        spool: Spool | None = None,
        artifacts: Artifacts | None = None,
    ) -> None:
        self._artifacts = artifacts
        self._store = store
        self._worker_id = worker_id
        self._spool = spool
        self._given_up = asyncio.Event()

    @property
    def has_given_up(self) -> bool:
        """True once `give_up` was called and there is a spool."""
        return self._given_up.is_set()

    def give_up(self) -> bool:
        """Send everything to the spool from now on, what is under way included; False when there is none."""
        if self._spool is None:
            return False
        self._given_up.set()
        return True

    async def deliver_spooled(self) -> None:
        """Deliver what an earlier worker had to keep; the fence decides what still counts.

        Raises
        ------
        UnreachableError
            The database is away; the files stay for the next start.
        """
        for path, worker_id, events in [] if self._spool is None else self._spool.batches():
            earlier = Delivery(self._store, worker_id, artifacts=self._artifacts)
            try:
                result = await earlier.store_batch(events)
                for reason in (*result.busy.values(), *result.refused.values()):
                    raise reason
            except UnreachableError:
                raise
            except ReactiveWorkerError as error:
                logger.error("spooled file %s was refused and stays where it is: %s", path, error)
                continue
            # Several workers may share a spool and start together; delivering twice is harmless.
            path.unlink(missing_ok=True)
            lost = f", {len(result.lost)} task(s) had gone to others" if result.lost else ""
            logger.info("delivered %d spooled event(s)%s", len(events), lost)

    async def store_batch(self, batch: Sequence[TodoEvent]) -> streams.BatchResult:
        """Store a numbered batch, in the database or, once given up, in the spool."""
        if self._spool is None:
            return await self._deliver(batch)
        delivery = asyncio.ensure_future(self._deliver(batch))
        given_up = asyncio.ensure_future(self._given_up.wait())
        try:
            await asyncio.wait([delivery, given_up], return_when=asyncio.FIRST_COMPLETED)
            if delivery.done() and not (given_up.done() and delivery.exception()):
                return delivery.result()
            path = self._spool.write(self._worker_id, batch)
            logger.warning("%d event(s) could not be delivered and are kept in %s", len(batch), path)
            return streams.BatchResult()
        finally:
            given_up.cancel()
            delivery.cancel()

    async def _deliver(self, batch: Sequence[TodoEvent]) -> streams.BatchResult:
        """Store a numbered batch; safe to repeat, for every event has its own id.

        A task that ends in this batch sends all its events of the batch with its end: one transaction, so
        that log and status cannot disagree.
        """
        if self._artifacts is not None:
            batch = await self._artifacts.offload(batch)
        try:
            return await self._write(batch)
        except DataRefusedError as error:
            if error.code == "413" and sum(event_size(event) for event in batch) <= NEVER_TOO_LARGE:
                raise UnreachableError(f"not too large, whatever the answer says: {error}") from error
            raise

    async def _write(self, batch: Sequence[TodoEvent]) -> streams.BatchResult:
        lost: set[Run] = set()
        busy: set[Run] = set()
        refused: dict[Run, str] = {}
        for runs in _rounds(batch):
            progress: list[TodoEvent] = []
            ends: list[dict[str, Any]] = []
            for events in runs:
                outcome = events[-1].outcome
                if outcome is None:
                    progress.extend(events)
                else:
                    ends.append(finish_row(events, outcome))
            written: list[Written] = []
            if progress:
                written.append(await self._store.append(self._worker_id, progress))
            if ends:
                written.append(await self._store.finish(self._worker_id, ends))
            for each in written:
                lost |= each.lost
                busy |= each.busy
                refused.update(each.refused)
        return streams.BatchResult(
            lost=frozenset(lost),
            busy={
                run: UnreachableError(f"task {run[0]} is locked by somebody's transaction") for run in busy
            },
            refused={run: DataRefusedError(reason) for run, reason in refused.items()},
        )

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
        result = await self.store_batch([event])
        for reason in (*result.busy.values(), *result.refused.values()):
            raise reason

    @staticmethod
    def is_unstorable(event: TodoEvent) -> bool:
        """True for what `unstorable` gives: an end that stands for one that was refused."""
        error = None if event.outcome is None else event.outcome.error
        return error is not None and error.get("type") == UNSTORABLE

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
                error={"type": UNSTORABLE, "message": message},
                task_state="TASK_STATE_FAILED",
            ),
        )


def _rounds(batch: Sequence[TodoEvent]) -> list[list[list[TodoEvent]]]:
    """The events of each run, in calls that hold one attempt of a task each.

    The database answers by task: asked about two attempts at once, it could not say which of them is lost.
    """
    runs: dict[Run, list[TodoEvent]] = {}
    for event in batch:
        runs.setdefault((event.todolist_id, event.attempt), []).append(event)
    rounds: list[list[list[TodoEvent]]] = []
    seen: Counter[str] = Counter()
    for (id, _), events in runs.items():
        if seen[id] == len(rounds):
            rounds.append([])
        rounds[seen[id]].append(events)
        seen[id] += 1
    return rounds


def event_size(event: TodoEvent) -> int:
    """About how many bytes an event is in a request, and in memory; never raises, however deep it is."""
    total = _OVERHEAD + len(event.message or "")
    left: list[Any] = [event.event_data]
    if event.outcome is not None:
        left += (event.outcome.output, event.outcome.error)
    while left:
        value = left.pop()
        if isinstance(value, str):
            total += len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        elif isinstance(value, Mapping):
            for key, item in cast("Mapping[str, Any]", value).items():
                total += len(key)
                left.append(item)
        elif isinstance(value, list | tuple):
            left.extend(cast("Sequence[Any]", value))
        total += _PUNCTUATION
    return total


def failed_update(task_id: str, context_id: object, message: str) -> dict[str, Any]:
    """A2A StreamResponse JSON of a FAILED status update."""
    event = wire.status_event(
        task_id,
        str(context_id or task_id),
        TaskState.TASK_STATE_FAILED,
        text=message,
        now=datetime.now(UTC),
    )
    return wire.encode(event)[1]


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
