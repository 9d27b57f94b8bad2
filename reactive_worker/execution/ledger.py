"""What a run writes: its events in order, and exactly one end."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from a2a.types import Message, TaskState, TaskStatusUpdateEvent

from reactive_worker.execution import wire
from reactive_worker.execution.conversation import ids_of
from reactive_worker.execution.fold import Fold
from reactive_worker.execution.outcome import failed, failed_output
from reactive_worker.execution.sanitise import MESSAGE_LIMIT, redact, shorten, storable
from reactive_worker.models import EventType, Outcome, Todo, TodoEvent


@dataclass(frozen=True, slots=True)
class Stopping:
    """A run is being stopped, while its last words still count."""

    kind: Literal["cancel", "timeout"]
    #: For a cancel, the reason given, if any; for a time-out, what was exceeded.
    text: str | None = None


class Ledger:
    """Records a run's events; once one with an outcome is recorded, nothing follows.

    Parameters
    ----------
    todo:
        The claimed row.
    fold:
        The task so far; grows with every event.
    record:
        Called with every event to store, in order.
    now:
        Wall clock.
    """

    def __init__(
        self, todo: Todo, fold: Fold, record: Callable[[TodoEvent], None], now: Callable[[], datetime]
    ) -> None:
        self.fold = fold
        self.now = now
        #: None until the run has ended; then it is final.
        self.outcome: Outcome | None = None
        self.stopping: Stopping | None = None
        #: Called before the last event is recorded: what has to stand before it is noted then.
        self.before_end: Callable[[Outcome], None] = lambda outcome: None
        self._todo = todo
        self._ids = ids_of(todo)
        self._record = record
        self._parked: TodoEvent | None = None
        self._parked_recorded = False

    # -- on the way ------------------------------------------------------------------------------------------

    def say(
        self,
        event_type: EventType,
        event: wire.Event,
        text: str | None,
        *,
        state: TaskState | None = None,
    ) -> None:
        """Fold and record an event that ends nothing. Raises EventRefusedError, InvalidAgentResponseError."""
        event, data = wire.encode(event)
        self.fold.apply(event)
        self.flush()
        self._record(self._event(event_type, data, text, state=state))
        if state is not None:
            self._parked = None

    def park(self, event_type: EventType, event: TaskStatusUpdateEvent) -> None:
        """Fold an interrupted status and hold it back until it is clear whether `execute()` returns now.

        A client that reads "input required" may answer at once, and must find the row parked: so the event is
        stored together with the row's new status, unless the executor goes on.
        """
        event, data = wire.encode(event)
        self.fold.apply(event)
        self.flush()
        self._parked_recorded = False
        text = wire.text_of(event.status.message.parts)
        self._parked = self._event(event_type, data, text, state=event.status.state)

    def note(self, event_type: EventType, data: Mapping[str, Any], text: str | None) -> None:
        """Record an event of the worker's own, which says nothing about the task's state."""
        if self.outcome is None:
            self._record(self._event(event_type, data, text, state=None))

    def flush(self) -> None:
        """Record a status that was held back: something came after it."""
        if self._parked is not None and not self._parked_recorded:
            self._parked_recorded = True
            self._record(_as_progress(self._parked))

    @property
    def parked(self) -> bool:
        """True while an interrupted status is the last one."""
        return self._parked is not None

    @property
    def waits_in_public(self) -> bool:
        """True while an AUTH_REQUIRED is held back that readers must see if `execute()` keeps running."""
        return (
            self.outcome is None
            and self._parked is not None
            and not self._parked_recorded
            and self._parked.event_type == EventType.AUTH_REQUIRED
        )

    # -- the end ---------------------------------------------------------------------------------------------

    def end_as_published(self, event: TaskStatusUpdateEvent) -> None:
        """The executor published a terminal state."""
        status = event.status
        if status.state == TaskState.TASK_STATE_COMPLETED:
            message = status.message if status.HasField("message") else None
            output = self.fold.output(message)
            self._end_with(event, "completed", EventType.COMPLETED, output=output)
        elif self.stopping is not None and self.stopping.kind == "timeout":
            status.state = TaskState.TASK_STATE_FAILED
            self._end_as_timed_out(event, self.stopping)
        elif self.stopping is not None or status.state == TaskState.TASK_STATE_CANCELED:
            # Executors often answer their cancellation with FAILED; whoever cancelled asked for this.
            status.state = TaskState.TASK_STATE_CANCELED
            self._end_as_cancelled(event)
        else:
            rejected = status.state == TaskState.TASK_STATE_REJECTED
            text = wire.text_of(status.message.parts) or "the agent gave no reason"
            error = {
                "type": "TaskRejected" if rejected else "TaskFailed",
                "message": shorten(redact(storable(text)), MESSAGE_LIMIT),
            }
            event_type = EventType.REJECTED if rejected else EventType.FAILED
            self._end_with_outcome(event, event_type, failed(error, self.fold, task_state=_name(event)))

    def end_as_returned(self) -> None:
        """`execute()` returned after an interrupted status, or without having said how it ended."""
        if self._parked is None:
            event = self.status(TaskState.TASK_STATE_COMPLETED, None)
            # Said by nobody, so marked: the executor returned while the task was still working.
            event.metadata.update({"reactive_worker": {"implied": True}})
            self.end_as_published(event)
            return
        parked = self._parked
        if self._parked_recorded:
            parked = replace(parked, id=str(uuid.uuid4()))
        self._parked_recorded = True
        self._end(parked, Outcome("input_required", task_state=parked.task_state))

    def end_as_reply(self, message: Message, data: Mapping[str, Any]) -> None:
        """The executor answered with one Message."""
        output = self.fold.output(message)
        self.fold.apply(message)
        state = TaskState.TASK_STATE_COMPLETED
        event = self._event(EventType.COMPLETED, data, wire.text_of(message.parts), state=state)
        self._end(event, Outcome("completed", output=output, task_state=event.task_state))

    def end_as_stopped(self, stopping: Stopping) -> None:
        """The run was cancelled or ran out of time."""
        if stopping.kind == "cancel":
            self._end_as_cancelled(self.status(TaskState.TASK_STATE_CANCELED, stopping.text))
        else:
            self._end_as_timed_out(self.status(TaskState.TASK_STATE_FAILED, stopping.text), stopping)

    def end_in_failure(self, outcome: Outcome) -> None:
        """`execute()` raised or broke the protocol; `outcome` is ``failed`` or ``retry`` and has an error."""
        error = dict(outcome.error or {})
        if outcome.kind == "failed":
            outcome = replace(outcome, output=failed_output(error, self.fold))
        kind, message = error.get("type", "error"), error.get("message")
        text = f"{kind}: {message}" if message and message != kind else str(kind)
        self._end_with_outcome(self.status(TaskState.TASK_STATE_FAILED, text), EventType.FAILED, outcome)

    def status(self, state: TaskState, text: str | None) -> TaskStatusUpdateEvent:
        """A status update of our own making."""
        return wire.status_event(*self._ids, state, text=text, now=self.now())

    def _end_as_cancelled(self, event: TaskStatusUpdateEvent) -> None:
        message = event.status.message if event.status.HasField("message") else None
        output = self.fold.output(message)
        # None keeps the column: nothing was produced that would be worth overwriting it.
        kept = output if output.get("artifacts") else None
        self._end_with(event, "cancelled", EventType.CANCELLED, output=kept)

    def _end_as_timed_out(self, event: TaskStatusUpdateEvent, stopping: Stopping) -> None:
        error = {"type": "timeout", "message": stopping.text or "execute() did not end in time"}
        self._end_with_outcome(event, EventType.FAILED, failed(error, self.fold))

    def _end_with(
        self,
        event: TaskStatusUpdateEvent,
        kind: Literal["completed", "cancelled"],
        event_type: EventType,
        *,
        output: Any,
    ) -> None:
        self._end_with_outcome(event, event_type, Outcome(kind, output=output, task_state=_name(event)))

    def _end_with_outcome(
        self, event: TaskStatusUpdateEvent, event_type: EventType, outcome: Outcome
    ) -> None:
        event, data = wire.encode(event)
        self.fold.apply(event)
        text = wire.text_of(event.status.message.parts)
        self._end(self._event(event_type, data, text, state=event.status.state), outcome)

    def _end(self, event: TodoEvent, outcome: Outcome) -> None:
        self.flush()
        self.before_end(outcome)
        self.outcome = outcome
        self._record(replace(event, outcome=outcome))

    def _event(
        self,
        event_type: EventType,
        data: Mapping[str, Any],
        text: str | None,
        *,
        state: TaskState | None,
    ) -> TodoEvent:
        task_id, context_id = self._ids
        return TodoEvent(
            todolist_id=self._todo.id,
            attempt=self._todo.attempt,
            event_type=event_type,
            event_data=data,
            # Protobuf lets NUL pass, PostgreSQL's text does not.
            message=None if text is None else text.replace("\0", "\ufffd"),
            context_id=context_id,
            task_id=task_id,
            task_state=None if state is None else wire.state_name(state),
        )


def _name(event: TaskStatusUpdateEvent) -> str:
    return wire.state_name(event.status.state)


def _as_progress(parked: TodoEvent) -> TodoEvent:
    """A question whose executor goes on: it cannot be answered, so it must not read as one that can.

    A login that is waited for is shown as what it is: it is done elsewhere, while the run goes on.
    """
    if parked.event_type != EventType.INPUT_REQUIRED:
        return parked
    working = wire.state_name(TaskState.TASK_STATE_WORKING)
    update = parked.event_data["statusUpdate"]
    data = {"statusUpdate": {**update, "status": {**update["status"], "state": working}}}
    return replace(parked, event_type=EventType.PROGRESS, event_data=data, task_state=working)
