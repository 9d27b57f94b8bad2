"""A task's event log, read for its next turn: which message it answers, and what came before."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from a2a.types import Message, Part, Role, SendMessageRequest, Task, TaskState
from a2a.utils.errors import InvalidAgentResponseError
from google.protobuf import message as protobuf

from reactive_worker.errors import InvalidTaskError
from reactive_worker.execution.files import files_of
from reactive_worker.execution.fold import Fold
from reactive_worker.execution.numbers import deeper_than, parse
from reactive_worker.execution.sanitise import redact
from reactive_worker.execution.wire import data_of, decode, decode_request, status_event
from reactive_worker.models import MOST_LEVELS, EventType, Todo, TodoEvent

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
    #: The data parts of this turn's message as JSON: numbers as they were sent.
    data: tuple[Any, ...] = ()


def ids_of(todo: Todo) -> tuple[str, str]:
    """A2A task id and context id of a row."""
    return todo.id, todo.context_id or todo.id


def request_of(todo: Todo) -> SendMessageRequest:
    """The request a row stands for: prompt as text, `input_data` as a data part, files as file parts.

    Raises
    ------
    InvalidTaskError
        `input_data` cannot be a data part: it is nested too deeply, or holds a number beyond all floats.
    """
    task_id, context_id = ids_of(todo)
    message = Message(message_id=todo.id, role=Role.ROLE_USER, task_id=task_id, context_id=context_id)
    message.parts.add(text=todo.prompt)
    try:
        for data in _data_of(todo):
            _check_depth(data, MOST_LEVELS)
            parse(data, message.parts.add().data)
        message.parts.extend(files_of(todo.input_data))
    except (InvalidTaskError, protobuf.Error) as error:
        raise InvalidTaskError(f"input_data cannot be given to an agent: {error}") from error
    return SendMessageRequest(message=message)


def _check_depth(data: Any, levels: int) -> None:
    if deeper_than(data, levels):
        raise InvalidTaskError(f"it is nested too deeply, A2A data has {MOST_LEVELS} levels at most")


def _data_of(todo: Todo) -> tuple[Any, ...]:
    data = todo.input_data
    if files_of(data):
        data = {name: item for name, item in todo.input_data.items() if name != "files"}
    return (data,) if data else ()


def new_conversation(todo: Todo) -> Conversation:
    """The start of a task nobody has said anything about. Raises InvalidTaskError."""
    request = request_of(todo)
    fold = Fold(*ids_of(todo), request.message)
    _start(fold, todo)
    return Conversation(fold, request, None, "first", 0, data=_data_of(todo))


def bare_conversation(todo: Todo) -> Conversation:
    """The start of a task of which not even the first message can be made: enough to say how it ended."""
    request = _bare_request(todo)
    return Conversation(Fold(*ids_of(todo), request.message), request, None, "first", 0)


def _bare_request(todo: Todo) -> SendMessageRequest:
    task_id, context_id = ids_of(todo)
    parts = [Part(text=todo.prompt)]
    return SendMessageRequest(
        message=Message(
            message_id=todo.id, role=Role.ROLE_USER, task_id=task_id, context_id=context_id, parts=parts
        )
    )


def _request_or_bare(todo: Todo) -> SendMessageRequest:
    try:
        return request_of(todo)
    except InvalidTaskError as error:
        _logger.warning("task %s is shown without its input_data: %s", todo.id, redact(str(error)))
        return _bare_request(todo)


def read_log(todo: Todo, events: Iterable[TodoEvent], *, for_run: bool = False) -> Conversation:
    """Fold a task's log and find the message the current attempt has to answer.

    The log may hold what a client or a later version wrote: what cannot be read is logged and left out.

    Parameters
    ----------
    for_run:
        The row's attempt is about to run: then the message it has to answer must not be left out.

    Raises
    ------
    InvalidTaskError
        For a run only: its message cannot be read.
    """
    log = sorted(events, key=lambda event: event.seq or 0)
    request = request_of(todo) if for_run else _request_or_bare(todo)
    data = _data_of(todo)
    unreadable: InvalidTaskError | None = None
    fold: Fold | None = None
    before: Task | None = None
    answers = starts = last_attempt = 0
    spoken = recorded = False
    for event in log:
        if event.event_type == EventType.MESSAGE_RECEIVED:
            try:
                request = _received(todo, event)
            except InvalidTaskError as error:
                _skip(event, error)
                # Answered by every attempt after the one that asked.
                unreadable = error if todo.attempt > event.attempt else None
                continue
            unreadable = None
            data = data_of(event.event_data["message"])
            recorded = True
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
    if unreadable is not None and for_run:
        raise InvalidTaskError(f"the answer cannot be given to an agent: {unreadable}")
    fold = fold or Fold(*ids_of(todo), request.message)
    if todo.attempt > last_attempt and not todo.is_finished:
        starts += 1
        _start(fold, todo)
    if answers == 0 and spoken:
        before = fold.snapshot()
    reason: RunReason = "rerun" if starts > 1 else "answer" if answers else "first"
    return Conversation(fold, request, before, reason, answers, recorded, data)


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


def _received(todo: Todo, event: TodoEvent) -> SendMessageRequest:
    if event.unreadable is not None:
        raise InvalidTaskError(event.unreadable)
    # Its data lie below the event, the message, its parts and one of them.
    _check_depth(event.event_data, MOST_LEVELS + 4)
    request = decode_request(event.event_data)
    if request is None:
        raise InvalidTaskError("it holds no message")
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
    except (InvalidTaskError, InvalidAgentResponseError, protobuf.Error) as error:
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
