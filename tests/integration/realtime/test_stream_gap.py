"""The recorded join gap: a cold Realtime answers the join before messages of the database flow."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import psycopg

from tests.integration.realtime.conftest import QUICK, MakeGateway
from tests.integration.realtime.harness import Frame, Gateway

Connection = psycopg.Connection[Any]

READY = {"replication_ready": True}
#: Longer than any test waits: it ends when the switch is set to 0.
ENDLESS = 3600.0


def _send(writer: Connection, number: int) -> None:
    payload = json.dumps({"n": number})
    writer.execute("select realtime.send(%s::jsonb, 'wake', 'jobs', true)", (payload,))


def _event(name: str) -> Callable[[Frame], bool]:
    return lambda frame: frame["event"] == name


def _numbers(frames: list[Frame]) -> list[int]:
    return [frame["payload"]["payload"]["n"] for frame in frames if frame["event"] == "broadcast"]


async def test_what_is_sent_in_the_gap_is_lost(gateway: Gateway, writer: Connection) -> None:
    gateway.faults.stream_gap = ENDLESS
    client = await gateway.client()
    # Answered at once, as by the real server: the answer says nothing about the stream.
    assert (await client.join("realtime:jobs", private=True, broadcast=READY))["payload"]["status"] == "ok"
    _send(writer, 1)
    await client.heartbeat()
    assert "system" not in [frame["event"] for frame in client.frames]
    gateway.faults.stream_gap = 0
    told = await client.next(_event("system"))
    assert told["payload"] == {
        "channel": "jobs",
        "extension": "system",
        "message": "Replication connection established",
        "status": "ok",
    }
    _send(writer, 2)
    await client.next(_event("broadcast"))
    assert _numbers(client.frames) == [2]


async def test_who_does_not_ask_is_not_told(gateway: Gateway, writer: Connection) -> None:
    gateway.faults.stream_gap = 0.05
    client, other = await gateway.client(), await gateway.client()
    await client.join("realtime:jobs", private=True)
    await other.join("realtime:other", private=True, broadcast=READY)
    await other.next(_event("system"))
    _send(writer, 1)
    await client.next(_event("broadcast"))
    assert [frame["event"] for frame in client.frames] == ["phx_reply", "broadcast"]


async def test_a_warm_stream_has_no_gap(gateway: Gateway, writer: Connection) -> None:
    first = await gateway.client()
    await first.join("realtime:jobs", private=True, broadcast=READY)
    await first.next(_event("system"))
    gateway.faults.stream_gap = ENDLESS
    second = await gateway.client()
    await second.join("realtime:jobs", private=True, broadcast=READY)
    await second.next(_event("system"))
    _send(writer, 1)
    await second.next(_event("broadcast"))


async def test_a_dropped_socket_comes_back_to_a_cold_server(gateway: Gateway, writer: Connection) -> None:
    """As after a restart of Realtime: the rejoin is answered, and the stream is not there yet."""
    client = await gateway.client()
    await client.join("realtime:jobs", private=True, broadcast=READY)
    await client.next(_event("system"))
    gateway.faults.stream_gap = ENDLESS
    gateway.faults.drop_sockets(1012)
    assert await client.closed() == 1012
    again = await gateway.client()
    await again.join("realtime:jobs", private=True, broadcast=READY)
    _send(writer, 1)
    await again.heartbeat()
    gateway.faults.stream_gap = 0
    await again.next(_event("system"))
    _send(writer, 2)
    await again.next(_event("broadcast"))
    assert _numbers(again.frames) == [2]


async def test_members_hear_each_other_in_the_gap(gateway: Gateway) -> None:
    gateway.faults.stream_gap = ENDLESS
    client, other = await gateway.client(), await gateway.client()
    for member in (client, other):
        await member.join("realtime:jobs", private=True)
    await other.send("realtime:jobs", "broadcast", {"type": "broadcast", "event": "hi", "payload": {"n": 7}})
    await client.next(_event("broadcast"))
    assert _numbers(client.frames) == [7]


async def test_a_stream_that_never_comes_closes_who_waits_for_it(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(timings=dataclasses.replace(QUICK, replication_ready=0.05))
    gateway.faults.stream_gap = ENDLESS
    client = await gateway.client()
    await client.join("realtime:jobs", private=True, broadcast=READY)
    await client.next(_event("phx_close"))
