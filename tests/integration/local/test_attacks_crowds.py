"""Forged tokens, floods, and clients that never read, on the Realtime socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.integration.local.conftest import Api
from tests.integration.local.sockets import VERSIONS, Connect, frame, reply_to_join, url
from tests.integration.local.test_attacks_tokens import forged_tokens
from tests.integration.realtime.harness import Client


@pytest.fixture
async def client(api: Api) -> AsyncGenerator[Connect]:
    """Connects clients that are closed after the test."""
    clients: list[Client] = []
    api.gateway.faults.join_refusal_delay = 0.0

    async def connected(version: str = "1.0.0", key: str | None = None, **options: Any) -> Client:
        clients.append(Client(await connect(url(api, key, version), max_size=None, **options), version))
        return clients[-1]

    yield connected
    for each in clients:
        await each.close()


async def test_forged_tokens_open_nothing(api: Api, client: Connect) -> None:
    # Realtime asks for claims that PostgREST does not, and takes no times but the expiry.
    fine = (
        "not yet valid",
        "issued in the future",
        "HS384 with the right secret",
        "a key id nobody has",
    )
    roles = ("a role with a zero byte", "a role of half a character")
    attacker = await client()
    for number, (name, (token, _)) in enumerate(forged_tokens(api).items()):
        if name in (*fine, *roles) or not token.isascii():
            continue
        with pytest.raises(InvalidStatus) as caught:
            await connect(url(api, token.replace("#", "%23")))
        # 400: the request's line is longer than a WebSocket's may be.
        assert caught.value.response.status_code == (401 if len(token) < 8000 else 400), name
        assert token not in caught.value.response.body.decode(), name
        reply = await reply_to_join(
            attacker, "realtime:x", {"config": {}, "access_token": token}, str(number)
        )
        assert reply["payload"]["status"] == "error", name
        reason = reply["payload"]["response"]["reason"]
        assert reason.split(":")[0] in ("MalformedJWT", "JwtSignatureError", "InvalidJWTToken"), (
            name,
            reason,
        )


@pytest.mark.parametrize(
    "role",
    ["postgres", "supabase_admin", "authenticator", "none", "supabase_read_only_user", "nobody", "a\0b"],
)
async def test_a_token_cannot_listen_as_another_role(api: Api, client: Connect, role: str) -> None:
    api.connection.execute("alter publication supabase_realtime add table secret")
    try:
        token = api.gateway.keys.mint({"role": role, "exp": int(time.time()) + 600})
        attacker = await client()
        binding = {"event": "*", "schema": "public", "table": "secret"}
        await attacker.join("realtime:x", binding, token=token)
        told = await attacker.next(lambda each: each["event"] == "system")
        assert told["payload"]["status"] == "error", told
        # And not of its own accord once something happens.
        api.connection.execute("insert into secret values (1)")
        await attacker.heartbeat()
        assert all(each["event"] != "postgres_changes" for each in attacker.frames)
    finally:
        api.connection.execute("alter publication supabase_realtime drop table secret")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_flood_of_topics_is_stopped_at_a_hundred(client: Connect, version: str) -> None:
    attacker = await client(version)
    for number in range(150):
        await attacker.send(
            f"realtime:flood{number}", "phx_join", {"config": {}}, ref=f"{number}", join_ref=f"{number}"
        )
    statuses: list[str] = []
    while len(statuses) < 150:
        reply = await attacker.next(lambda each: each["event"] == "phx_reply")
        statuses.append(reply["payload"]["status"])
    assert statuses.count("ok") == 100
    assert statuses.count("error") == 50
    await attacker.heartbeat()


async def test_a_flood_of_joins_on_one_topic_leaves_one(api: Api, client: Connect) -> None:
    attacker = await client()
    binding = {"event": "*", "schema": "public", "table": "nothing"}
    payload = {"config": {"postgres_changes": [binding] * 20}}
    for number in range(300):
        await attacker.send("realtime:same", "phx_join", payload, ref=f"{number}", join_ref=f"{number}")
    for number in range(300):
        await attacker.next(lambda each, ref=str(number): each["event"] == "phx_reply" and each["ref"] == ref)  # type: ignore[misc]
    await attacker.heartbeat()
    sessions = (
        "select count(*) from pg_stat_activity where datname = current_database() and usename <> 'postgres'"
    )
    assert api.rows(sessions)[0][0] < 25


async def test_refused_joins_hold_up_only_their_own_socket(api: Api, client: Connect) -> None:
    api.gateway.faults.join_refusal_delay = 3600
    attackers = [await client() for _ in range(20)]
    for attacker in attackers:
        for _ in range(600):
            # More than are read ahead: the rest waits in the client's own buffers.
            await attacker.connection.send(frame("1.0.0", "realtime:", "phx_join", "{}"))
    bystander = await client()
    await bystander.heartbeat()
    api.gateway.faults.drop_sockets(1001)
    for attacker in attackers:
        assert await attacker.closed() in (1001, 1006)


async def test_a_presence_flood_ends_the_channel(client: Connect) -> None:
    attacker = await client()
    await attacker.join("realtime:presence")
    for number in range(20):
        await attacker.send(
            "realtime:presence", "presence", {"event": "track", "payload": {"n": number}}, join_ref="1"
        )
    told = await attacker.next(lambda each: each["event"] == "system")
    assert told["payload"]["message"] == "Client presence rate limit exceeded"
    await attacker.next(lambda each: each["event"] == "phx_close")
    await attacker.heartbeat()


async def test_a_client_that_never_reads_is_given_up_and_delays_nobody(
    api: Api, client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactive_worker.local.realtime.socket._MOST_UNSENT", 16 * 2**20)
    api.connection.execute("alter publication supabase_realtime add table people")
    service = api.gateway.service_role_key
    stalled = await connect(url(api, service), max_size=None, max_queue=1, compression=None)
    try:
        binding = {"event": "*", "schema": "public", "table": "people"}
        join = frame(
            "1.0.0", "realtime:x", "phx_join", json.dumps({"config": {"postgres_changes": [binding]}})
        )
        await stalled.send(join)
        while json.loads(await stalled.recv())["event"] != "system":
            pass
        listener = await client(key=service)
        await listener.listen("realtime:x", binding)

        def fill() -> None:
            for _ in range(80):
                api.connection.execute("insert into people (data) values (to_jsonb(repeat('x', 500000)))")

        # Not here: this loop has a listener to serve.
        writing = asyncio.create_task(asyncio.to_thread(fill))
        for _ in range(80):
            await listener.change(30)
        await writing
        # 40 MB have gone by the one that did not read: more than is kept for it and in all buffers between.
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await stalled.recv()
    finally:
        stalled.transport.abort()
        api.connection.execute("alter publication supabase_realtime drop table people")


async def test_half_open_and_vanishing_clients_leave_nothing_behind(api: Api, client: Connect) -> None:
    bystander = await client()
    port = int(api.gateway.api_url.rsplit(":", 1)[1])
    for _ in range(100):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        path = url(api).partition(f":{port}")[2]
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        # Gone without a word, with a reset.
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
    await bystander.heartbeat()
    assert httpx.get(f"{api.gateway.api_url}/_local/health").status_code == 200
