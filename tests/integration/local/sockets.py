"""Realtime sockets of the REST tests' gateway, as an attacker uses them."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from tests.integration.local.conftest import Api
from tests.integration.realtime.harness import Client, Frame

VERSIONS = ("1.0.0", "2.0.0")

Connect = Callable[..., Coroutine[Any, Any, Client]]


def url(api: Api, key: str | None = None, version: str = "1.0.0") -> str:
    base = api.gateway.api_url.replace("http", "ws")
    return f"{base}/realtime/v1/websocket?apikey={key or api.gateway.anon_key}&vsn={version}"


def frame(version: str, topic: Any, event: Any, payload: str, ref: str = '"1"') -> str:
    """A frame with any text as payload."""
    topic, event = json.dumps(topic), json.dumps(event)
    if version == "2.0.0":
        return f"[{ref},{ref},{topic},{event},{payload}]"
    return f'{{"topic":{topic},"event":{event},"payload":{payload},"ref":{ref},"join_ref":{ref}}}'


async def reply_to_join(client: Client, topic: str, payload: Any, ref: str) -> Frame:
    """Join with any payload and return the reply."""
    await client.send(topic, "phx_join", payload, ref=ref, join_ref=ref)
    return await client.next(lambda each: each["event"] == "phx_reply" and each["ref"] == ref)
