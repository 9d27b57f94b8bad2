"""The official Python client as judge: supabase-py with realtime-py, against REST and Realtime together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from realtime import AsyncRealtimeChannel, RealtimeSubscribeStates
from supabase import AsyncClient, acreate_client

from reactive_worker.local.gateway import Gateway
from tests.integration.realtime.harness import PATIENCE

Heard = asyncio.Queue[Any]


@pytest.fixture
async def supabase(local_supabase: Gateway) -> AsyncGenerator[AsyncClient]:
    """A client with the service key."""
    client = await acreate_client(local_supabase.api_url, local_supabase.service_role_key)
    yield client
    await client.realtime.close()
    await client.postgrest.aclose()


async def _next(heard: Heard) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await heard.get()


async def _subscribe(channel: AsyncRealtimeChannel) -> Heard:
    """Subscribe and return the states and system messages to come."""
    states: Heard = asyncio.Queue()
    channel.on_system(lambda payload: states.put_nowait(payload))
    await channel.subscribe(lambda state, error: states.put_nowait((state, error)))
    return states


async def test_inserts_updates_and_deletes_are_heard(supabase: AsyncClient) -> None:
    heard: Heard = asyncio.Queue()
    channel = supabase.channel("tasks")
    channel.on_postgres_changes("*", heard.put_nowait, table="todolist", schema="public")
    channel.on_postgres_changes(
        "INSERT", heard.put_nowait, table="todolist", schema="public", filter="agent_type=in.(other,more)"
    )
    states = await _subscribe(channel)
    assert (await _next(states))[0] == RealtimeSubscribeStates.SUBSCRIBED
    assert (await _next(states)).message == "Subscribed to PostgreSQL"

    row = {"agent_type": "mail", "prompt": "hello"}
    answer = await supabase.rpc("submit_todos", {"p_rows": [row]}).execute()
    (submitted,) = answer.data
    change = await _next(heard)
    assert change["data"]["type"] == "INSERT"
    assert change["data"]["record"]["id"] == submitted["id"]
    assert change["data"]["record"]["prompt"] == "hello"

    await supabase.table("todolist").update({"priority": 7}).eq("id", submitted["id"]).execute()
    change = await _next(heard)
    assert change["data"]["type"] == "UPDATE"
    assert change["data"]["record"]["priority"] == 7
    assert change["data"]["old_record"] == {"id": submitted["id"]}

    await supabase.table("todolist").delete().eq("id", submitted["id"]).execute()
    assert (await _next(heard))["data"]["old_record"] == {"id": submitted["id"]}

    await supabase.table("todolist").insert({"agent_type": "more", "prompt": "both bindings"}).execute()
    first, second = await _next(heard), await _next(heard)
    assert first == second
    assert len(first["ids"]) == 2


async def test_broadcasts_and_presence(supabase: AsyncClient) -> None:
    heard: Heard = asyncio.Queue()
    there: Heard = asyncio.Queue()
    room = supabase.channel("room", {"config": {"broadcast": {"self": True}, "presence": {"key": "w1"}}})  # type: ignore[arg-type]
    room.on_broadcast("wake", heard.put_nowait)
    room.on_presence_join(lambda key, current, new: there.put_nowait(("join", key)))
    room.on_presence_leave(lambda key, current, left: there.put_nowait(("leave", key)))
    states = await _subscribe(room)
    assert (await _next(states))[0] == RealtimeSubscribeStates.SUBSCRIBED
    await room.send_broadcast("wake", {"queue": "mail"})
    assert (await _next(heard))["payload"] == {"queue": "mail"}
    await room.track({"worker": "w1"})
    assert await _next(there) == ("join", "w1")
    await room.untrack()
    assert await _next(there) == ("leave", "w1")
    await room.unsubscribe()
    assert (await _next(states))[0] == RealtimeSubscribeStates.CLOSED


async def test_a_bad_filter_is_told_as_a_channel_error(supabase: AsyncClient) -> None:
    channel = supabase.channel("bad")
    channel.on_postgres_changes("*", print, table="todolist", schema="public", filter="nocol=eq.1")
    states = await _subscribe(channel)
    assert (await _next(states))[0] == RealtimeSubscribeStates.SUBSCRIBED
    state, error = await _next(states)
    assert state == RealtimeSubscribeStates.CHANNEL_ERROR
    assert "invalid column for filter nocol" in str(error)


@pytest.mark.parametrize("code", [1006, 1012])
async def test_a_dropped_client_comes_back(local_supabase: Gateway, supabase: AsyncClient, code: int) -> None:
    heard: Heard = asyncio.Queue()
    channel = supabase.channel("tasks")
    channel.on_postgres_changes("INSERT", heard.put_nowait, table="todolist", schema="public")
    states = await _subscribe(channel)
    assert (await _next(states))[0] == RealtimeSubscribeStates.SUBSCRIBED
    assert (await _next(states)).status == "ok"
    local_supabase.faults.drop_sockets(code)
    seen = [await _next(states) for _ in range(3)]
    assert [state[0] for state in seen[:2]] == [
        RealtimeSubscribeStates.CHANNEL_ERROR,
        RealtimeSubscribeStates.SUBSCRIBED,
    ]
    assert seen[2].status == "ok"
    await supabase.table("todolist").insert({"agent_type": "x", "prompt": "again"}).execute()
    assert (await _next(heard))["data"]["record"]["prompt"] == "again"
