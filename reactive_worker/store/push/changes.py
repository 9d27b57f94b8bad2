"""Changes of tables as Realtime tells them (postgres_changes), over a supervised link."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from realtime import AsyncRealtimeChannel, AsyncRealtimeClient

from reactive_worker.access.credentials import Credentials
from reactive_worker.models import PushHealth
from reactive_worker.store.push.link import Link, either

logger = logging.getLogger(__name__)

#: The first subscription after a server start takes 1.2 to 1.7 s to become ready, retries up to 10 s.
READY_TIMEOUT = 30.0

ChangeKind = Literal["INSERT", "UPDATE", "DELETE"]


@dataclass(frozen=True, slots=True)
class Binding:
    """What to hear: changes of one table, filtered on the server."""

    table: str
    event: ChangeKind
    filter: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One change as Realtime told it. `record` is empty for DELETE."""

    table: str
    kind: str
    record: Mapping[str, Any]


class RealtimeLink(Link):
    """Hears changes of tables (postgres_changes) on one channel.

    Parameters
    ----------
    url, key, on_ready, on_health:
        As `Link` takes them.
    topic:
        Channel name; any.
    bindings:
        What to hear. Never the same binding twice: the server collapses them.
    on_change:
        Called in the event loop with every `Change`; an exception in it is logged and costs that change only.

    Example
    -------
    >>> link = RealtimeLink(url, key, "x", [Binding("events", "INSERT")], on_change=print)  # doctest: +SKIP
    >>> await link.start()  # doctest: +SKIP
    """

    def __init__(
        self,
        url: str,
        key: str | Credentials,
        topic: str,
        bindings: Sequence[Binding],
        *,
        on_change: Callable[[Change], None],
        on_ready: Callable[[], None] = lambda: None,
        on_health: Callable[[PushHealth], None] = lambda health: None,
    ) -> None:
        super().__init__(url, key, "realtime (changes)", on_ready=on_ready, on_health=on_health)
        self._topic = topic
        self._bindings = tuple(bindings)
        self._on_change = on_change

    def _channels(self, client: AsyncRealtimeClient) -> list[AsyncRealtimeChannel]:
        channel = client.channel(self._topic)
        for binding in self._bindings:
            channel.on_postgres_changes(
                cast("Any", binding.event),
                self._heard,
                table=binding.table,
                schema="public",
                filter=binding.filter,
            )
        return [channel]

    async def _join(self, channels: Sequence[AsyncRealtimeChannel], broken: asyncio.Event) -> None:
        ready = asyncio.Event()
        (channel,) = channels

        # on_system hears ok only; an error arrives as CHANNEL_ERROR through _on_status.
        def on_system(payload: Any) -> None:
            if self.is_live:
                # Subscribed anew, with another token: what the old one could not see was not told.
                self._on_ready()
            ready.set()

        channel.on_system(on_system)
        await channel.subscribe(self._on_status)
        # Changes flow from the system message on, not from the join reply.
        deadline = asyncio.get_running_loop().time() + READY_TIMEOUT
        while not ready.is_set() and not broken.is_set():
            if asyncio.get_running_loop().time() > deadline:
                self._break(f"joined, but not told that it is subscribed within {READY_TIMEOUT:g} s")
                return
            await either(ready, broken, timeout=1.0)

    def _heard(self, payload: Any) -> None:
        def use() -> None:
            data = payload["data"]
            if data.get("errors"):
                logger.warning("realtime reports %s for table %s", data["errors"], data.get("table"))
            kind = _kind(data["type"])
            self._on_change(Change(str(data["table"]), kind, data.get("record") or {}))

        self._use(use)


def _kind(value: Any) -> str:
    return str(getattr(value, "value", value))
