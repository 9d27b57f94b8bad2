"""Frames on the wire: Phoenix protocol versions 1.0.0 (objects) and 2.0.0 (lists and binary)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, cast

from reactive_worker.local.json_text import read_json

Version = Literal["1.0.0", "2.0.0"]
VERSIONS: tuple[Version, ...] = ("1.0.0", "2.0.0")

_PUSH_USER_BROADCAST = 3
_USER_BROADCAST = 4


@dataclass(frozen=True, slots=True)
class Raw:
    """JSON text that goes into a frame as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class UserBroadcast:
    """A broadcast whose payload is passed on as it came: in a binary frame (2.0.0), or over HTTP or SQL."""

    event: str
    data: bytes
    #: True: `data` is JSON; False: arbitrary bytes.
    is_json: bool
    #: Id of its row, for a message of the database.
    message_id: str | None = None

    @property
    def meta(self) -> str:
        """The metadata members get with it, as JSON; empty when there is none."""
        return "" if self.message_id is None else dumps({"id": self.message_id})


@dataclass(frozen=True, slots=True)
class Inbound:
    """A frame from a client."""

    topic: str
    event: str
    payload: Any
    ref: str | None
    join_ref: str | None


def dumps(value: Any) -> str:
    """Compact JSON with sorted keys, as the real server writes it."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def _payload(payload: Any) -> str:
    return payload.text if isinstance(payload, Raw) else dumps(payload)


def encode(
    version: Version, topic: str, event: str, payload: Any, *, ref: str | None, join_ref: str | None
) -> str:
    """Write one text frame.

    Parameters
    ----------
    payload:
        Anything JSON can hold, or a Raw.
    ref, join_ref:
        Reference of the request answered, and of the join the channel was made by. Version 1.0.0 has no
        place for the latter.
    """
    if version == "1.0.0":
        return (
            f'{{"event":{json.dumps(event)},"payload":{_payload(payload)},'
            f'"ref":{json.dumps(ref)},"topic":{json.dumps(topic, ensure_ascii=False)}}}'
        )
    head = f"[{json.dumps(join_ref)},{json.dumps(ref)},{json.dumps(topic, ensure_ascii=False)}"
    return f"{head},{json.dumps(event)},{_payload(payload)}]"


def _reference(value: Any) -> str | None:
    # Clients send strings; a number is tolerated and answered as a string.
    return None if value is None else str(value)


def decode_text(version: Version, text: str) -> Inbound | None:
    """Read a text frame; None for one that is not JSON or lacks a required key, which is ignored."""
    try:
        # Half a surrogate pair or an infinite number could not be passed on to the other members.
        frame: Any = read_json(text, finite=True)
    except ValueError:
        return None
    if version == "1.0.0":
        if not isinstance(frame, dict):
            return None
        fields = cast("dict[str, Any]", frame)
        if not {"topic", "event", "payload", "ref"} <= fields.keys():
            return None
        topic, event, payload = fields["topic"], fields["event"], fields["payload"]
        ref, join_ref = fields["ref"], fields.get("join_ref")
    else:
        if not isinstance(frame, list):
            return None
        items = cast("list[Any]", frame)
        if len(items) < 5:
            return None
        join_ref, ref, topic, event, payload = items[:5]
    if not isinstance(topic, str) or not isinstance(event, str):
        return None
    return Inbound(topic, event, payload, _reference(ref), _reference(join_ref))


def decode_binary(data: bytes) -> Inbound | None:
    """Read a binary broadcast push (kind 3); None for anything else, which is ignored.

    Its layout: kind, lengths of join_ref, ref, topic, event and metadata, encoding (1: JSON); then the five
    texts and the payload.
    """
    if len(data) < 7 or data[0] != _PUSH_USER_BROADCAST:
        return None
    lengths, encoding = data[1:6], data[6]
    position = 7
    texts: list[str] = []
    try:
        for length in lengths:
            texts.append(data[position : position + length].decode())
            position += length
    except UnicodeDecodeError:
        return None
    if position > len(data):
        return None
    join_ref, ref, topic, event, _metadata = texts
    payload = UserBroadcast(event, data[position:], encoding == 1)
    return Inbound(topic, "broadcast", payload, ref or None, join_ref or None)


def encode_binary(topic: str, broadcast: UserBroadcast) -> bytes:
    """Write a binary broadcast (kind 4): lengths of topic, event, metadata; encoding; texts; payload."""
    texts = [text.encode() for text in (topic, broadcast.event, broadcast.meta)]
    head = bytes((_USER_BROADCAST, *map(len, texts), int(broadcast.is_json)))
    return head + b"".join(texts) + broadcast.data


def fits_binary(topic: str, event: str) -> bool:
    """Whether topic and event fit the one-byte lengths of a binary frame."""
    return len(topic.encode()) <= 255 and len(event.encode()) <= 255


def user_broadcast_payload(broadcast: UserBroadcast) -> Raw:
    """What a member gets of a broadcast that is JSON in a text frame: the payload's text as it came."""
    event = json.dumps(broadcast.event, ensure_ascii=False)
    meta = f'"meta":{broadcast.meta},' if broadcast.meta else ""
    return Raw(f'{{"event":{event},{meta}"payload":{broadcast.data.decode()},"type":"broadcast"}}')


def is_json(data: bytes) -> bool:
    """Whether bytes are JSON that may be passed on as it is."""
    try:
        read_json(data, finite=True)
    except ValueError:
        return False
    return True
