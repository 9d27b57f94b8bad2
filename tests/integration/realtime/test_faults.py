"""The fault switches: each does what it says, and is gone when it is switched off."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from websockets.exceptions import ConnectionClosedError

from tests.integration.realtime.conftest import MakeGateway
from tests.integration.realtime.harness import PATIENCE, Gateway

Connection = psycopg.Connection[Any]

TODOLIST = {"event": "*", "schema": "public", "table": "todolist"}


def _insert(writer: Connection, kind: str) -> None:
    writer.execute("insert into todolist(agent_type) values (%s)", (kind,))


async def test_deaf_throws_changes_away_while_the_socket_lives(gateway: Gateway, writer: Connection) -> None:
    client = await gateway.client()
    await client.listen("realtime:x", TODOLIST)
    gateway.faults.deaf = True
    for number in range(5):
        _insert(writer, f"lost {number}")
    assert gateway.server is not None
    async with asyncio.timeout(PATIENCE):
        while gateway.server.changes_handled < 5:
            await asyncio.sleep(0.01)
    gateway.faults.deaf = False
    _insert(writer, "heard")
    assert (await client.change())["data"]["record"]["agent_type"] == "heard"
    assert (await client.heartbeat())["payload"]["status"] == "ok"


async def test_the_system_ok_can_be_withheld(gateway: Gateway, writer: Connection) -> None:
    client = await gateway.client()
    gateway.faults.withhold_system_ok = True
    await client.join("realtime:x", TODOLIST)
    _insert(writer, "before")
    await client.heartbeat()
    assert [frame["event"] for frame in client.frames] == ["phx_reply", "phx_reply"]
    gateway.faults.withhold_system_ok = False
    assert (await client.next())["payload"]["message"] == "Subscribed to PostgreSQL"
    _insert(writer, "after")
    assert (await client.change())["data"]["record"]["agent_type"] == "after"


async def test_the_system_ok_can_be_late(gateway: Gateway) -> None:
    client = await gateway.client()
    gateway.faults.system_ok_delay = 3600
    await client.join("realtime:late", TODOLIST)
    await client.heartbeat()
    gateway.faults.system_ok_delay = 0.01
    # A channel that begins now is ready first; the late one is still waiting.
    assert (await client.listen("realtime:x", TODOLIST))["payload"]["status"] == "ok"
    assert [frame["topic"] for frame in client.frames if frame["event"] == "system"] == ["realtime:x"]


async def test_joins_can_be_refused(gateway: Gateway) -> None:
    client = await gateway.client()
    gateway.faults.join_refusal_delay = 0.01
    gateway.faults.refuse_joins = "ClientJoinRateLimitReached: Too many joins per second"
    reply = await client.join("realtime:x", TODOLIST)
    reason = {"reason": "ClientJoinRateLimitReached: Too many joins per second"}
    assert reply["payload"] == {"status": "error", "response": reason}
    gateway.faults.refuse_joins = None
    assert (await client.join("realtime:x", TODOLIST))["payload"]["status"] == "ok"


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 4000])
async def test_sockets_can_be_dropped_with_any_code(gateway: Gateway, code: int) -> None:
    client = await gateway.client()
    await client.join("realtime:x")
    gateway.faults.drop_sockets(code)
    assert await client.closed() == code
    if code == 1006:
        with pytest.raises(ConnectionClosedError) as caught:
            await client.connection.recv()
        assert caught.value.rcvd is None, "there was a close frame"
    again = await gateway.client()
    assert (await again.heartbeat())["payload"]["status"] == "ok"


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
async def test_channels_can_be_closed(gateway: Gateway, writer: Connection, version: str) -> None:
    client = await gateway.client(version=version)
    reply = await client.join("realtime:x", TODOLIST)
    await client.next(lambda frame: frame["event"] == "system")
    gateway.faults.phx_close_all()
    frame = await client.next()
    assert (frame["event"], frame["ref"], frame["payload"]) == ("phx_close", reply["ref"], {})
    _insert(writer, "unheard")
    await client.send("realtime:x", "broadcast", {}, ref="9")
    assert (await client.next())["payload"]["response"] == {"reason": "unmatched topic"}


async def test_channels_can_crash(gateway: Gateway) -> None:
    client = await gateway.client()
    await client.join("realtime:x")
    gateway.faults.phx_error_all()
    frame = await client.next()
    assert (frame["event"], frame["ref"], frame["payload"]) == ("phx_error", "1", {})
    assert (await client.join("realtime:x"))["payload"]["status"] == "ok"


async def test_subscriptions_can_fail(gateway: Gateway, writer: Connection) -> None:
    """As after a bad binding: the channel stays joined, and hears no changes any more."""
    client = await gateway.client()
    await client.listen("realtime:x", TODOLIST)
    gateway.faults.system_error_all("Unable to subscribe to changes")
    frame = await client.next()
    assert frame["payload"] == {
        "extension": "postgres_changes",
        "status": "error",
        "message": "Unable to subscribe to changes",
        "channel": "x",
    }
    await client.listen("realtime:y", TODOLIST)
    _insert(writer, "heard on y only")
    await client.change()
    await client.heartbeat()
    assert {frame["topic"] for frame in client.frames if frame["event"] == "postgres_changes"} == {
        "realtime:y"
    }


async def test_frames_can_be_swallowed(gateway: Gateway, writer: Connection) -> None:
    client = await gateway.client()
    await client.listen("realtime:x", TODOLIST)
    gateway.faults.swallow = True
    await client.send("phoenix", "heartbeat", {}, ref="50")
    _insert(writer, "swallowed")
    other = await gateway.client()
    with pytest.raises(TimeoutError):
        await other.next(timeout=0.2)
    gateway.faults.swallow = False
    await client.heartbeat()
    _insert(writer, "heard")
    assert (await client.change())["data"]["record"]["agent_type"] == "heard"
    assert "50" not in [frame["ref"] for frame in client.frames]


async def test_polls_can_be_slow(make_gateway: MakeGateway, writer: Connection) -> None:
    gateway = make_gateway()
    client = await gateway.client()
    await client.listen("realtime:x", TODOLIST)
    gateway.faults.idle_interval = 3600
    _insert(writer, "one")
    await client.heartbeat()
    assert "postgres_changes" not in [frame["event"] for frame in client.frames]
    gateway.faults.idle_interval = None
    assert (await client.change())["data"]["record"]["agent_type"] == "one"


async def test_hosted_pacing_delivers_as_well(make_gateway: MakeGateway, writer: Connection) -> None:
    gateway = make_gateway(pacing="hosted", timings=None)
    client = await gateway.client()
    await client.listen("realtime:x", TODOLIST)
    for kind in ("first", "second"):
        _insert(writer, kind)
        assert (await client.change())["data"]["record"]["agent_type"] == kind
