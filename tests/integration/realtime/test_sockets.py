"""Sockets: idle ones, blocked ones, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.integration.realtime.conftest import QUICK, MakeGateway
from tests.integration.realtime.harness import Frame, Gateway


def _reply(frame: Frame) -> bool:
    return frame["event"] == "phx_reply"


async def test_a_silent_socket_is_closed_and_pings_keep_one_open(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(timings=dataclasses.replace(QUICK, idle_timeout=0.4))
    silent = await gateway.client(gateway.keys.anon_key)
    pinging = await gateway.client(gateway.keys.anon_key)
    code = asyncio.create_task(silent.closed())
    rounds = 0
    # It pings well beyond the silent one's end: four times the time allowed.
    while not code.done() or rounds < 16:
        await (await pinging.connection.ping())
        rounds += 1
        await asyncio.wait({code}, timeout=0.1)
        if code.done():
            await asyncio.wait({asyncio.create_task(pinging.closed())}, timeout=0.1)
    assert code.result() == 1000
    assert pinging.close_code is None
    assert (await pinging.heartbeat())["payload"]["status"] == "ok"
    assert await pinging.closed() == 1000


async def test_a_refused_join_holds_up_its_whole_socket(gateway: Gateway) -> None:
    gateway.faults.join_refusal_delay = 0.3
    blocked, other = await gateway.client(), await gateway.client()
    await blocked.join("realtime:room")
    await other.join("realtime:room", broadcast={"ack": True})
    await blocked.send(
        "realtime:bad", "phx_join", {"config": {}, "access_token": "abc"}, ref="9", join_ref="9"
    )
    await blocked.send("phoenix", "heartbeat", {}, ref="10")
    # Acknowledged: by now the message waits in the blocked socket's mailbox.
    ref = await other.send("realtime:room", "broadcast", {"event": "wake"}, join_ref="1")
    await other.next(lambda frame: _reply(frame) and frame["ref"] == ref)
    await blocked.heard(4)
    refusal = {"reason": "MalformedJWT: The token provided is not a valid JWT"}
    assert blocked.frames[1]["payload"] == {"response": refusal, "status": "error"}
    assert {blocked.frames[2]["topic"], blocked.frames[3]["topic"]} == {"phoenix", "realtime:room"}


async def test_refusals_come_in_order(gateway: Gateway) -> None:
    gateway.faults.join_refusal_delay = 0.05
    client = await gateway.client()
    for ref in ("1", "2", "3"):
        await client.send("realtime:", "phx_join", {"config": {}}, ref=ref, join_ref=ref)
    await client.heard(3)
    assert [frame["ref"] for frame in client.frames] == ["1", "2", "3"]
    assert {frame["payload"]["status"] for frame in client.frames} == {"error"}


async def test_a_refused_socket_can_be_closed_while_it_waits(gateway: Gateway) -> None:
    gateway.faults.join_refusal_delay = 3600
    client = await gateway.client()
    await client.send("realtime:", "phx_join", {"config": {}})
    gateway.faults.drop_sockets(1001)
    assert await client.closed() == 1001


async def test_stopping_the_server_closes_its_sockets_with_1012(make_gateway: MakeGateway) -> None:
    gateway = make_gateway()
    client = await gateway.client()
    await client.listen("realtime:x", {"event": "*", "schema": "public", "table": "todolist"})
    assert gateway.server is not None
    stopping = asyncio.run_coroutine_threadsafe(gateway.server.stop(), gateway.loop)
    assert await client.closed() == 1012
    await asyncio.wrap_future(stopping)
    assert [frame["event"] for frame in client.frames] == ["phx_reply", "system"]


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
async def test_broken_frames_are_ignored(gateway: Gateway, version: str) -> None:
    client = await gateway.client(version=version)
    for text in ("hello", "[]", "{}", "null", '{"topic":"x"}', "[1,2,3]", '[null,null,{},"e",{}]'):
        await client.connection.send(text)
    for data in (b"", b"\x03", b"\x00\x01\x02", b"\xff" * 10):
        await client.connection.send(data)
    await client.heartbeat()
    assert len(client.frames) == 1


async def test_odd_payloads_do_no_harm(gateway: Gateway) -> None:
    client = await gateway.client()
    await client.join("realtime:room")
    for event in ("access_token", "broadcast", "presence"):
        for payload in (None, 7, "x", [], {}, {"event": "track", "payload": 7}):
            await client.send("realtime:room", event, payload, join_ref="1")
    await client.heartbeat()
    assert client.close_code is None


async def test_new_style_keys_open_a_socket_and_join(gateway: Gateway) -> None:
    for key in (gateway.keys.secret_key, gateway.keys.publishable_key):
        client = await gateway.client(key)
        reply = await client.join("realtime:room", token=key)
        assert reply["payload"]["status"] == "ok"
        await client.close()


async def test_the_key_may_come_in_a_header(gateway: Gateway) -> None:
    headers = {"apikey": gateway.keys.anon_key}
    async with connect(gateway.url(None), additional_headers=headers) as connection:
        await connection.send(
            json.dumps({"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "1"})
        )
        assert json.loads(await connection.recv())["payload"]["status"] == "ok"


async def test_a_client_that_does_not_read_is_given_up(gateway: Gateway) -> None:
    """Its messages would otherwise fill the server's memory."""
    connection = await connect(gateway.url(gateway.keys.anon_key), max_size=None, max_queue=1)
    join = {
        "topic": "realtime:flood",
        "event": "phx_join",
        "payload": {"config": {}},
        "ref": "1",
        "join_ref": "1",
    }
    await connection.send(json.dumps(join))
    await connection.recv()
    sender = await gateway.client(gateway.keys.anon_key)
    await sender.join("realtime:flood", broadcast={"ack": True})
    payload = {"event": "big", "payload": "x" * 2_000_000}
    for _ in range(60):
        ref = await sender.send("realtime:flood", "broadcast", payload, join_ref="1")
        await sender.next(lambda frame, ref=ref: _reply(frame) and frame["ref"] == ref)  # type: ignore[misc]
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionClosed):
            async for _ in connection:
                pass
    assert connection.close_code in (1006, 1011)
    await connection.close()
