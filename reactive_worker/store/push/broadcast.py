"""A supervised membership in private Broadcast channels."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from realtime import AsyncRealtimeChannel, AsyncRealtimeClient, RealtimeSubscribeStates
from realtime.types import RealtimeChannelOptions

from reactive_worker.access.credentials import Credentials
from reactive_worker.models import PushHealth
from reactive_worker.store.push.link import Link

#: Channels one socket may have; more are refused.
MOST_TOPICS = 100
#: What a server says to somebody who may not be here, as opposed to what passes by itself.
_REFUSALS = ("Unauthorized", "PrivateOnly", "TopicNameRequired")


def _options() -> RealtimeChannelOptions:
    # One for each channel: realtime-py writes into it.
    return {
        "config": {
            "broadcast": {"ack": False, "self": False},
            "presence": {"key": "", "enabled": False},
            "private": True,
        }
    }


class BroadcastLink(Link):
    """Hears what the database sends to private topics (`realtime.send`).

    It has a socket of its own: a refused join makes the server leave everything else on its socket waiting
    for 5 s.

    Parameters
    ----------
    url, key, on_ready, on_health:
        As `Link` takes them.
    topics:
        What to hear, at most `MOST_TOPICS`. The first is joined first; when it is refused, the others are not
        asked for.
    on_message:
        Called in the event loop with ``(event, payload)``; an exception in it is logged and costs that
        message only.

    Example
    -------
    >>> link = BroadcastLink(url, key, ["jobs:1"], on_message=print)  # doctest: +SKIP
    >>> await link.start()  # doctest: +SKIP
    """

    def __init__(
        self,
        url: str,
        key: str | Credentials,
        topics: Sequence[str],
        *,
        on_message: Callable[[str, Mapping[str, Any]], None],
        on_ready: Callable[[], None] = lambda: None,
        on_health: Callable[[PushHealth], None] = lambda health: None,
    ) -> None:
        super().__init__(url, key, "realtime (broadcast)", on_ready=on_ready, on_health=on_health)
        self._topics = tuple(topics)
        self._on_message = on_message
        self._joining = True

    def _channels(self, client: AsyncRealtimeClient) -> list[AsyncRealtimeChannel]:
        self._joining = True
        channels = [client.channel(topic, _options()) for topic in self._topics]
        for channel in channels:
            channel.on_broadcast("*", self._heard)
        return channels

    async def _join(self, channels: Sequence[AsyncRealtimeChannel], broken: asyncio.Event) -> None:
        # Messages flow from the reply on: there is no system message to wait for.
        first, *others = channels
        await first.subscribe(self._on_status)
        if others and not broken.is_set():
            await asyncio.gather(*(channel.subscribe(self._on_status) for channel in others))
        self._joining = False

    def _on_status(self, status: RealtimeSubscribeStates, error: Exception | None) -> None:
        if self._joining and status is RealtimeSubscribeStates.CHANNEL_ERROR:
            reason = _reason(error)
            if reason.startswith(_REFUSALS):
                self._refuse(reason)
        super()._on_status(status, error)

    def _heard(self, message: Any) -> None:
        self._use(lambda: self._on_message(str(message["event"]), message["payload"]))


def _reason(error: Exception | None) -> str:
    """The `reason` of a refused join, which realtime-py hands over as JSON in an exception."""
    try:
        said = json.loads(str(error))
    except ValueError:
        return ""
    return str(cast("dict[str, Any]", said).get("reason", "")) if isinstance(said, dict) else ""
