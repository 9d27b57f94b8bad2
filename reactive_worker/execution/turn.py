"""One run of a task as a state machine: what an executor may say next.

::

    fresh ──Message──▶ reply ──return──▶ completed
      │                  └──anything──▶ failed (protocol)
      └──update──▶ task ──COMPLETED, FAILED, REJECTED, CANCELED──▶ done, final
                    │ ▲ └──FAILED without a reason──▶ failing ──return──▶ failed
                    │ │                                  └──raise──▶ one failure, with its reason
     INPUT_REQUIRED,▼ └──any later update
     AUTH_REQUIRED  parked ──return──▶ input_required

Synchronous and without locks: the queue around it has them.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from a2a.types import Message, Role, Task, TaskArtifactUpdateEvent, TaskState, TaskStatusUpdateEvent
from a2a.utils.errors import A2AError, InvalidAgentResponseError, InvalidParamsError
from google.protobuf import message as protobuf

from reactive_worker.errors import EventRefusedError, EventTooLargeError
from reactive_worker.execution import wire
from reactive_worker.execution.conversation import Conversation, ids_of
from reactive_worker.execution.ledger import Ledger, Stopping
from reactive_worker.execution.outcome import failed
from reactive_worker.execution.sanitise import describe, shorten
from reactive_worker.models import EventType, Outcome, Todo, TodoEvent

_logger = logging.getLogger(__name__)

_STATES = frozenset(TaskState.values()) - {TaskState.TASK_STATE_UNSPECIFIED}
_PARKED = {
    TaskState.TASK_STATE_INPUT_REQUIRED: EventType.INPUT_REQUIRED,
    TaskState.TASK_STATE_AUTH_REQUIRED: EventType.AUTH_REQUIRED,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one run may say, in bytes as protobuf counts them (about those of the text)."""

    #: One event. Larger results belong in Storage, as `url` parts.
    event_bytes: int = 1024 * 1024
    #: All artifacts of a run together: they stay in memory and are written once more as `agent_output`.
    output_bytes: int = 32 * 1024 * 1024


