"""What a ``phx_join`` asks for, and why some are refused."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from reactive_worker.local.realtime.tokens import KeyRing, Token, TokenError, api_key_token, verify

TOPIC_PREFIX = "realtime:"


#: Most messages that are replayed.
MOST_REPLAYED = 25


class JoinRefusedError(Exception):
    """A join is refused; the text is the reply's reason."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What a member wants to hear of the past."""

    #: Milliseconds since 1970.
    since: int
    limit: int


@dataclass(frozen=True)
class Join:
    """A join that is in order, but for the policies on a private channel, which are yet to be asked."""

    name: str
    token: Token
    private: bool
    #: Bindings as sent.
    bindings: tuple[Mapping[str, Any], ...]
    broadcast_ack: bool
    broadcast_self: bool
    replay: Replay | None
    #: The client wants to be told when messages of the database flow.
    replication_ready: bool
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


def _replay(options: Mapping[str, Any], *, private: bool) -> Replay | None:
    if options.get("replay") is None:
        return None
    if not private:
        raise JoinRefusedError("UnableToReplayMessages: Replay is not allowed for public channels")
    wanted = _object(options["replay"])
    since, limit = wanted.get("since"), wanted.get("limit", MOST_REPLAYED)
    # An integer, and bool is none.
    if type(since) is not int or type(limit) is not int:
        raise JoinRefusedError("UnableToReplayMessages: Replay params are not valid")
    return Replay(since, max(1, min(limit, MOST_REPLAYED)))


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
    private = _flag(config.get("private"))
    options, presence = _object(broadcast), _object(config.get("presence"))
    replay = _replay(options, private=private)
    if "config" in fields:
        listed: Any = config.get("postgres_changes")
        entries = cast("list[Any]", listed) if isinstance(listed, list) else []
        bindings = tuple(_object(entry) for entry in entries if isinstance(entry, Mapping))
    else:
        bindings = (_table_of(name),)
    key: Any = presence.get("key")
    return Join(
        name,
        token,
        private,
        bindings,
        broadcast_ack=_flag(options.get("ack")),
        broadcast_self=_flag(options.get("self")),
        replay=replay,
        replication_ready=_flag(options.get("replication_ready")),
        presence_enabled=_flag(presence.get("enabled")),
        presence_key=key if isinstance(key, str) and key else str(uuid.uuid1()),
        configured="config" in fields,
    )
