"""What a ``phx_join`` asks for, and why some are refused."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from reactive_worker.local.realtime.tokens import KeyRing, Token, TokenError, api_key_token, verify

TOPIC_PREFIX = "realtime:"


class JoinRefusedError(Exception):
    """A join is refused; the text is the reply's reason."""


@dataclass(frozen=True)
class Join:
    """A join that is in order."""

    name: str
    token: Token
    #: Bindings as sent.
    bindings: tuple[Mapping[str, Any], ...]
    broadcast_ack: bool
    broadcast_self: bool
    presence_enabled: bool
    presence_key: str
    #: False for the old API, where the topic names a table and events are named after the kind of change.
    configured: bool


def _object(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _flag(value: Any) -> bool:
    # Booleans may arrive as texts.
    return value is True or value == "true"


def _table_of(name: str) -> dict[str, Any]:
    """The binding an old-style topic stands for: ``schema``, ``schema:table`` or ``schema:table:filter``."""
    return dict(zip(("schema", "table", "filter"), name.split(":", 2), strict=False))


def _token_text(payload: Mapping[str, Any], connection: str) -> str:
    access, user = payload.get("access_token"), payload.get("user_token")
    first = access if access is not None else user
    if isinstance(first, str) and first.startswith("sb_"):
        return connection
    for candidate in (user, access):
        if isinstance(candidate, str):
            return candidate
    return connection


def read_join(topic: str, payload: Any, keys: KeyRing, connection_token: str) -> Join:
    """Read a join's payload and judge its token.

    Parameters
    ----------
    topic:
        With its prefix.
    connection_token:
        The token the socket was opened with: used when the join brings none, or a new-style key.

    Raises
    ------
    JoinRefusedError
        With the reason to answer.
    """
    name = topic.removeprefix(TOPIC_PREFIX)
    if not name:
        raise JoinRefusedError("TopicNameRequired: You must provide a topic name")
    fields = _object(payload)
    config = _object(fields.get("config"))
    if (broadcast := config.get("broadcast")) is not None and not isinstance(broadcast, Mapping):
        # What the real server says when it trips over this.
        raise JoinRefusedError("UnknownErrorOnChannel: no function clause matching in Access.get/3")
    try:
        token = verify(keys, api_key_token(keys, _token_text(fields, connection_token)))
    except TokenError as error:
        raise JoinRefusedError(error.join_reason) from error
    if _flag(config.get("private")):
        raise JoinRefusedError(
            "PrivateChannelsNotSupported: private channels are not supported by the embedded Realtime yet:"
            f" join {name} with private set to false"
        )
    if isinstance(broadcast, Mapping) and "replay" in broadcast:
        raise JoinRefusedError("UnableToReplayMessages: Replay is not allowed for public channels")
    if "config" in fields:
        listed: Any = config.get("postgres_changes")
        entries = cast("list[Any]", listed) if isinstance(listed, list) else []
        bindings = tuple(_object(entry) for entry in entries if isinstance(entry, Mapping))
    else:
        bindings = (_table_of(name),)
    options, presence = _object(broadcast), _object(config.get("presence"))
    key: Any = presence.get("key")
    return Join(
        name,
        token,
        bindings,
        broadcast_ack=_flag(options.get("ack")),
        broadcast_self=_flag(options.get("self")),
        presence_enabled=_flag(presence.get("enabled")),
        presence_key=key if isinstance(key, str) and key else str(uuid.uuid1()),
        configured="config" in fields,
    )
