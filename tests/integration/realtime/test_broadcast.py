"""Messages of the database and private channels, beyond what the recorded traces show."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest

from tests.integration.realtime.conftest import QUICK, MakeGateway
from tests.integration.realtime.harness import Client, Frame, Gateway
from tests.integration.realtime.replay import U1, U2, tokens

Connection = psycopg.Connection[Any]

#: A user reads the topics named after it, and the team's of the tenant its headers name.
POLICIES = """
set local role postgres;
create policy own_read on realtime.messages for select to authenticated
  using (realtime.topic() = 'user:' || auth.uid());
create policy own_write on realtime.messages for insert to authenticated
  with check (extension = 'broadcast' and realtime.topic() = 'user:' || auth.uid());
create policy presence_only on realtime.messages for select to authenticated
  using (extension = 'presence' and realtime.topic() = 'presence');
create policy broadcast_only on realtime.messages for select to authenticated
  using (extension = 'broadcast' and realtime.topic() = 'quiet');
create policy quiet_write on realtime.messages for insert to authenticated
  with check (realtime.topic() = 'quiet');
create policy by_header on realtime.messages for select to anon
  using (realtime.topic() = 'team:' || (current_setting('request.headers', true)::jsonb ->> 'x-team'));
create policy broken on realtime.messages for select to authenticated
  using (case when realtime.topic() = 'broken' then 1 / (length(topic) - 6) = 0 else false end);
