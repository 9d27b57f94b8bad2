"""What a remote task says, said again as the words of the local one."""

from __future__ import annotations

import asyncio

from a2a.server.agent_execution import RequestContext
from a2a.server.events import EventQueue
from a2a.types import (
    Artifact,
    Message,
    Part,
    Role,
    StreamResponse,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from google.protobuf import struct_pb2

from reactive_worker.errors import EventRefusedError, PermanentFailure
from reactive_worker.execution.wire import INTERRUPTED, TERMINAL, Event
from reactive_worker.executors.remote.known import KEY, Known, is_answer, local_message_id

_SILENT = frozenset(
    {
        TaskState.TASK_STATE_UNSPECIFIED,
        TaskState.TASK_STATE_SUBMITTED,
        TaskState.TASK_STATE_WORKING,
    }
)


class Relay:
    """Publishes remote events under local ids, each once, and keeps the remote ids in the task's metadata.

    Parameters
    ----------
    context, queue:
        Those of the local turn.
    known:
        What is kept of the remote task; changes as it is learned.
    """

    def __init__(self, context: RequestContext, queue: EventQueue, known: Known) -> None:
        self.known = known
        #: Set with the first event: from then on the ids are known.
        self.learned = asyncio.Event()
        #: True when the turn is over: a terminal state, a question or a reply was published.
        self.settled = False
        self._context = context
        self._queue = queue
        self._ids = context.task_id or "", context.context_id or ""
        # `cancel()` speaks while `execute()` still listens.
        self._lock = asyncio.Lock()
        self._opened = context.current_task is not None
        self._unsaid = False
        self._artifacts: dict[str, Artifact] = {}
        self._status: TaskStatus | None = None
        self._stale: TaskStatus | None = None
        if known.task_id:
            self.learned.set()

    def answers(self, status: TaskStatus) -> None:
        """This turn's message is about to be sent as the answer to `status`."""
        self._stale = status

    def is_answered(self, status: TaskStatus) -> bool:
        """True for the question this turn answers, however late it is shown again."""
        if status.state not in INTERRUPTED:
            return False
        task = self._context.current_task
        if task is not None and is_answer(self._context) and task.status.HasField("message"):
            asked = local_message_id(self._ids[0], status.message.message_id)
            if status.HasField("message") and task.status.message.message_id == asked:
                return True
        return self._stale is not None and status == self._stale

    async def take(self, item: StreamResponse, *, sent: str = "") -> None:
        """Publish one item of a stream.

        Parameters
        ----------
        item:
            What came.
        sent:
            Id of our message that it is an answer to: it has arrived.
        """
        async with self._lock:
            if self.settled:
                return
            match item.WhichOneof("payload"):
                case "task":
                    self._learn(item.task.id, item.task.context_id, sent)
                    # In the answer to a follow-up it may still show the question; updates say what follows.
                    await self._show(item.task, parks=False)
                case "message":
                    await self._reply(item.message)
                case "status_update":
                    update = item.status_update
                    self._learn(update.task_id, update.context_id, sent)
                    await self._say(update.status, update.metadata)
                case "artifact_update":
                    update = item.artifact_update
                    self._learn(update.task_id, update.context_id, sent)
                    await self._add(update)
                case _:  # A kind of a later version.
                    return

    async def show(self, task: Task) -> None:
        """Publish what a snapshot says beyond what was heard."""
        async with self._lock:
            if not self.settled:
                self._learn(task.id, task.context_id, "")
                await self._show(task, parks=True)

    async def mark_over(self) -> None:
        """Keep that this remote task is given up, whatever becomes of it."""
        async with self._lock:
            if not self.settled:
                self.known.over = self._unsaid = True
                await self._keep()

    async def say_cancelled(self) -> None:
        """Publish CANCELED: there is no remote task that could say so."""
        async with self._lock:
            if not self.settled:
                await self._say(TaskStatus(state=TaskState.TASK_STATE_CANCELED), struct_pb2.Struct())

    # -- one kind of event each, under the lock --------------------------------------------------------------

    def _learn(self, task_id: str, context_id: str, sent: str) -> None:
        known = self.known
        before = (known.task_id, known.context_id, known.message_id)
        known.task_id = task_id or known.task_id
        known.context_id = context_id or known.context_id
        known.message_id = sent or known.message_id
        self._unsaid |= before != (known.task_id, known.context_id, known.message_id)
        self.learned.set()

    async def _keep(self) -> None:
        """Put what is known into the log, unless it is there."""
        if self._unsaid:
            await self._publish_status(TaskStatus(state=TaskState.TASK_STATE_WORKING), struct_pb2.Struct())

    async def _show(self, task: Task, *, parks: bool) -> None:
        await self._keep()
        for artifact in task.artifacts:
            held = self._artifacts.get(artifact.artifact_id)
            if held == artifact:
                continue
            self._artifacts[artifact.artifact_id] = _copy(artifact)
            news = _copy(artifact)
            append = held is not None and _is_beginning(held, artifact)
            if append and held is not None:
                del news.parts[: len(held.parts)]
            joined = _joined(news)
            await self._publish(
                TaskArtifactUpdateEvent(
                    task_id=self._ids[0], context_id=self._ids[1], artifact=joined, append=append
                )
            )
        if parks or task.status.state not in INTERRUPTED:
            await self._say(task.status, struct_pb2.Struct())

    async def _say(self, status: TaskStatus, metadata: struct_pb2.Struct) -> None:
        nothing_new = self.is_answered(status) or status == self._status
        if nothing_new or (
            status.state in _SILENT and not status.HasField("message") and not metadata.fields
        ):
            await self._keep()
            return
        self._status = TaskStatus()
        self._status.CopyFrom(status)
        ends = status.state in TERMINAL
        self.settled = ends or status.state == TaskState.TASK_STATE_INPUT_REQUIRED
        self.known.over |= ends
        self._unsaid |= ends
        await self._publish_status(status, metadata)

    async def _add(self, update: TaskArtifactUpdateEvent) -> None:
        await self._keep()
        id = update.artifact.artifact_id
        held = self._artifacts.get(id)
        event = TaskArtifactUpdateEvent()
        event.CopyFrom(update)
        event.task_id, event.context_id = self._ids
        if update.append and held is not None:
            held.parts.extend(update.artifact.parts)
            held.metadata.MergeFrom(update.artifact.metadata)
        else:
            # An append to what was never heard begins it here; a later snapshot brings the whole.
            event.append = False
            self._artifacts[id] = _copy(update.artifact)
        await self._publish(event)

    async def _reply(self, message: Message) -> None:
        self.settled = True
        self.learned.set()
        if self._opened:
            await self._publish_status(
                TaskStatus(state=TaskState.TASK_STATE_COMPLETED, message=message), struct_pb2.Struct()
            )
        else:
            await self._publish(self._local(message))

    # -- publishing ------------------------------------------------------------------------------------------

    async def _publish_status(self, status: TaskStatus, metadata: struct_pb2.Struct) -> None:
        await self._open()
        event = TaskStatusUpdateEvent(
            task_id=self._ids[0], context_id=self._ids[1], status=status, metadata=metadata
        )
        # Ours: nobody else may say where the next run looks.
        event.metadata.fields.pop(KEY, None)
        event.metadata.fields.pop("reactive_worker", None)
        if self._unsaid:
            event.metadata.update(self.known.as_metadata())
            self._unsaid = False
        if event.status.state in (TaskState.TASK_STATE_UNSPECIFIED, TaskState.TASK_STATE_SUBMITTED):
            event.status.state = TaskState.TASK_STATE_WORKING
        if event.status.HasField("message"):
            event.status.message.CopyFrom(self._local(event.status.message))
        await self._publish(event)

    async def _open(self) -> None:
        """Our worker has the task already; a plain a2a server wants to see it first."""
        if not self._opened:
            self._opened = True
            task = Task(
                id=self._ids[0],
                context_id=self._ids[1],
                status=TaskStatus(state=TaskState.TASK_STATE_SUBMITTED),
            )
            if self._context.message is not None:
                task.history.append(self._context.message)
            await self._publish(task)

    def _local(self, message: Message) -> Message:
        local = Message()
        local.CopyFrom(message)
        local.message_id = local_message_id(self._ids[0], message.message_id)
        local.role = Role.ROLE_AGENT
        local.task_id, local.context_id = self._ids
        # They name tasks over there.
        del local.reference_task_ids[:]
        return local

    async def _publish(self, event: Event) -> None:
        try:
            await self._queue.enqueue_event(event)
        except EventRefusedError as error:
            # It would be refused in every run.
            raise PermanentFailure(f"what the remote agent says cannot be stored: {error}") from error


def _copy(artifact: Artifact) -> Artifact:
    copied = Artifact()
    copied.CopyFrom(artifact)
    return copied


def _is_beginning(held: Artifact, artifact: Artifact) -> bool:
    """True when all of `held` stands unchanged at the beginning of `artifact`."""
    count = len(held.parts)
    beginning = _copy(artifact)
    del beginning.parts[count:]
    return beginning == held and len(artifact.parts) > count


def _joined(artifact: Artifact) -> Artifact:
    """Neighbouring texts as one: a snapshot holds streamed chunks as parts, and does not say so."""
    joined = _copy(artifact)
    del joined.parts[:]
    for part in artifact.parts:
        last = joined.parts[-1] if joined.parts else None
        if last is not None and _is_plain_text(part) and last.HasField("text"):
            last.text += part.text
        else:
            joined.parts.append(part)
    return joined


def _is_plain_text(part: Part) -> bool:
    return part.HasField("text") and not (part.HasField("metadata") or part.filename or part.media_type)
