"""Rows, executors and runs for tests, without a database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater
from a2a.types import (
    Artifact,
    Message,
    Part,
    Role,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from google.protobuf.json_format import MessageToDict

from reactive_worker.execution import Runner, TaskRun
from reactive_worker.execution.wire import Event
from reactive_worker.models import EventType, Outcome, Todo, TodoEvent

ID = "6f1d3a52-0000-4000-8000-000000000001"
CONTEXT = "conversation-1"
START = datetime(2026, 1, 1, tzinfo=UTC)

Step = Callable[[RequestContext, EventQueue], Awaitable[Any]]


def make_todo(**columns: Any) -> Todo:
    """A claimed row: first attempt, nothing logged but its start."""
    row: dict[str, Any] = {
        "id": ID,
        "agent_type": "test",
        "prompt": "hello",
        "input_data": None,
        "agent_status": "in_progress",
        "created_at": START.isoformat(),
        "attempt": 1,
        "seq": 1,
        "context_id": CONTEXT,
        **columns,
    }
    return Todo.from_row(row)


async def nothing(context: RequestContext, queue: EventQueue) -> None:
    """Say nothing."""


class Scripted(AgentExecutor):
    """An executor made of two functions."""

    def __init__(self, execute: Step = nothing, cancel: Step = nothing) -> None:
        self._execute = execute
        self._cancel = cancel
        self.executed: list[RequestContext] = []
        self.cancelled: list[RequestContext] = []

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        self.executed.append(context)
        await self._execute(context, event_queue)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        self.cancelled.append(context)
        await self._cancel(context, event_queue)


@dataclass
class Ran:
    """What a run left."""

    events: list[TodoEvent] = field(default_factory=list[TodoEvent])

    @property
    def types(self) -> list[str]:
        return [str(event.event_type) for event in self.events]

    @property
    def outcomes(self) -> list[TodoEvent]:
        return [event for event in self.events if event.outcome is not None]

    @property
    def last(self) -> TodoEvent:
        """The one event with an outcome, which must be the last."""
        assert len(self.outcomes) == 1, self.events
        assert self.events[-1] is self.outcomes[0]
        return self.events[-1]

    @property
    def outcome(self) -> Outcome:
        assert self.last.outcome is not None
        return self.last.outcome


def make_runner(executor: AgentExecutor, **options: Any) -> Runner:
    options.setdefault("backoff", lambda failures: 0.5)
    options.setdefault("clock", lambda: START)
    return Runner(lambda agent_type: executor, **options)


async def run(
    executor: AgentExecutor | Step,
    todo: Todo | None = None,
    *,
    act: Callable[[TaskRun], Awaitable[Any]] | None = None,
    **options: Any,
) -> Ran:
    """Run a task to its end; `act` may do something to it meanwhile."""
    chosen = executor if isinstance(executor, AgentExecutor) else Scripted(executor)
    ran = Ran()
    task_run = make_runner(chosen, **options).start(todo or make_todo(), ran.events.append)
    if act is not None:
        await act(task_run)
    await task_run.wait()
    return ran


def after(seconds: float, then: Callable[[TaskRun], Any]) -> Callable[[TaskRun], Awaitable[None]]:
    """For `act`: wait, then do."""

    async def act(task_run: TaskRun) -> None:
        await asyncio.sleep(seconds)
        then(task_run)

    return act


def updater(queue: EventQueue) -> TaskUpdater:
    return TaskUpdater(queue, ID, CONTEXT)


def message(text: str = "hi", *, message_id: str = "m", role: Role = Role.ROLE_AGENT) -> Message:
    return Message(message_id=message_id, role=role, parts=[Part(text=text)])


def status(state: TaskState, text: str | None = None, **metadata: Any) -> TaskStatusUpdateEvent:
    event = TaskStatusUpdateEvent(task_id=ID, context_id=CONTEXT, status=TaskStatus(state=state))
    if text is not None:
        event.status.message.CopyFrom(message(text, message_id=f"m-{text}"))
    event.metadata.update(metadata)
    return event


def artifact(
    artifact_id: str, *texts: str, append: bool = False, last_chunk: bool = False
) -> TaskArtifactUpdateEvent:
    return TaskArtifactUpdateEvent(
        task_id=ID,
        context_id=CONTEXT,
        artifact=Artifact(artifact_id=artifact_id, parts=[Part(text=text) for text in texts]),
        append=append,
        last_chunk=last_chunk,
    )


def publisher(*events: Event) -> Step:
    """An execute() that publishes these and returns."""

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        for event in events:
            await queue.enqueue_event(event)

    return execute


class LogBook:
    """An event log as the database keeps it."""

    def __init__(self) -> None:
        self.events: list[TodoEvent] = []
        self.attempt = 0

    def add(self, event_type: str, data: dict[str, Any]) -> LogBook:
        self.events.append(
            TodoEvent(
                todolist_id=ID,
                attempt=self.attempt,
                event_type=event_type,
                event_data=data,
                seq=len(self.events) + 1,
            )
        )
        return self

    def started(self) -> LogBook:
        self.attempt += 1
        return self.add(
            EventType.STARTED,
            {"statusUpdate": {"taskId": ID, "contextId": CONTEXT, "status": {"state": "TASK_STATE_WORKING"}}},
        )

    def answered(self, text: str, message_id: str = "answer") -> LogBook:
        data = {"messageId": message_id, "role": "ROLE_USER", "parts": [{"text": text}]}
        return self.add(EventType.MESSAGE_RECEIVED, {"message": data})

    def said(self, event: Event, event_type: str | None = None) -> LogBook:
        if isinstance(event, TaskArtifactUpdateEvent):
            return self.add(event_type or EventType.ARTIFACT, {"artifactUpdate": MessageToDict(event)})
        assert isinstance(event, TaskStatusUpdateEvent)
        return self.add(event_type or EventType.PROGRESS, {"statusUpdate": MessageToDict(event)})

    def retrying(self) -> LogBook:
        return self.add(EventType.RETRYING, {"retry": {"failures": 1, "maxFailures": 3}})

    def extend(self, events: Collection[TodoEvent]) -> LogBook:
        for event in events:
            self.add(event.event_type, dict(event.event_data))
        return self

    def todo(self, **columns: Any) -> Todo:
        """The row as the next claim would return it; call after `started`."""
        return make_todo(attempt=self.attempt, seq=len(self.events), **columns)

    async def load(self, todolist_id: str) -> list[TodoEvent]:
        assert todolist_id == ID
        return list(self.events)
