"""One run of a task as a state machine: what an executor may say next, and how it ends.

::

    fresh ──Message──▶ reply ──return──▶ completed
      │                  └──anything──▶ failed (protocol)
      └──update──▶ task ──COMPLETED, FAILED, REJECTED, CANCELED──▶ done, final
                    │ ▲
                    ▼ └──any later update
                  parked ──return──▶ input_required

Synchronous and without locks: the queue around it has them. Events leave through `record`, in order; exactly
one of them carries an outcome, and it is the last.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from a2a.types import (
    Message,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatusUpdateEvent,
)
from a2a.utils.errors import A2AError, InvalidAgentResponseError, InvalidParamsError
from google.protobuf import message as protobuf

from reactive_worker.errors import EventRefusedError, EventTooLargeError
from reactive_worker.execution import wire
from reactive_worker.execution.conversation import Conversation, ids_of
from reactive_worker.execution.outcome import failed, failed_output
from reactive_worker.execution.sanitise import MESSAGE_LIMIT, error_record, redact, shorten, storable
from reactive_worker.models import EventType, Outcome, Todo, TodoEvent

_logger = logging.getLogger(__name__)

_STATES = frozenset(TaskState.values()) - {TaskState.TASK_STATE_UNSPECIFIED}
_PARKED_TYPE = {
    TaskState.TASK_STATE_INPUT_REQUIRED: EventType.INPUT_REQUIRED,
    TaskState.TASK_STATE_AUTH_REQUIRED: EventType.AUTH_REQUIRED,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one run may say, in bytes as protobuf counts them (about those of the text)."""

    #: One event. Larger results belong in Storage, as `url` parts.
    event_bytes: int = 1024 * 1024
    #: All artifacts of a run together: they are held in memory and written once more as `agent_output`.
    output_bytes: int = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stopping:
    """A run is being stopped, while its last words still count."""

    kind: Literal["cancel", "timeout"]
    #: For a cancel, the reason given, if any; for a time-out, what was exceeded.
    text: str | None = None