reset role;
"""


@pytest.fixture
def policies(writer: Connection) -> None:
    with writer.transaction():
        writer.execute(POLICIES)


def _send(writer: Connection, topic: str, number: int, *, private: bool = True) -> None:
    payload = json.dumps({"n": number})
    writer.execute("select realtime.send(%s::jsonb, 'wake', %s, %s)", (payload, topic, private))


def _wake(number: int) -> Callable[[Frame], bool]:
    return lambda frame: frame["event"] == "broadcast" and frame["payload"]["payload"]["n"] == number


def _heard(client: Client, topic: str) -> list[int]:
    return [
        frame["payload"]["payload"]["n"]
        for frame in client.frames
        if frame["event"] == "broadcast" and frame["topic"] == topic
    ]


def _refusal(reply: Frame) -> str:
    assert reply["payload"]["status"] == "error", reply
    return reply["payload"]["response"]["reason"]


async def test_policies_say_who_hears_and_who_speaks(
    gateway: Gateway, writer: Connection, policies: None
) -> None:
    gateway.faults.join_refusal_delay = 0.01
    token = tokens(gateway)
    user1, user2, own = token["authenticated sub=u1"], token["authenticated sub=u2"], f"user:{U1}"
    client, service = await gateway.client(gateway.keys.anon_key), await gateway.client()
    await service.join(f"realtime:{own}", private=True)

    def denied(name: str) -> str:
        return f"Unauthorized: You do not have permissions to read from this Channel topic: {name}"

    assert _refusal(await client.join(f"realtime:{own}", token=user2, private=True)) == denied(own)
    assert _refusal(await client.join(f"realtime:{own}", private=True)) == denied(own)
    assert _refusal(await client.join("realtime:team:a", private=True)) == denied("team:a")
    for stranger in ("supabase_admin", "authenticator", "postgres", "nosuchrole"):
        forged = gateway.keys.mint({"role": stranger, "exp": 4_000_000_000})
        assert _refusal(await client.join("realtime:x", token=forged, private=True)) == denied("x")
    broken = await client.join("realtime:broken", token=user1, private=True)
    assert _refusal(broken) == "RlsPolicyError: division by zero"
    team = await gateway.client(gateway.keys.anon_key, additional_headers={"X-Team": "a"})
    assert (await team.join("realtime:team:a", private=True))["payload"]["status"] == "ok"

    # A public channel of the same name is another one, and needs no permission.
    await client.join(f"realtime:{own}", token=user2, broadcast={"ack": True})
    member = await gateway.client(gateway.keys.anon_key)
    ack = {"ack": True, "self": True}
    await member.join(f"realtime:{own}", token=user1, private=True, broadcast=ack)
    _send(writer, own, 1)
    _send(writer, own, 2, private=False)
    _send(writer, f"user:{U2}", 3)
    payload = {"type": "broadcast", "event": "wake", "payload": {"n": 4}}
    ref = await member.send(f"realtime:{own}", "broadcast", payload)
    await member.next(lambda frame: frame["ref"] == ref)
    await service.next(_wake(4))
    _send(writer, own, 5, private=False)
    await client.next(_wake(5))
    assert _heard(client, f"realtime:{own}") == [2, 5]
    # Its own message may overtake those of the database.
    assert sorted(_heard(member, f"realtime:{own}")) == [1, 4]
    assert sorted(_heard(service, f"realtime:{own}")) == [1, 4]


async def test_reading_presence_only_is_reason_enough_to_join(
    gateway: Gateway, writer: Connection, policies: None
) -> None:
    token = tokens(gateway)["authenticated sub=u1"]
    client, service = await gateway.client(gateway.keys.anon_key), await gateway.client()
    presence = {"enabled": True, "key": "w1"}
    await service.join("realtime:presence", private=True, presence=presence)
    await service.send("realtime:presence", "presence", {"event": "track", "payload": {"w": 1}})
    await client.join("realtime:presence", token=token, private=True, presence=presence)
    state = await client.next(lambda frame: frame["event"] == "presence_state")
    assert [meta["w"] for meta in state["payload"]["w1"]["metas"]] == [1]
    # It may not be tracked itself, and hears no broadcasts.
    ref = await client.send("realtime:presence", "presence", {"event": "track", "payload": {"w": 2}})
    assert (await client.next(lambda frame: frame["ref"] == ref))["payload"]["status"] == "error"
    _send(writer, "presence", 1)
    await service.next(_wake(1))
    await service.send("realtime:presence", "presence", {"event": "untrack"})
    gone = await client.next(lambda frame: frame["event"] == "presence_diff")
    assert list(gone["payload"]["leaves"]) == ["w1"]
    assert _heard(client, "realtime:presence") == []


async def test_reading_broadcasts_only_shows_nobody(
    gateway: Gateway, writer: Connection, policies: None
) -> None:
    token = tokens(gateway)["authenticated sub=u1"]
    client, service = await gateway.client(gateway.keys.anon_key), await gateway.client()
    presence = {"enabled": True}
    await service.join("realtime:quiet", private=True, presence=presence)
    await client.join("realtime:quiet", token=token, private=True, presence=presence)
    await service.send("realtime:quiet", "presence", {"event": "track", "payload": {"w": 1}})
    await service.next(lambda frame: frame["event"] == "presence_diff")
    # It may say that it is there, and still sees nobody, itself included.
    ref = await client.send("realtime:quiet", "presence", {"event": "track", "payload": {"w": 2}})
    assert (await client.next(lambda frame: frame["ref"] == ref))["payload"]["status"] == "ok"
    await service.next(lambda frame: frame["event"] == "presence_diff")
    _send(writer, "quiet", 1)
    await client.next(_wake(1))
    assert [frame["event"] for frame in client.frames] == ["phx_reply", "phx_reply", "broadcast"]


async def test_a_new_token_is_judged_at_once(gateway: Gateway, writer: Connection, policies: None) -> None:
    token, own = tokens(gateway), f"user:{U1}"
    client, witness = await gateway.client(gateway.keys.anon_key), await gateway.client()
    await witness.join(f"realtime:{own}", private=True)
    await client.join(f"realtime:{own}", token=token["authenticated sub=u1"], private=True)
    renewed = gateway.keys.mint({"sub": U1, "role": "authenticated", "exp": 4_000_000_000})
    await client.send(f"realtime:{own}", "access_token", {"access_token": renewed})
    await client.heartbeat()
    _send(writer, own, 1)
    await client.next(_wake(1))
    await client.send(f"realtime:{own}", "access_token", {"access_token": token["authenticated sub=u2"]})
    await client.next(lambda frame: frame["event"] == "phx_close")
    _send(writer, own, 2)
    await witness.next(_wake(2))
    await client.heartbeat()
    assert _heard(client, f"realtime:{own}") == [1]


async def test_what_was_missed_is_replayed_once(gateway: Gateway, writer: Connection) -> None:
    for number in range(30):
        _send(writer, "past", number)
    writer.execute("select realtime.send_binary('\\x00', 'wake', 'past')")
    writer.execute(
        "insert into realtime.messages (topic, extension, private) values ('past', 'broadcast', true)"
    )
    for version in ("1.0.0", "2.0.0"):
        client = await gateway.client(version=version)
        await client.join("realtime:past", private=True, broadcast={"replay": {"since": 0}})
        await client.next(_wake(29))
        # Never more than 25, the newest, oldest first.
        assert _heard(client, "realtime:past") == list(range(5, 30))
    later = int(writer.execute("select extract(epoch from now()) * 1000 + 1").fetchone()[0])  # type: ignore[index]
    client = await gateway.client()
    await client.join("realtime:past", private=True, broadcast={"replay": {"since": later, "limit": 5}})
    _send(writer, "past", 99)
    await client.next(_wake(99))
    assert _heard(client, "realtime:past") == [99]


async def test_messages_of_the_database_can_vanish(gateway: Gateway, writer: Connection) -> None:
    client = await gateway.client()
    changes = {"event": "*", "schema": "public", "table": "todolist"}
    await client.join("realtime:room", changes, private=True, broadcast={"self": True})
    await client.next(lambda frame: frame["event"] == "system")
    gateway.faults.broadcast_deaf = True
    _send(writer, "room", 1)
    writer.execute("insert into todolist (agent_type) values ('x')")
    # Changes and the members' own messages are still heard.
    await client.change()
    await client.send("realtime:room", "broadcast", {"event": "wake", "payload": {"n": 2}})
    await client.next(_wake(2))
    assert gateway.server is not None
    while gateway.server.messages_handled < 1:
        await client.heartbeat()
    gateway.faults.broadcast_deaf = False
    _send(writer, "room", 3)
    await client.next(_wake(3))
    assert _heard(client, "realtime:room") == [2, 3]


async def test_over_the_limit_receivers_are_put_out(gateway: Gateway, writer: Connection) -> None:
    sender, receiver, probe = [await gateway.client() for _ in range(3)]
    await sender.join("realtime:rate", broadcast={"ack": True})
    await receiver.join("realtime:rate")
    await probe.join("realtime:probe", private=True)
    gateway.faults.apply({"message_rate_limit": 5, "message_rate_window": 3600})
    url = f"http://127.0.0.1:{gateway.port}/realtime/v1/api/broadcast"
    headers = {"apikey": gateway.keys.service_role_key}
    body = {"messages": [{"topic": "rate", "event": "wake", "payload": {"n": 0}}]}
    async with httpx.AsyncClient(headers=headers) as http:
        answer = await http.post(url, json=body)
        assert (answer.status_code, answer.headers["x-rate-limit"]) == (202, "5")
        gateway.faults.message_rate_limit = 0.001
        for number in range(10):
            ref = await sender.send("realtime:rate", "broadcast", {"event": "wake", "payload": {"n": number}})
            reply = await sender.next(lambda frame, ref=ref: frame["ref"] == ref)  # type: ignore[misc]
            assert reply["payload"]["status"] == "ok", "the sender is not told"
        system = await receiver.next(lambda frame: frame["event"] == "system")
        assert system["payload"] == {
            "channel": "rate",
            "extension": "system",
            "message": "Too many messages per second",
            "status": "error",
        }
        assert (await receiver.next())["event"] == "phx_close"
        answer = await http.post(url, json=body)
        assert (answer.status_code, answer.headers["x-rate-limit-remaining"]) == (429, "0")
    _send(writer, "probe", 1)
    assert gateway.server is not None
    while gateway.server.messages_handled < 1:
        await probe.heartbeat()
    gateway.faults.message_rate_limit = None
    _send(writer, "probe", 2)
    await probe.next(_wake(2))
    assert _heard(probe, "realtime:probe") == [2]


async def test_who_asked_is_told_when_messages_flow_or_is_closed(
    make_gateway: MakeGateway, writer: Connection
) -> None:
    gateway = make_gateway(
        timings=dataclasses.replace(QUICK, messages_patience=0.05, replication_ready=0.05, linger=0.0)
    )
    client = await gateway.client()
    ready = {"replication_ready": True}
    with writer.transaction():
        # A slot cannot begin while a transaction that writes is open.
        writer.execute("insert into todolist (agent_type) values ('x')")
        await client.join("realtime:never", private=True, broadcast=ready)
        assert (await client.next())["event"] == "phx_close"
        # The other channel stays, and is served when the stream begins.
        await client.join("realtime:patient", private=True)
    assert gateway.server is not None
    while not gateway.server.streams_messages:
        await client.heartbeat()
    await client.join("realtime:now", broadcast=ready)
    assert (await client.next())["payload"]["message"] == "Replication connection established"
    _send(writer, "patient", 1)
    await client.next(_wake(1))


async def test_what_is_missing_in_the_database_is_made(gateway: Gateway, writer: Connection) -> None:
    writer.execute("drop publication supabase_realtime_messages_publication")
    parts = "select relname from pg_class where relname like 'messages\\_2%' and relkind = 'r' order by 1"
    expected = writer.execute(parts).fetchall()
    assert len(expected) == 5
    today = "messages_" + writer.execute("select to_char(now(), 'YYYY_MM_DD')").fetchone()[0]  # type: ignore[index]
    writer.execute(f'drop table realtime."{today}"')
    writer.execute(
        "create table realtime.messages_2020_01_01 partition of realtime.messages"
        " for values from ('2020-01-01') to ('2020-01-02')"
    )
    # Without today's partition a message is lost, and whoever sends it is not bothered.
    notices: list[str] = []
    writer.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    _send(writer, "room", 1)
    assert notices == ['WarnSendingBroadcastMessage: no partition of relation "messages" found for row']
    client = await gateway.client()
    await client.join("realtime:room", private=True)
    assert writer.execute(parts).fetchall() == expected
    _send(writer, "room", 2)
    await client.next(_wake(2))


async def test_broadcasts_of_rows_refuse_wrong_calls(writer: Connection) -> None:
    call = (
        "select realtime.broadcast_changes('t', 'e', %s, 'x', 'public', null::todolist, null::todolist, %s)"
    )
    for operation, level, problem in (
        ("INSERT", "STATEMENT", "function can only be triggered for each row, not for each statement"),
        ("TRUNCATE", "ROW", "operation type must be INSERT, UPDATE, or DELETE"),
    ):
        with pytest.raises(psycopg.errors.RaiseException, match=f"Failed to process the row: {problem}"):
            writer.execute(call, (operation, level))
    # Rights are the caller's: without a policy nothing is stored, with nothing but a warning.
    with writer.transaction():
        writer.execute("set local role authenticated")
        _send(writer, "room", 1)
        assert writer.execute("select count(*) from realtime.messages").fetchone() == (0,)
        assert writer.execute("select realtime.topic()").fetchone() == (None,)
    assert writer.execute("select count(*) from realtime.messages").fetchone() == (0,)
