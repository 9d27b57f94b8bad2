"""Async clients of supabase-py, and what they hear."""

from __future__ import annotations

import asyncio
from typing import Any

from realtime import AsyncRealtimeChannel, RealtimeSubscribeStates
from supabase import AsyncClient, acreate_client

from tests.conformance.target import Target

#: Seconds that what must come may take; a hosted project is slower than the embedded one.
PATIENCE = 20.0
SUBSCRIBED, CLOSED, ERROR = (
    RealtimeSubscribeStates.SUBSCRIBED,
    RealtimeSubscribeStates.CLOSED,
    RealtimeSubscribeStates.CHANNEL_ERROR,
)


class Heard:
    """What a channel has said, in order."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()

    async def next(self) -> Any:
        async with asyncio.timeout(PATIENCE):
            return await self.queue.get()

    def put(self, *what: Any) -> None:
        self.queue.put_nowait(what[0] if len(what) == 1 else what)


class Clients:
    """Async clients that are closed after the test."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._made: list[AsyncClient] = []

    async def client(self, key: str | None = None, token: str | None = None) -> AsyncClient:
        client = await acreate_client(self.target.url, key or self.target.service_key)
        self._made.append(client)
        if token is not None:
            await client.realtime.set_auth(token)
        return client

    async def subscribe(self, channel: AsyncRealtimeChannel, *, changes: bool = True) -> Heard:
        """Subscribe, and wait until changes flow if the channel asks for any."""
        states = Heard()
        channel.on_system(states.put)
        await channel.subscribe(states.put)
        assert (await states.next())[0] == SUBSCRIBED
        if changes:
            assert (await states.next()).message == "Subscribed to PostgreSQL"
        return states

    async def changes(
        self,
        table: str,
        event: str = "*",
        *,
        key: str | None = None,
        token: str | None = None,
        **binding: Any,
    ) -> Heard:
        """Subscribe to one table's changes."""
        heard = Heard()
        client = await self.client(key, token)
        channel = client.channel(f"changes-{len(self._made)}")
        channel.on_postgres_changes(
            event, heard.put, table=self.target.name(table), schema="public", **binding
        )  # type: ignore[arg-type]
        await self.subscribe(channel)
        return heard

    async def close(self) -> None:
        for client in self._made:
            await client.realtime.close()
            await client.postgrest.aclose()
