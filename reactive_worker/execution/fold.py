"""Events folded into an A2A Task: what `current_task`, `agent_output` and GetTask show.

The event log is the truth; a Task is what remains when its events are applied in order. The rules are those
of the SDK's own task manager, with three additions of ours, because our log also holds what the SDK keeps
elsewhere: user messages are folded where they stand, a direct reply folds as COMPLETED, and the artifacts of
an attempt that was lost or failed disappear when the next attempt starts.
"""

from __future__ import annotations

from typing import Any

from a2a.types import (
    Artifact,
    Message,
    Part,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from a2a.utils.errors import InvalidAgentResponseError

from reactive_worker.execution.numbers import plain, to_json
from reactive_worker.execution.wire import Event, as_json, copy_of, text_of


class Fold:
    """A Task in the making.

    Parameters
    ----------
    task_id, context_id:
        Ids of the Task.
    first_message:
        The user message that started it; becomes the first entry of `history`.

    Example
    -------
    >>> fold = Fold("t", "c", first_message)
    >>> fold.apply(status_update)
    >>> fold.snapshot().status.state
    """

    def __init__(self, task_id: str, context_id: str, first_message: Message) -> None:
        self._task = Task(
            id=task_id,
            context_id=context_id,
            status=TaskStatus(state=TaskState.TASK_STATE_SUBMITTED),
            history=[first_message],
        )
        #: The task's metadata as JSON, whole numbers of any length.
        self.metadata: dict[str, Any] = {}
        self._index: dict[str, int] = {}
        # Per artifact, the positions in `parts` where an append began: chunks of one text, not separate
        # texts.
        self._seams: dict[str, set[int]] = {}
        # Artifacts as they were when the running attempt started; None between attempts.
        self._checkpoint: tuple[list[Artifact], dict[str, set[int]]] | None = None

    @property
    def state(self) -> TaskState:
        return self._task.status.state

    @property
    def status(self) -> TaskStatus:
        return self._task.status

    def has_artifact(self, artifact_id: str) -> bool:
        return artifact_id in self._index

    def snapshot(self) -> Task:
        """The Task now, as a private copy for others."""
        return plain(copy_of(self._task))

    def apply(self, event: Event) -> None:
        """Fold one event of the agent.

        Raises
        ------
        InvalidAgentResponseError
            `append` to an artifact that does not exist.
        """
        if isinstance(event, TaskStatusUpdateEvent):
            self._set_status(event.status)
            self._merge_metadata(event)
        elif isinstance(event, TaskArtifactUpdateEvent):
            self._add_artifact(event.artifact, append=event.append)
        elif isinstance(event, Task):
            self._add_news(event)
        else:
            self._set_status(TaskStatus(state=TaskState.TASK_STATE_COMPLETED, message=event))

    def begin_attempt(self) -> None:
        """An attempt starts. If the one before was lost or failed, its artifacts are dropped."""
        if self._checkpoint is not None:
            artifacts, seams = self._checkpoint
            del self._task.artifacts[:]
            self._task.artifacts.extend(artifacts)
            self._index = {artifact.artifact_id: place for place, artifact in enumerate(artifacts)}
            self._seams = {key: set(places) for key, places in seams.items()}
        self._checkpoint = (
            list(copy_of(self._task).artifacts),
            {key: set(places) for key, places in self._seams.items()},
        )

    def receive(self, message: Message) -> None:
        """The user answered: the prompt moves to `history`, then the answer follows it.

        An equal message id is no reason to skip it: real clients reuse ids for different texts.
        """
        status = self._task.status
        if status.HasField("message"):
            self._task.history.append(status.message)
            status.ClearField("message")
        self._task.history.append(message)
        # Only a task that was parked can be answered, so what its last attempt made is there to stay.
        self._checkpoint = None

    def news_in(self, task: Task) -> Task:
        """What a Task published by an executor says beyond this one, its status aside.

        Executors re-send whole tasks; only artifacts, history and metadata not known yet count.
        """
        news = Task(id=self._task.id, context_id=self._task.context_id)
        news.artifacts.extend(item for item in task.artifacts if item.artifact_id not in self._index)
        known = {_content(message) for message in self._task.history}
        if self._task.status.HasField("message"):
            known.add(_content(self._task.status.message))
        news.history.extend(message for message in task.history if _content(message) not in known)
        for key, value in task.metadata.fields.items():
            if key not in self._task.metadata.fields or self._task.metadata.fields[key] != value:
                news.metadata.fields[key].CopyFrom(value)
        return news

    def joined_artifacts(self) -> list[Artifact]:
        """The artifacts with streamed text put together again: 2,000 chunks become one part."""
        return [
            _join(artifact, self._seams.get(artifact.artifact_id, set())) for artifact in self._task.artifacts
        ]

    def output(self, message: Message | None = None) -> dict[str, Any]:
        """`todolist.agent_output`: ``{"artifacts": [...], "message": {...}, "text": "..."}``.

        `text` is always there: that of the artifacts, or else that of the message. The others are left out
        when there are none.
        """
        artifacts = self.joined_artifacts()
        output: dict[str, Any] = {}
        if artifacts:
            output["artifacts"] = [as_json(artifact) for artifact in artifacts]
        if message is not None:
            output["message"] = as_json(message)
        texts = [text for artifact in artifacts if (text := text_of(artifact.parts)) is not None]
        if not texts and message is not None:
            texts = [text_of(message.parts) or ""]
        output["text"] = "\n".join(texts).replace("\0", "\ufffd")
        return output

    def _set_status(self, status: TaskStatus) -> None:
        current = self._task.status
        status = plain(status)
        # A question is stored twice when its executor kept running for a while: once for the readers, once
        # with the outcome. It must not appear in the history because of that.
        repeated = status.HasField("message") and current.message == status.message
        if current.HasField("message") and not repeated:
            self._task.history.append(current.message)
        current.CopyFrom(status)

    def _add_artifact(self, artifact: Artifact, *, append: bool) -> None:
        place = self._index.get(artifact.artifact_id)
        if not append:
            self._seams.pop(artifact.artifact_id, None)
            if place is None:
                self._index[artifact.artifact_id] = len(self._task.artifacts)
                self._task.artifacts.append(artifact)
            else:
                self._task.artifacts[place].CopyFrom(artifact)
            return
        if place is None:
            raise InvalidAgentResponseError(
                f"append to artifact {artifact.artifact_id!r}, which does not exist: "
                "publish its first part with append=False"
            )
        known = self._task.artifacts[place]
        self._seams.setdefault(artifact.artifact_id, set()).add(len(known.parts))
        known.parts.extend(artifact.parts)
        for key, value in artifact.metadata.fields.items():
            known.metadata.fields[key].CopyFrom(value)

    def _add_news(self, task: Task) -> None:
        news = self.news_in(task)
        for artifact in news.artifacts:
            self._add_artifact(artifact, append=False)
        self._task.history.extend(plain(message) for message in news.history)
        self._merge_metadata(news)

    def _merge_metadata(self, source: TaskStatusUpdateEvent | Task) -> None:
        # Shallow: a nested object is replaced as a whole.
        if not source.metadata.fields:
            return
        self.metadata.update(to_json(source.metadata))
        for key, value in plain(source.metadata).fields.items():
            self._task.metadata.fields[key].CopyFrom(value)


def _content(message: Message) -> tuple[int, str, tuple[bytes, ...]]:
    """What makes a message the same message, whatever ids were added on its way."""
    return (message.role, message.message_id, tuple(part.SerializeToString() for part in message.parts))


def _join(artifact: Artifact, seams: set[int]) -> Artifact:
    joined = Artifact()
    joined.CopyFrom(artifact)
    if not seams:
        return joined
    del joined.parts[:]
    run: list[str] = []
    head: Part | None = None

    def close() -> None:
        if head is not None:
            part = Part()
            part.CopyFrom(head)
            part.text = "".join(run)
            joined.parts.append(part)

    for place, part in enumerate(artifact.parts):
        if place in seams and head is not None and _continues(head, part):
            run.append(part.text)
            continue
        close()
        head, run = (part, [part.text]) if part.HasField("text") else (None, [])
        if head is None:
            joined.parts.append(part)
    close()
    return joined


def _continues(head: Part, part: Part) -> bool:
    return (
        part.HasField("text")
        and not part.HasField("metadata")
        and part.media_type in ("", head.media_type)
        and part.filename in ("", head.filename)
    )
