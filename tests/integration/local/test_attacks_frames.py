"""Broken, odd and oversized frames on the Realtime socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import struct
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.integration.local.conftest import Api
from tests.integration.local.sockets import VERSIONS, Connect, frame, reply_to_join, url
from tests.integration.realtime.harness import Client, Frame


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


@pytest.mark.parametrize("version", VERSIONS)
async def test_frames_that_are_nonsense_are_ignored(api: Api, client: Connect, version: str) -> None:
    attacker, bystander = await client(version), await client(version)
    await bystander.join("realtime:room")
    await attacker.join("realtime:room")
    before = len(attacker.frames)
    deep = "[" * 100_000
    for text in (
        "",
        " ",
        "hello",
        "nul",
        "null",
        "true",
        "0",
        '"text"',
        "[]",
        "{}",
        "[[]]",
        "[1,2,3]",
        "{" * 1000,
        deep,
        deep + "]" * 100_000,
        '{"a":' * 50_000,
        "NaN",
        "9" * 100_000,
        "\0",
        "﻿{}",
        frame(version, {}, "phx_join", "{}"),
        frame(version, "phoenix", [], "{}"),
        frame(version, None, None, "{}"),
        frame(version, "realtime:room", "broadcast", "NaN"),
        frame(version, "realtime:room", "broadcast", "1e999"),
        frame(version, "realtime:room", "broadcast", '{"event":"x","payload":"\\ud800"}'),
        frame(
            version, "realtime:room", "broadcast", '{"event":"x","payload":' + "[" * 5_000 + "]" * 5_000 + "}"
        ),
        frame(version, "realtime:\ud800", "phx_join", "{}"),
    ):
        await attacker.connection.send(text)
    for data in (b"", b"\0", b"\x03", b"\x03" + b"\xff" * 300, b"\x04\x01\x01\0\x01ae{}", os.urandom(2000)):
        await attacker.connection.send(data)
    await attacker.heartbeat()
    await bystander.heartbeat()
    assert len(attacker.frames) == before + 1
    assert [each["event"] for each in bystander.frames] == ["phx_reply", "phx_reply"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_odd_joins_are_answered_and_harm_nobody(api: Api, client: Connect, version: str) -> None:
    attacker, bystander = await client(version), await client(version)
    changes = {"event": "*", "schema": "public", "table": "people"}
    await bystander.join("realtime:room")
    odd_bindings: list[Frame] = [
        {"filter": 5},
        {"filter": "id=eq.1' or '1'='1"},
        {"filter": 'id") or true --=eq.1'},
        {"filter": "name=eq.\0"},
        {"filter": "name=match.(((("},
        {"filter": "id=in.(" + ",".join(["1"] * 5000) + ")"},
        {"table": "people'; drop table people; --"},
        {"schema": "pg_catalog", "table": "pg_authid"},
        {"table": "a\0b"},
        {"select": ['id") from pg_authid --']},
        {"select": "*"},
    ]
    payloads: list[Any] = [
        None,
        1,
        "x",
        [],
        {},
        {"config": None},
        {"config": []},
        {"config": "x"},
        {"config": {"private": "maybe"}},
        {"config": {"broadcast": {"replay": {"since": "x", "limit": -1}}, "private": True}},
        {"config": {"broadcast": {"replay": {"since": 10**400, "limit": 10**400}}, "private": True}},
        {"config": {"presence": {"key": {"a": 1}, "enabled": "x"}}},
        {"config": {"presence": []}},
        {"config": {"presence": {"key": "k" * 100_000, "enabled": True}}},
        {"config": {"postgres_changes": "all"}},
        {"config": {"postgres_changes": [None, 1, [], "x"]}},
        {"config": {"postgres_changes": [{}]}},
        {"config": {"postgres_changes": [{"event": []}]}},
        *({"config": {"postgres_changes": [{**changes, **odd}]}} for odd in odd_bindings),
        {"access_token": 5},
        {"access_token": ""},
        {"access_token": "a.b.c"},
        {"access_token": {"a": 1}},
    ]
    for number, payload in enumerate(payloads):
        reply = await reply_to_join(attacker, "realtime:odd", payload, str(number))
        assert reply["payload"]["status"] in ("ok", "error"), payload
    await attacker.heartbeat()
    assert attacker.close_code is None
    await bystander.heartbeat()
    assert len(api.rows("select 1 from people")) == 4


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_frames_that_are_too_large_end_the_socket(client: Connect, compression: Any) -> None:
    """Also those that are small on the wire and large when unpacked."""
    bystander = await client()
    before = psutil.Process(os.getpid()).memory_info().rss
    for size in (5_000_001, 200_000_000 if compression else 20_000_000):
        attacker = await client(compression=compression)
        with contextlib.suppress(ConnectionClosed):
            await attacker.connection.send(b"\0" * size)
        assert await attacker.closed() == 1009
    gc.collect()
    assert psutil.Process(os.getpid()).memory_info().rss - before < 400_000_000
    await bystander.heartbeat()


async def test_a_message_in_endless_pieces_ends_the_socket(client: Connect) -> None:
    attacker = await client()

    async def pieces() -> AsyncGenerator[str]:
        for _ in range(2000):
            yield "x" * 10_000

    with contextlib.suppress(ConnectionClosed):
        await attacker.connection.send(pieces())
    # What is still on its way when the server closes may come back as a reset.
    assert await attacker.closed() in (1006, 1009)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\xfe\xff\xff", None),
        (b"\x81\x05hello", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\xf1\x80\0\0\0\0", 1002),
        (b"\x80\x80\0\0\0\0", 1002),
        (b"\x89\xfe\x00\x80\0\0\0\0" + b"x" * 128, 1002),
        (b"\x81\x82\0\0\0\0\xff\xfe", 1007),
        (b"\x88\x82\0\0\0\0\x00\x01", 1002),
    ],
    ids=["cut off", "unmasked", "unknown opcode", "reserved bits", "continuation of nothing", "long ping",
         "text that is not UTF-8", "invalid close code"],
)  # fmt: skip
async def test_broken_websocket_frames(api: Api, client: Connect, data: bytes, code: int | None) -> None:
    bystander = await client()
    port = int(api.gateway.api_url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    path = url(api).partition(f":{port}")[2]
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    writer.write(data)
    if code is None:
        writer.write_eof()
    async with asyncio.timeout(10):
        rest = await reader.read()
    if code is not None:
        assert struct.unpack(">H", rest[2:4])[0] == code
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    await bystander.heartbeat()


async def test_handshakes_that_are_none(api: Api) -> None:
    base = f"{api.gateway.api_url}/realtime/v1/websocket"
    good = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    async with httpx.AsyncClient(params={"apikey": api.gateway.anon_key}) as http:
        for headers in (
            {},
            good,
            {**good, "Sec-WebSocket-Key": "short"},
            {**good, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version": "99"},
            {**good, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Connection": "close"},
        ):
            answer = await http.get(base, headers=headers)
            assert 400 <= answer.status_code < 500, headers
        for version in ("", "1.0", "3.0.0", "../2.0.0", "2.0.0\0"):
            answer = await http.get(
                base,
                params={"vsn": version},
                headers={**good, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="},
            )
            assert answer.status_code == 403, version
