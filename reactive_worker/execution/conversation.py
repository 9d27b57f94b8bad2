"""A task's event log, read for its next turn: which message it answers, and what came before."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from a2a.types import Message, Part, Role, SendMessageRequest, Task, TaskState
from a2a.utils.errors import InvalidAgentResponseError
from google.protobuf import json_format, struct_pb2
from google.protobuf import message as protobuf

from reactive_worker.execution.files import files_of
from reactive_worker.execution.fold import Fold
from reactive_worker.execution.sanitise import redact
from reactive_worker.execution.wire import decode, decode_request, status_event
from reactive_worker.models import EventType, Todo, TodoEvent

_logger = logging.getLogger(__name__)

#: Why `execute()` is called: the task is new, its question was answered, or an earlier run of the same turn
#: was lost, failed or released.
RunReason: TypeAlias = Literal["first", "answer", "rerun"]

#: Events in which an executor says something; the others are the worker's and the database's own.
_SPOKEN = frozenset(
    {EventType.PROGRESS, EventType.ARTIFACT, EventType.INPUT_REQUIRED, EventType.AUTH_REQUIRED}
)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What one run starts from."""

    #: The whole log folded; what this run says is folded on top.
    fold: Fold
    #: The user's message of this turn, as a request. Private to this run.
    request: SendMessageRequest
    #: `current_task` for the executor: the Task before this turn's message; None when there is nothing to
    #: continue.
    current_task: Task | None
    reason: RunReason
    #: Turns before this one: 0 until the first answer.
    answers: int
    #: True when the log held any A2A event at all.
    recorded: bool = False


def ids_of(todo: Todo) -> tuple[str, str]:
    """A2A task id and context id of a row."""
    return todo.id, todo.context_id or todo.id


def request_of(todo: Todo) -> SendMessageRequest:
    """The request a row stands for: prompt as text, `input_data` as a data part, files as file parts."""
    task_id, context_id = ids_of(todo)
    parts = [Part(text=todo.prompt)]
    files = files_of(todo.input_data)
    data = todo.input_data
    if files:
        data = {name: item for name, item in todo.input_data.items() if name != "files"}
    if data:
        try:
            value = json_format.ParseDict(data, struct_pb2.Value())
            parts.append(Part(data=value))
        except (json_format.Error, protobuf.Error, RecursionError, ValueError) as error:
            # Protobuf values end at about 30 levels; the executor still finds everything in
            # `context.input_data`.
            _logger.warning(
                "input_data of task %s is left out of its message, it cannot be an A2A data part: %s",
                todo.id,
                redact(str(error)),
            )
    parts += files
    message = Message(
        message_id=todo.id, role=Role.ROLE_USER, task_id=task_id, context_id=context_id, parts=parts
    )
    return SendMessageRequest(message=message)


def new_conversation(todo: Todo) -> Conversation:
    """The start of a task nobody has said anything about."""
    request = request_of(todo)
    fold = Fold(*ids_of(todo), request.message)
    _start(fold, todo)
    return Conversation(fold, request, None, "first", 0)


def read_log(todo: Todo, events: Iterable[TodoEvent]) -> Conversation:
    """Fold a task's log and find the message the current attempt has to answer.

    The log may hold what a client or a later version wrote: what cannot be read is logged and left out.
    """
    log = sorted(events, key=lambda event: event.seq or 0)
    request = request_of(todo)
    fold: Fold | None = None
    before: Task | None = None
    answers = starts = last_attempt = 0
    spoken = recorded = False
    for event in log:
        if event.event_type == EventType.MESSAGE_RECEIVED:
            received = _received(todo, event)
            if received is None:
                continue
            recorded = True
            request = received
            if fold is not None:
                before = fold.snapshot()
                fold.receive(request.message)
                answers += 1
                starts = 0
            continue
        fold = fold or Fold(*ids_of(todo), request.message)
        if event.event_type == EventType.STARTED:
            starts += 1
            last_attempt = event.attempt
            fold.begin_attempt()
        recorded |= _apply(fold, event)
        spoken |= event.event_type in _SPOKEN
    fold = fold or Fold(*ids_of(todo), request.message)
    if todo.attempt > last_attempt and not todo.is_finished:
        starts += 1
        _start(fold, todo)
    if answers == 0 and spoken:
        before = fold.snapshot()
    reason: RunReason = "rerun" if starts > 1 else "answer" if answers else "first"
    return Conversation(fold, request, before, reason, answers, recorded)


def fold_events(todo: Todo, events: Iterable[TodoEvent]) -> Task | None:
    """The A2A Task a task's event log amounts to; None when nothing of A2A was logged yet.

    Parameters
    ----------
    todo:
        The row: gives the ids and the first message.
    events:
        All of its events; order does not matter, `seq` does.
    """
    conversation = read_log(todo, events)
    return conversation.fold.snapshot() if conversation.recorded else None


def _start(fold: Fold, todo: Todo) -> None:
    # Claiming writes `task_started`, so this stands for an event that exists in the database.
    fold.begin_attempt()
    moment = todo.updated_at or todo.started_at or todo.created_at
    fold.apply(status_event(*ids_of(todo), TaskState.TASK_STATE_WORKING, text=None, now=moment))


def _received(todo: Todo, event: TodoEvent) -> SendMessageRequest | None:
    try:
        request = decode_request(event.event_data)
    except json_format.Error as error:
        _skip(event, error)
        return None
    if request is None:
        _skip(event, "it holds no message")
        return None
    request.message.task_id, request.message.context_id = ids_of(todo)
    if request.message.role == Role.ROLE_UNSPECIFIED:
        request.message.role = Role.ROLE_USER
    if not request.message.message_id:
        request.message.message_id = event.id
    return request


def _apply(fold: Fold, event: TodoEvent) -> bool:
    try:
        payload = decode(event.event_data)
        if payload is None:
            return False
        fold.apply(payload)
    except (json_format.Error, InvalidAgentResponseError, protobuf.Error) as error:
        _skip(event, error)
        return False
    return True


def _skip(event: TodoEvent, why: object) -> None:
    _logger.warning(
        "event %s of task %s (%s) is left out of its history: %s",
        event.seq,
        event.todolist_id,
        event.event_type,
        redact(str(why)),
    )