class Turn:
    """What an executor has said in this run.

    Parameters
    ----------
    todo:
        The claimed row.
    conversation:
        What the run starts from; its fold grows with the run.
    record:
        Called with every event to store, in order.
    now:
        Wall clock, for statuses that come without a timestamp.
    limits:
        Sizes.
    """

    def __init__(
        self,
        todo: Todo,
        conversation: Conversation,
        record: Callable[[TodoEvent], None],
        *,
        now: Callable[[], datetime],
        limits: Limits,
    ) -> None:
        self._todo = todo
        self._record = record
        self._now = now
        self._limits = limits
        self._answers = conversation.answers
        self._ids = ids_of(todo)
        self.fold = conversation.fold
        #: None until the run has ended; then it is final.
        self.outcome: Outcome | None = None
        self.stopping: Stopping | None = None
        #: Updates came before any Task: the row is the Task, so that is fine here and nowhere else.
        self.implicit_task = False
        #: Events left out because the run had ended.
        self.dropped = 0
        self._spoke = False
        self._saw_task = False
        self._reply: tuple[Message, dict[str, Any]] | None = None
        self._parked: TodoEvent | None = None
        self._parked_recorded = False
        self._sizes: dict[str, int] = {}
        self._output_size = 0

    # -- what the executor says ---------------------------------------------------------------------------

    def publish(self, event: wire.Event) -> None:
        """Take one event of the executor.

        Raises
        ------
        EventRefusedError
            This event cannot be stored (size, NaN, depth, no state, no artifact id). It is left out; the run
            goes on.
        InvalidAgentResponseError, InvalidParamsError
            The executor broke the protocol (a Message among task events, an append to nothing, another task's
            id). The run has failed.
        """
        if self.outcome is not None:
            self._drop(event)
            return
        size = event.ByteSize()
        if size > self._limits.event_bytes:
            raise EventTooLargeError(
                f"This {type(event).__name__} has {size} bytes, the limit is {self._limits.event_bytes}: "
                "publish smaller parts, or store the file and send its url."
            )
        try:
            self._take(event)
        except protobuf.Error as error:
            raise EventRefusedError(f"This {type(event).__name__} is nested too deeply: {error}") from error
        except A2AError as violation:
            # When the run is being stopped, it ends as cancelled or timed out whatever else goes wrong.
            if self.outcome is None and self.stopping is None:
                self._end_in_failure(violation)
            raise

    def flush(self) -> None:
        """Record a parked status now, although `execute()` has not returned."""
        if self._parked is not None and not self._parked_recorded:
            self._parked_recorded = True
            self._record(self._parked)

    @property
    def waits_in_public(self) -> bool:
        """True while an AUTH_REQUIRED is held back that readers must see if `execute()` keeps running."""
        return (
            self.outcome is None
            and self._parked is not None
            and not self._parked_recorded
            and self._parked.event_type == EventType.AUTH_REQUIRED
        )

    def _take(self, event: wire.Event) -> None:
        event = wire.copy_of(event)
        self._check_ids(event)
        if self._reply is not None:
            raise InvalidAgentResponseError(
                f"{type(event).__name__} after a Message: a direct reply is one Message and nothing else"
            )
        if isinstance(event, Message):
            self._take_reply(event)
        elif isinstance(event, Task):
            self._take_task(event)
        else:
            self.implicit_task |= not self._saw_task and self._answers == 0
            if isinstance(event, TaskStatusUpdateEvent):
                self._take_status(event)
            else:
                self._take_artifact(event)
            self._spoke = True

    def _take_reply(self, message: Message) -> None:
        if self._spoke or self._answers > 0:
            raise InvalidAgentResponseError(
                "Message after task events: send it as the message of a status update"
            )
        self._complete_message(message)
        self._reply = wire.encode(message)

    def _take_task(self, task: Task) -> None:
        # Only the first Task of a first turn tells its state: a second one, or `current_task` sent again
        # after an answer, would repeat or undo what was said since.
        tells_state = not self._spoke and not self._saw_task and self._answers == 0
        news = self.fold.news_in(task)
        for artifact in news.artifacts:
            self._take_artifact(
                TaskArtifactUpdateEvent(task_id=task.id, context_id=task.context_id, artifact=artifact)
            )
        del news.artifacts[:]
        if news.history or news.metadata.fields:
            news.status.state = self.fold.state
            news.status.timestamp.FromDatetime(self._now())
            news, data = wire.encode(news)
            self.fold.apply(news)
            self._say(EventType.PROGRESS, data, None)
        self._saw_task = self._spoke = True
        if tells_state and task.status.state != TaskState.TASK_STATE_UNSPECIFIED:
            self._take_status(
                TaskStatusUpdateEvent(task_id=task.id, context_id=task.context_id, status=task.status)
            )
        elif task.status.state in wire.TERMINAL:
            _logger.warning(
                "task %s: a Task published again says %s, which does not count: publish a status update",
                self._todo.id,
                wire.state_name(task.status.state),
                extra={"action": "task_state_ignored", "todolist_id": self._todo.id},
            )

    def _take_status(self, event: TaskStatusUpdateEvent) -> None:
        status = event.status
        if status.state not in _STATES:
            raise EventRefusedError(f"This status update has no known state: {status.state}.")
        if status.state == TaskState.TASK_STATE_SUBMITTED:
            if not status.HasField("message") and not event.metadata.fields:
                return
            # The task was started by its claim; it must not look unstarted again.
            status.state = TaskState.TASK_STATE_WORKING
        if not status.HasField("timestamp"):
            status.timestamp.FromDatetime(self._now())
        if status.HasField("message"):
            self._complete_message(status.message)
        if status.state in wire.TERMINAL:
            self._end_as_published(event)
            return
        event, data = wire.encode(event)
        self.fold.apply(event)
        text = wire.text_of(event.status.message.parts)
        parked_type = _PARKED_TYPE.get(event.status.state)
        if parked_type is None:
            self._say(EventType.PROGRESS, data, text, state=event.status.state)
            self._parked = None
            return
        # Held back until it is clear whether execute() returns now: a client that reads "input required" may
        # answer at once, and must find the row parked.
        self.flush()
        self._parked_recorded = False
        self._parked = self._event(parked_type, data, text, state=event.status.state)

    def _take_artifact(self, event: TaskArtifactUpdateEvent) -> None:
        artifact = event.artifact
        if not artifact.artifact_id:
            raise EventRefusedError("This artifact has no artifact_id.")
        if not artifact.parts and not event.append and not event.last_chunk:
            raise EventRefusedError(f"Artifact {artifact.artifact_id!r} has no parts.")
        before = self._sizes.get(artifact.artifact_id, 0)
        size = artifact.ByteSize() + (before if event.append else 0)
        total = self._output_size - before + size
        if total > self._limits.output_bytes:
            raise EventTooLargeError(
                f"The artifacts of this run would have {total} bytes together, the limit is "
                f"{self._limits.output_bytes}: store large files and send their urls."
            )
        event, data = wire.encode(event)
        self.fold.apply(event)
        self._sizes[artifact.artifact_id] = size
        self._output_size = total
        self._say(EventType.ARTIFACT, data, wire.text_of(event.artifact.parts))

    # -- how the run ends -----------------------------------------------------------------------------------

    def returned(self) -> None:
        """`execute()` came back."""
        if self.outcome is not None:
            return
        if self._reply is not None:
            self._end_as_reply(*self._reply)
        elif self._parked is not None:
            event = self._parked
            if self._parked_recorded:
                event = replace(event, id=str(uuid.uuid4()))
            self._parked_recorded = True
            self._end(event, Outcome("input_required", task_state=event.task_state))
        else:
            event = self._own_status(TaskState.TASK_STATE_COMPLETED, None)
            # Said by nobody, so marked: the executor returned while the task was still working.
            event.metadata.update({"reactive_worker": {"implied": True}})
            self._end_as_published(event)

    def raised(self, outcome: Outcome) -> None:
        """`execute()` raised; `outcome` says what that means."""
        if self.outcome is not None:
            return
        error = outcome.error or {}
        if outcome.kind == "failed":
            outcome = replace(outcome, output=failed_output(dict(error), self.fold))
        self._end_with_status(
            self._own_status(TaskState.TASK_STATE_FAILED, _headline(error)), outcome, EventType.FAILED
        )

    def stopped(self, stopping: Stopping) -> None:
        """The run was cancelled or ran out of time, and had its chance to say something about it."""
        if self.outcome is not None:
            return
        if self._reply is not None:
            self._end_as_reply(*self._reply)
        elif stopping.kind == "cancel":
            self._end_as_cancelled(self._own_status(TaskState.TASK_STATE_CANCELED, stopping.text))
        else:
            self._end_as_timed_out(self._own_status(TaskState.TASK_STATE_FAILED, stopping.text), stopping)

    def _end_as_published(self, event: TaskStatusUpdateEvent) -> None:
        status = event.status
        message = status.message if status.HasField("message") else None
        text = wire.text_of(status.message.parts)
        if status.state == TaskState.TASK_STATE_COMPLETED:
            self._end_with_status(event, None, EventType.COMPLETED)
        elif self.stopping is not None and self.stopping.kind == "timeout":
            status.state = TaskState.TASK_STATE_FAILED
            self._end_as_timed_out(event, self.stopping)
        elif self.stopping is not None or status.state == TaskState.TASK_STATE_CANCELED:
            status.state = TaskState.TASK_STATE_CANCELED
            self._end_as_cancelled(event, message)
        else:
            rejected = status.state == TaskState.TASK_STATE_REJECTED
            error = {
                "type": "TaskRejected" if rejected else "TaskFailed",
                "message": shorten(redact(storable(text or "the agent gave no reason")), MESSAGE_LIMIT),
            }
            outcome = failed(error, self.fold, task_state=wire.state_name(status.state))
            self._end_with_status(event, outcome, EventType.REJECTED if rejected else EventType.FAILED)

    def _end_as_reply(self, message: Message, data: dict[str, Any]) -> None:
        state = TaskState.TASK_STATE_COMPLETED
        outcome = Outcome("completed", output=self.fold.output(message), task_state=wire.state_name(state))
        self.fold.apply(message)
        self._end(self._event(EventType.COMPLETED, data, wire.text_of(message.parts), state=state), outcome)

    def _end_as_cancelled(self, event: TaskStatusUpdateEvent, message: Message | None = None) -> None:
        output = self.fold.output(message)
        outcome = Outcome(
            "cancelled",
            # None keeps the column: nothing was produced that would be worth overwriting it.
            output=output if output.get("artifacts") else None,
            task_state=wire.state_name(event.status.state),
        )
        self._end_with_status(event, outcome, EventType.CANCELLED)

    def _end_as_timed_out(self, event: TaskStatusUpdateEvent, stopping: Stopping) -> None:
        error = {"type": "timeout", "message": stopping.text or "execute() did not end in time"}
        self._end_with_status(event, failed(error, self.fold), EventType.FAILED)

    def _end_in_failure(self, error: A2AError) -> None:
        record = error_record(error)
        # The executor's frames are still being unwound; the ones here would only show our own validator.
        del record["traceback"]
        self._reply = None
        event = self._own_status(TaskState.TASK_STATE_FAILED, _headline(record))
        self._end_with_status(event, failed(record, self.fold), EventType.FAILED)

    def _end_with_status(
        self, event: TaskStatusUpdateEvent, outcome: Outcome | None, event_type: EventType
    ) -> None:
        event, data = wire.encode(event)
        self.fold.apply(event)
        message = event.status.message if event.status.HasField("message") else None
        if outcome is None:
            outcome = Outcome(
                "completed", output=self.fold.output(message), task_state=wire.state_name(event.status.state)
            )
        text = wire.text_of(event.status.message.parts)
        self._end(self._event(event_type, data, text, state=event.status.state), outcome)

    def _end(self, event: TodoEvent, outcome: Outcome) -> None:
        self.flush()
        self.outcome = outcome
        self._record(replace(event, outcome=outcome))

    # -- small parts ----------------------------------------------------------------------------------------

    def _say(
        self,
        event_type: EventType,
        data: Mapping[str, Any],
        text: str | None,
        *,
        state: TaskState | None = None,
    ) -> None:
        self.flush()
        self._record(self._event(event_type, data, text, state=state))

    def _event(
        self,
        event_type: EventType,
        data: Mapping[str, Any],
        text: str | None,
        *,
        state: TaskState | None = None,
    ) -> TodoEvent:
        task_id, context_id = self._ids
        return TodoEvent(
            todolist_id=self._todo.id,
            attempt=self._todo.attempt,
            event_type=event_type,
            event_data=data,
            message=text,
            context_id=context_id,
            task_id=task_id,
            task_state=None if state is None else wire.state_name(state),
        )

    def _own_status(self, state: TaskState, text: str | None) -> TaskStatusUpdateEvent:
        return wire.status_event(*self._ids, state, text=text, now=self._now())

    def _check_ids(self, event: wire.Event) -> None:
        """Never write to another task; the row's context is the only one."""
        task_id, context_id = self._ids
        given = event.id if isinstance(event, Task) else event.task_id
        if given and given != task_id:
            raise InvalidParamsError(
                f"{type(event).__name__} for task {shorten(given, 100)!r} was published by task {task_id!r}"
            )
        if isinstance(event, Task):
            event.id = task_id
        elif given or not isinstance(event, Message):
            event.task_id = task_id
        event.context_id = context_id

    def _complete_message(self, message: Message) -> None:
        if not message.message_id:
            message.message_id = str(uuid.uuid4())
        if message.role == Role.ROLE_UNSPECIFIED:
            message.role = Role.ROLE_AGENT
        if message.context_id:
            message.context_id = self._ids[1]

    def _drop(self, event: wire.Event) -> None:
        self.dropped += 1
        if self.dropped == 1:
            _logger.warning(
                "task %s has ended (%s): %s published afterwards is dropped, and so are all later ones",
                self._todo.id,
                self.outcome.kind if self.outcome else "",
                type(event).__name__,
                extra={"action": "event_dropped", "todolist_id": self._todo.id},
            )


def _headline(error: Mapping[str, Any]) -> str:
    kind, message = error.get("type", "error"), error.get("message", "")
    return f"{kind}: {message}" if message and message != kind else str(kind)