class Turn:
    """What an executor has said in this run, and whether it may say the next thing.

    Parameters
    ----------
    todo:
        The claimed row.
    conversation:
        What the run starts from; its fold grows with the run.
    record:
        Called with every event to store, in order; the last one carries the outcome.
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
        self.ledger = Ledger(todo, conversation.fold, record, now)
        #: Updates came before any Task: the row is the Task, so that is fine here and nowhere else.
        self.implicit_task = False
        #: Events left out because the run had ended.
        self.dropped = 0
        self._todo = todo
        self._ids = ids_of(todo)
        self._limits = limits
        self._first_turn = conversation.answers == 0
        self._spoke = False
        self._saw_task = False
        self._reply: tuple[Message, dict[str, Any]] | None = None
        # A FAILED that says nothing. Frameworks publish it and raise what it was: the exception is the
        # reason, and one failure.
        self._failing: TaskStatusUpdateEvent | None = None
        self._sizes: dict[str, int] = {}
        self._total_size = 0

    @property
    def outcome(self) -> Outcome | None:
        """None until the run has ended; then it is final."""
        return self.ledger.outcome

    # -- what the executor says ------------------------------------------------------------------------------

    def publish(self, event: wire.Event) -> None:
        """Take one event of the executor.

        Raises
        ------
        EventRefusedError
            This event cannot be stored (size, NaN, depth, no state, no artifact id). It is left out, the run
            goes on.
        InvalidAgentResponseError, InvalidParamsError
            The executor broke the protocol (a Message among task events, an append to nothing, the id of
            another task). The run has failed.
        """
        if self.outcome is not None or self._failing is not None:
            self._drop(event)
            return
        try:
            self._check_size(event)
            self._take(wire.copy_of(event))
        except protobuf.Error as error:
            raise EventRefusedError(f"This {type(event).__name__} is nested too deeply: {error}") from error
        except A2AError as violation:
            # While the run is being stopped it ends as cancelled or timed out, whatever else goes wrong.
            if self.outcome is None and self.ledger.stopping is None:
                # No traceback: the frames up to here would only show this validator.
                record = {"type": type(violation).__name__, "message": describe(violation)}
                self.ledger.end_in_failure(failed(record))
            raise

    def returned(self) -> None:
        """`execute()` came back."""
        if self.outcome is not None:
            return
        if self._reply is not None:
            self.ledger.end_as_reply(*self._reply)
        elif self._failing is not None:
            self.ledger.end_as_published(self._failing)
        else:
            self.ledger.end_as_returned()

    def raised(self, outcome: Outcome) -> None:
        """`execute()` raised; `outcome` says what that means."""
        if self.outcome is None:
            self.ledger.end_in_failure(outcome)

    def stopped(self, stopping: Stopping) -> None:
        """The run was cancelled or ran out of time, and had its chance to say something about it."""
        if self.outcome is not None:
            return
        if self._reply is not None:
            # A whole answer was given before the stop: like COMPLETED, it wins.
            self.ledger.end_as_reply(*self._reply)
        else:
            self.ledger.end_as_stopped(stopping)

    # -- one kind of event each ------------------------------------------------------------------------------

    def _take(self, event: wire.Event) -> None:
        self._set_ids(event)
        if self._reply is not None:
            raise InvalidAgentResponseError(
                f"{type(event).__name__} after a Message: a direct reply is one Message and nothing else"
            )
        if isinstance(event, Message):
            self._take_reply(event)
            return
        if isinstance(event, Task):
            self._take_task(event)
            return
        self.implicit_task |= self._first_turn and not self._saw_task
        # Before the checks of its kind: a refused update is a task update all the same.
        self._spoke = True
        if isinstance(event, TaskStatusUpdateEvent):
            self._take_status(event)
        else:
            self._take_artifact(event)

    def _take_reply(self, message: Message) -> None:
        if self._spoke or not self._first_turn:
            raise InvalidAgentResponseError(
                "Message after task events: send it as the message of a status update"
            )
        self._complete(message)
        # Held until execute() returns: a second Message would make this one an error.
        self._reply = wire.encode(message)

    def _take_task(self, task: Task) -> None:
        # Only the first Task of a first turn tells its state: a second one, or `current_task` sent again
        # after an answer, would repeat or undo what was said since.
        tells_state = self._first_turn and not self._spoke
        self._saw_task = self._spoke = True
        news = self.ledger.fold.news_in(task)
        for artifact in news.artifacts:
            update = TaskArtifactUpdateEvent(task_id=task.id, context_id=task.context_id, artifact=artifact)
            self._take_artifact(update)
        del news.artifacts[:]
        if news.history or news.metadata.fields:
            news.status.state = self.ledger.fold.state
            news.status.timestamp.FromDatetime(self.ledger.now())
            self.ledger.say(EventType.PROGRESS, news, None)
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
            status.timestamp.FromDatetime(self.ledger.now())
        if status.HasField("message"):
            self._complete(status.message)
        if status.state == TaskState.TASK_STATE_FAILED and not self._says_why(event):
            wire.encode(event)  # What it cannot be stored with is refused now.
            self._failing = event
        elif status.state in wire.TERMINAL:
            self.ledger.end_as_published(event)
        elif status.state in _PARKED:
            self.ledger.park(_PARKED[status.state], event)
        else:
            text = wire.text_of(status.message.parts)
            self.ledger.say(EventType.PROGRESS, event, text, state=status.state)

    def _take_artifact(self, event: TaskArtifactUpdateEvent) -> None:
        artifact = event.artifact
        if not artifact.artifact_id:
            raise EventRefusedError("This artifact has no artifact_id.")
        # Without parts it can still close a stream of chunks, and many executors do that.
        if not artifact.parts and not event.append and not event.last_chunk:
            raise EventRefusedError(f"Artifact {artifact.artifact_id!r} has no parts.")
        before = self._sizes.get(artifact.artifact_id, 0)
        size = artifact.ByteSize() + (before if event.append else 0)
        total = self._total_size - before + size
        if total > self._limits.output_bytes:
            raise EventTooLargeError(
                f"The artifacts of this run would have {total} bytes together, the limit is "
                f"{self._limits.output_bytes}: store large files and send their urls."
            )
        self.ledger.say(EventType.ARTIFACT, event, wire.text_of(artifact.parts))
        self._sizes[artifact.artifact_id] = size
        self._total_size = total

    # -- small parts -----------------------------------------------------------------------------------------

    def _check_size(self, event: wire.Event) -> None:
        size, most = event.ByteSize(), self._limits.event_bytes
        if size > most and isinstance(event, Task):
            # Executors begin by sending the task as they got it; a long prompt is nothing they say.
            news = self.ledger.fold.news_in(event)
            news.status.CopyFrom(event.status)
            size = news.ByteSize()
        if size > most:
            raise EventTooLargeError(
                f"This {type(event).__name__} has {size} bytes, the limit is {most}: "
                "publish smaller parts, or store the file and send its url."
            )

    def _says_why(self, failed: TaskStatusUpdateEvent) -> bool:
        """True when a FAILED can stand for itself; while the run is being stopped, that is its reason."""
        parts = failed.status.message.parts
        return self.ledger.stopping is not None or any(
            part.text.strip() or part.WhichOneof("content") not in (None, "text") for part in parts
        )

    def _set_ids(self, event: wire.Event) -> None:
        """Never write to another task; the row's context is the only one."""
        task_id, context_id = self._ids
        given = event.id if isinstance(event, Task) else event.task_id
        if given and given != task_id:
            raise InvalidParamsError(
                f"{type(event).__name__} for task {shorten(given, 100)!r} was published by task {task_id!r}"
            )
        if isinstance(event, Task):
            event.id = task_id
        else:
            event.task_id = task_id
        event.context_id = context_id

    def _complete(self, message: Message) -> None:
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
                self.outcome.kind if self.outcome else "failed",
                type(event).__name__,
                extra={"action": "event_dropped", "todolist_id": self._todo.id},
            )
