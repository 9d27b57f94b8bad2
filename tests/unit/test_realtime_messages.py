"""Rows of ``realtime.messages`` as the log has them, and what becomes of them on the wire."""

from __future__ import annotations

import asyncio

import pytest

from reactive_worker.local.realtime.authorization import client_headers
from reactive_worker.local.realtime.decode import Column, Relation, Value
from reactive_worker.local.realtime.linger import Linger, StoppedError
from reactive_worker.local.realtime.messages import read_message
from reactive_worker.local.realtime.rooms import Room
from reactive_worker.local.realtime.serializer import (
    UserBroadcast,
    encode_binary,
    is_json,
    user_broadcast_payload,
)

ID = "b4eb9810-7c89-4e03-afad-7457019fd47b"
#: As logged; the order of columns is the table's business.
ROW: dict[str, Value] = {
    "topic": "jobs:1",
    "extension": "broadcast",
    "payload": '{"n": 1.50}',
    "event": "wake",
    "private": "t",
    "updated_at": "2026-11-27 17:00:00",
    "inserted_at": "2026-11-27 17:00:00",
    "id": ID,
    "binary_payload": None,
}


def _read(**changed: Value) -> tuple[Room, UserBroadcast] | None:
    row = {**ROW, **changed}
    relation = Relation(
        1, "realtime", "messages_2026_11_27", "d", tuple(Column(name, 25, False) for name in row)
    )
    return read_message(relation, tuple(row.values()))


def test_a_message_keeps_its_text() -> None:
    assert _read() == (
        Room("realtime:jobs:1", private=True),
        UserBroadcast("wake", b'{"n": 1.50}', is_json=True, message_id=ID),
    )
    found = _read(private="f")
    assert found is not None
    assert found[0] == Room("realtime:jobs:1", private=False)


def test_bytes_come_back_from_their_text() -> None:
    found = _read(payload=None, binary_payload="\\x00ff01")
    assert found is not None
    assert found[1] == UserBroadcast("wake", b"\x00\xff\x01", is_json=False, message_id=ID)


@pytest.mark.parametrize("missing", ["payload", "event", "private"])
def test_what_lacks_something_is_never_delivered(missing: str) -> None:
    assert _read(**{missing: None}) is None


def test_frames_carry_the_id_as_recorded() -> None:
    message = UserBroadcast("wake", b'{"id": "own"}', is_json=True, message_id=ID)
    recorded = (
        "040f042d017265616c74696d653a6a6f62733a3177616b657b226964223a22"
        + ID.encode().hex()
        + "227d7b226964223a20226f776e227d"
    )
    assert encode_binary("realtime:jobs:1", message).hex() == recorded
    assert user_broadcast_payload(message).text == (
        f'{{"event":"wake","meta":{{"id":"{ID}"}},"payload":{{"id": "own"}},"type":"broadcast"}}'
    )


@pytest.mark.parametrize("data", [b"", b"{", b"NaN", b"\xff", b"1e999", b"[" * 100_000])
def test_what_is_no_json_is_not_passed_on_as_it_is(data: bytes) -> None:
    assert not is_json(data)


def test_policies_see_the_clients_own_headers_only() -> None:
    headers = {"x-tenant": "t1", "x-api-key": "secret", "authorization": "Bearer secret", "host": "h"}
    assert client_headers(headers) == '{"x-tenant": "t1"}'


async def test_a_second_closing_waits_for_the_first() -> None:
    """Whoever comes next must find it closed in full, not half."""
    uses, log = 0, list[str]()
    gate = asyncio.Event()

    async def close() -> None:
        log.append("closing")
        await gate.wait()
        log.append("closed")

    linger = Linger(in_use=lambda: uses > 0, close=close, seconds=0)
    linger.rest_later()
    while not log:
        await asyncio.sleep(0)
    linger.rest_later()
    for _ in range(5):
        await asyncio.sleep(0)
    assert log == ["closing"]
    uses = 1
    staying = asyncio.create_task(linger.stay())
    await asyncio.sleep(0)
    assert not staying.done()
    gate.set()
    await staying
    assert log == ["closing", "closed"]
    uses = 0
    await linger.stop()
    with pytest.raises(StoppedError):
        await linger.stay()
