"""A2A events as JSON and back: the shape of `events.event_data`, of streams and of the wire."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias, TypeVar, cast

from a2a.helpers import new_data_part
from a2a.types import (
    Artifact,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from a2a.utils.proto_utils import to_stream_response
from google.protobuf import json_format
from google.protobuf import message as protobuf

from reactive_worker.errors import EventRefusedError, InvalidTaskError
from reactive_worker.execution import numbers
from reactive_worker.execution.sanitise import storable, without_nul

Event: TypeAlias = Message | Task | TaskStatusUpdateEvent | TaskArtifactUpdateEvent
E_ = TypeVar("E_", bound=Event)

TERMINAL = frozenset(
    {
        TaskState.TASK_STATE_COMPLETED,
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_CANCELED,
        TaskState.TASK_STATE_REJECTED,
    }
)
INTERRUPTED = frozenset({TaskState.TASK_STATE_INPUT_REQUIRED, TaskState.TASK_STATE_AUTH_REQUIRED})


def state_name(state: int) -> str:
    """``TASK_STATE_...``: how a state is written in rows and JSON."""
    return TaskState.Name(cast("TaskState", state))


def copy_of(event: E_) -> E_:
    """A private copy: protobuf messages are mutable and executors reuse them."""
    copied = type(event)()
    cast("Any", copied).CopyFrom(event)
    return copied


def encode(event: E_) -> tuple[E_, dict[str, Any]]:
    """The event as StreamResponse JSON, and the event as it reads back from that JSON.

    Raises
    ------
    EventRefusedError
        NaN, Infinity or a float that may have been another number in `data` or `metadata`, or nesting too
        deep to be read again.
    """
    try:
        data = numbers.to_json(to_stream_response(event), strict=True)
        raw = event.SerializeToString()
        # Protobuf's own zero bytes make this a filter, not a proof; the walk behind it is the expensive half.
        if b"\0" in raw:
            cleaned = cast("dict[str, Any]", without_nul(data))
            # Most of the time the zero was a length or a number: comparing is cheap, parsing again is not.
            if cleaned != data:
                read = numbers.parse(cleaned, StreamResponse(), exact=True)
                return cast("E_", payload_of(read)), cleaned
        if len(raw) > _TOO_SHORT_TO_BE_DEEP:
            _check_depth(data)
    except json_format.SerializeToJsonError as error:
        raise EventRefusedError(
            f"This {type(event).__name__} cannot be written as JSON (NaN and Infinity are no JSON): {error}"
        ) from error
    except (InvalidTaskError, protobuf.Error, RecursionError) as error:
        raise EventRefusedError(f"This {type(event).__name__} is nested too deeply: {error}") from error
    return event, data


# ParseDict gives up at 100 levels of messages, and a `data` value takes three of them per level of JSON
# (Value, Struct or ListValue, map entry). What is written has to be readable, so the rule is applied on
# writing.
_MAX_JSON_DEPTH = 30
# A level costs four bytes at least, and the first that fails is the 47th: most events, a streamed token among
# them, are known to be flat by their length.
_TOO_SHORT_TO_BE_DEEP = 160


def _check_depth(data: dict[str, Any]) -> None:
    """Refuse what `decode` could not read again; cheap unless there is deep data."""
    if numbers.deeper_than(data, _MAX_JSON_DEPTH):
        numbers.parse(data, StreamResponse())


def decode(data: Mapping[str, Any]) -> Event | None:
    """Read `events.event_data` back; None when it is no A2A event (a retry note, a later version's kind).

    Raises InvalidTaskError when it has the name of an A2A event but not its form.
    """
    return payload_of(numbers.parse(dict(data), StreamResponse(), exact=True))


def payload_of(response: StreamResponse) -> Event | None:
    """The one event inside a StreamResponse."""
    kind = response.WhichOneof("payload")
    return None if kind is None else cast("Event", getattr(response, kind))


def decode_request(data: Mapping[str, Any]) -> SendMessageRequest | None:
    """Read a `message_received` event: ``{"message": {...}}``, with the client's whole request if it has one.

    Raises InvalidTaskError.
    """
    if not isinstance(data.get("message"), Mapping):
        return None
    return numbers.parse(dict(data), SendMessageRequest())


def data_of(message: Mapping[str, Any]) -> tuple[Any, ...]:
    """The data parts of a message's JSON, exactly as they were sent."""
    parts = cast("list[Mapping[str, Any]]", message.get("parts") or [])
    return tuple(part["data"] for part in parts if "data" in part)


def data_part(value: Any, *, exact: bool = True) -> Part:
    """A data part for an event of this worker, with whole numbers of any length.

    Parameters
    ----------
    value:
        JSON.
    exact:
        False for a queue that is not the worker's: numbers a float cannot hold are then text.

    Raises
    ------
    EventRefusedError
        NaN or Infinity, a number of more than 4,300 digits, or nesting too deep.

    Example
    -------
    >>> await updater.add_artifact([data_part({"id": 2**60 + 1})])  # doctest: +SKIP
    """
    try:
        prepared = numbers.marked(value) if exact else numbers.spelled(value)
        return new_data_part(prepared, media_type="application/json")
    except RecursionError as error:
        raise EventRefusedError(f"This data is nested too deeply: {error}") from error


def as_json(value: Message | Artifact | Part) -> dict[str, Any]:
    """A piece of an event as JSON, storable in jsonb."""
    return cast("dict[str, Any]", without_nul(numbers.to_json(value)))


def text_of(parts: Sequence[Part]) -> str | None:
    """The text parts joined by newlines; None when there is no text part."""
    texts = [part.text for part in parts if part.HasField("text")]
    return "\n".join(texts) if texts else None


def status_event(
    task_id: str, context_id: str, state: TaskState, *, text: str | None, now: datetime
) -> TaskStatusUpdateEvent:
    """A status update of our own making."""
    status = TaskStatus(state=state)
    status.timestamp.FromDatetime(now)
    if text:
        status.message.CopyFrom(
            Message(
                message_id=str(uuid.uuid4()),
                role=Role.ROLE_AGENT,
                task_id=task_id,
                context_id=context_id,
                parts=[Part(text=storable(text))],
            )
        )
    return TaskStatusUpdateEvent(task_id=task_id, context_id=context_id, status=status)
