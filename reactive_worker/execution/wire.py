"""A2A events as JSON and back: the shape of `events.event_data`, of streams and of the wire."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias, TypeVar, cast

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

from reactive_worker.errors import EventRefusedError
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
        NaN or Infinity in `data` or `metadata`, or nesting too deep to be read again.
    """
    try:
        data = json_format.MessageToDict(to_stream_response(event))
        raw = event.SerializeToString()
        # Protobuf's own zero bytes make this a filter, not a proof; the walk behind it is the expensive half.
        if b"\0" in raw:
            cleaned = cast("dict[str, Any]", without_nul(data))
            # Most of the time the zero was a length or a number: comparing is cheap, parsing again is not.
            if cleaned != data:
                return cast("E_", payload_of(json_format.ParseDict(cleaned, StreamResponse()))), cleaned
        if len(raw) > _TOO_SHORT_TO_BE_DEEP:
            _check_depth(data)
    except json_format.SerializeToJsonError as error:
        raise EventRefusedError(
            f"This {type(event).__name__} cannot be written as JSON (NaN and Infinity are no JSON): {error}"
        ) from error
    except (json_format.ParseError, protobuf.Error, RecursionError) as error:
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
    depth = 0
    level: list[Any] = [data]
    while level and depth <= _MAX_JSON_DEPTH:
        depth += 1
        following: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                following.extend(cast("dict[str, Any]", item).values())
            elif isinstance(item, list):
                following.extend(cast("list[Any]", item))
        level = following
    if level:
        json_format.ParseDict(data, StreamResponse())


def decode(data: Mapping[str, Any]) -> Event | None:
    """Read `events.event_data` back; None when it is no A2A event (a retry note, a later version's kind).

    Raises json_format.ParseError when it has the name of an A2A event but not its form.
    """
    response = json_format.ParseDict(dict(data), StreamResponse(), ignore_unknown_fields=True)
    return payload_of(response)


def payload_of(response: StreamResponse) -> Event | None:
    """The one event inside a StreamResponse."""
    kind = response.WhichOneof("payload")
    return None if kind is None else cast("Event", getattr(response, kind))


def decode_request(data: Mapping[str, Any]) -> SendMessageRequest | None:
    """Read a `message_received` event: ``{"message": {...}}``, with the client's whole request where there
    was one."""
    if not isinstance(data.get("message"), Mapping):
        return None
    return json_format.ParseDict(dict(data), SendMessageRequest(), ignore_unknown_fields=True)


def as_json(value: Message | Artifact | Part) -> dict[str, Any]:
    """A piece of an event as JSON, storable in jsonb."""
    return cast("dict[str, Any]", without_nul(json_format.MessageToDict(value)))


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
