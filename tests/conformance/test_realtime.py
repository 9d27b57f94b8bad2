"""Realtime with supabase-py and its realtime-py: channels, changes, broadcasts, presence."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from realtime import AsyncRealtimeChannel

from tests.conformance.listening import CLOSED, ERROR, SUBSCRIBED, Clients, Heard
from tests.conformance.target import ADA, BOB, Target


async def test_an_insert_is_heard_in_full(clients: Clients, target: Target) -> None:
    heard = await clients.changes("jobs", "INSERT")
    values = """'a', 5, 1.10, '{"x": [1, null]}', '{p,"q r"}'"""
    target.sql(f"insert into rwc_jobs (kind, n, num, data, tags) values ({values})")
    change = await heard.next()
    data = change["data"]
    assert (data["type"], data["schema"], data["table"]) == ("INSERT", "public", target.name("jobs"))
    assert data["errors"] is None
    assert data["commit_timestamp"].endswith("Z")
    assert "old_record" not in data
    assert data["record"] == {
        "id": data["record"]["id"],
        "kind": "a",
        "n": 5,
        "num": 1.1,
        "data": {"x": [1, None]},
        "tags": ["p", "q r"],
        "at": "2026-01-02T03:04:05.678+00:00",
        "done": False,
    }
    assert data["columns"] == [
        {"name": "id", "type": "int8"},
        {"name": "kind", "type": "text"},
        {"name": "n", "type": "int4"},
        {"name": "num", "type": "numeric"},
        {"name": "data", "type": "jsonb"},
        {"name": "tags", "type": "_text"},
        {"name": "at", "type": "timestamptz"},
        {"name": "done", "type": "bool"},
    ]
    assert len(change["ids"]) == 1


async def test_update_and_delete_carry_the_key_of_before(clients: Clients, target: Target) -> None:
    heard = await clients.changes("jobs")
    target.sql("insert into rwc_jobs (id, kind) values (70, 'a')")
    target.sql("update rwc_jobs set kind = 'b' where id = 70")
    target.sql("delete from rwc_jobs where id = 70")
    inserted, updated, deleted = [(await heard.next())["data"] for _ in range(3)]
    assert [each["type"] for each in (inserted, updated, deleted)] == ["INSERT", "UPDATE", "DELETE"]
    assert (updated["record"]["kind"], updated["old_record"]) == ("b", {"id": 70})
    assert deleted["old_record"] == {"id": 70}
    assert "record" not in deleted


async def test_full_replica_identity_carries_all_of_before(clients: Clients, target: Target) -> None:
    heard = await clients.changes("full")
    target.sql("insert into rwc_full values (1, 'a', 1)")
    target.sql("update rwc_full set n = 2")
    target.sql("delete from rwc_full")
    _, updated, deleted = [(await heard.next())["data"] for _ in range(3)]
    assert updated["old_record"] == {"id": 1, "a": "a", "n": 1}
    assert deleted["old_record"] == {"id": 1, "a": "a", "n": 2}


FILTERS = [
    ("kind=eq.a", ["a"]),
    ("kind=neq.a", ["b", "c"]),
    ("n=gt.1", ["b", "c"]),
    ("n=gte.2", ["b", "c"]),
    ("n=lt.2", ["a"]),
    ("n=lte.2", ["a", "b"]),
    ("kind=in.(a,c)", ["a", "c"]),
    ("done=eq.true", ["c"]),
]


async def test_filters(clients: Clients, target: Target) -> None:
    heard = [(await clients.changes("jobs", "INSERT", filter=text), kinds) for text, kinds in FILTERS]
    target.sql("insert into rwc_jobs (kind, n, done) values ('a', 1, false), ('b', 2, false), ('c', 3, true)")
    for queue, kinds in heard:
        assert [(await queue.next())["data"]["record"]["kind"] for _ in kinds] == kinds
    # Nothing else came: what was committed later comes later.
    target.sql("insert into rwc_jobs (kind, n, done) values ('a', 9, true)")
    for (queue, _), (text, _) in zip(heard, FILTERS, strict=True):
        if text in ("kind=eq.a", "n=gt.1", "n=gte.2", "kind=in.(a,c)", "done=eq.true"):
            assert (await queue.next())["data"]["record"]["n"] == 9
        assert queue.queue.empty()


async def test_one_channel_with_several_bindings(clients: Clients, target: Target) -> None:
    first, second = Heard(), Heard()
    client = await clients.client()
    channel = client.channel("several")
    name = target.name("jobs")
    channel.on_postgres_changes("*", first.put, table=name, schema="public")
    channel.on_postgres_changes("INSERT", second.put, table=name, schema="public", filter="kind=eq.b")
    await clients.subscribe(channel)
    target.sql("insert into rwc_jobs (kind) values ('a'), ('b')")
    assert [(await first.next())["data"]["record"]["kind"] for _ in range(2)] == ["a", "b"]
    both = await second.next()
    assert (both["data"]["record"]["kind"], len(both["ids"])) == ("b", 2)


async def test_events_are_chosen(clients: Clients, target: Target) -> None:
    heard = {event: await clients.changes("jobs", event) for event in ("INSERT", "UPDATE", "DELETE")}
    target.sql("insert into rwc_jobs (id) values (80)")
    target.sql("update rwc_jobs set n = 1 where id = 80")
    target.sql("delete from rwc_jobs where id = 80")
    for event, queue in heard.items():
        assert (await queue.next())["data"]["type"] == event
        assert queue.queue.empty()


async def test_a_transaction_arrives_whole_and_in_order(clients: Clients, target: Target) -> None:
    heard = await clients.changes("jobs", "INSERT")
    target.sql("insert into rwc_jobs (n) select generate_series(1, 200)")
    assert [(await heard.next())["data"]["record"]["n"] for _ in range(200)] == list(range(1, 201))


async def test_what_is_rolled_back_is_never_heard(clients: Clients, target: Target) -> None:
    heard = await clients.changes("jobs", "INSERT")
    with contextlib.suppress(ZeroDivisionError), target.connection.transaction():
        target.sql("insert into rwc_jobs (kind) values ('never')")
        raise ZeroDivisionError
    target.sql("insert into rwc_jobs (kind) values ('always')")
    assert (await heard.next())["data"]["record"]["kind"] == "always"


async def test_a_user_hears_own_rows_only(clients: Clients, target: Target) -> None:
    ada = await clients.changes("own", "INSERT", key=target.anon_key, token=target.user(ADA))
    bob = await clients.changes("own", "INSERT", key=target.anon_key, token=target.user(BOB))
    anyone = await clients.changes("own", "INSERT", key=target.anon_key)
    service = await clients.changes("own", "INSERT")
    target.sql(f"insert into rwc_own values (1, '{BOB}', 'b'), (2, '{ADA}', 'a'), (3, null, 'nobody')")
    assert [(await service.next())["data"]["record"]["id"] for _ in range(3)] == [1, 2, 3]
    assert (await ada.next())["data"]["record"]["id"] == 2
    assert (await bob.next())["data"]["record"]["id"] == 1
    assert anyone.queue.empty()
    assert ada.queue.empty()
    assert bob.queue.empty()


async def test_columns_without_a_right_are_left_out(clients: Clients, target: Target) -> None:
    user = await clients.changes("partly", "INSERT", key=target.anon_key, token=target.user(ADA))
    target.sql("insert into rwc_partly values (1, 'seen', 'secret')")
    data = (await user.next())["data"]
    assert data["record"] == {"id": 1, "shown": "seen"}
    assert [column["name"] for column in data["columns"]] == ["id", "shown"]


@pytest.mark.parametrize(
    ("table", "binding", "text"),
    [
        ("jobs", {"filter": "nothing=eq.1"}, "invalid column for filter nothing"),
        ("jobs", {"filter": "n=around.1"}, "Error parsing `filter` params"),
        ("unpublished", {}, "Please check Realtime is enabled for the given connect parameters"),
        ("nowhere", {}, "Please check Realtime is enabled for the given connect parameters"),
    ],
    ids=["a column that is not there", "an operator that is not there", "not published", "no such table"],
)
async def test_bad_bindings_are_told_as_channel_errors(
    clients: Clients, target: Target, table: str, binding: Any, text: str
) -> None:
    client = await clients.client()
    channel = client.channel(f"bad-{table}-{len(binding)}")
    channel.on_postgres_changes("*", print, table=target.name(table), schema="public", **binding)
    states = Heard()
    await channel.subscribe(states.put)
    assert (await states.next())[0] == SUBSCRIBED
    state, error = await states.next()
    assert state == ERROR
    assert text in str(error)


async def test_a_bad_token_is_refused_at_the_join(clients: Clients, target: Target) -> None:
    client = await clients.client(target.anon_key)
    await client.realtime.set_auth(target.user(ADA)[:-4] + "AAAA")
    channel = client.channel("refused")
    states = Heard()
    await channel.subscribe(states.put)
    state, error = await states.next()
    assert state == ERROR
    assert "JwtSignatureError" in str(error)


async def test_a_new_token_brings_its_own_rows(clients: Clients, target: Target) -> None:
    client = await clients.client(target.anon_key, target.user(ADA))
    heard, channel = Heard(), client.channel("token")
    channel.on_postgres_changes("INSERT", heard.put, table=target.name("own"), schema="public")
    states = await clients.subscribe(channel)
    await client.realtime.set_auth(target.user(BOB))
    assert (await states.next()).message == "Subscribed to PostgreSQL"
    target.sql(f"insert into rwc_own values (1, '{ADA}', 'a'), (2, '{BOB}', 'b')")
    assert (await heard.next())["data"]["record"]["id"] == 2


async def test_broadcasts(clients: Clients) -> None:
    sender, listener = await clients.client(), await clients.client(clients.target.anon_key)
    heard, echo = Heard(), Heard()
    room = f"room-{clients.target.prefix}"
    listening = listener.channel(room)
    listening.on_broadcast("wake", heard.put)
    await clients.subscribe(listening, changes=False)
    sending = sender.channel(room)
    sending.on_broadcast("wake", echo.put)
    await clients.subscribe(sending, changes=False)
    await sending.send_broadcast("other", {"n": 0})
    await sending.send_broadcast("wake", {"n": 1, "deep": {"a": [None, "é"]}})
    message = await heard.next()
    assert (message["event"], message["payload"]) == ("wake", {"n": 1, "deep": {"a": [None, "é"]}})
    # Its own are not sent back unless it asks.
    assert echo.queue.empty()


async def test_broadcasts_to_oneself(clients: Clients) -> None:
    client = await clients.client()
    heard = Heard()
    config: Any = {"config": {"broadcast": {"self": True, "ack": True}}}
    channel = client.channel(f"self-{clients.target.prefix}", config)
    channel.on_broadcast("*", heard.put)
    channel.on_broadcast("wake", heard.put)
    await clients.subscribe(channel, changes=False)
    await channel.send_broadcast("wake", {"n": 1})
    assert (await heard.next())["payload"] == {"n": 1}


async def test_presence(clients: Clients) -> None:
    room = f"presence-{clients.target.prefix}"

    async def member(key: str) -> tuple[AsyncRealtimeChannel, Heard]:
        client = await clients.client()
        config: Any = {"config": {"presence": {"key": key, "enabled": True}}}
        channel, heard = client.channel(room, config), Heard()
        channel.on_presence_join(lambda key, current, new: heard.put("join", key, new))
        channel.on_presence_leave(lambda key, current, left: heard.put("leave", key, left))
        await clients.subscribe(channel, changes=False)
        return channel, heard

    first, heard = await member("w1")
    await first.track({"worker": 1})
    _, key, new = await heard.next()
    assert (key, new[0]["worker"]) == ("w1", 1)
    second, other = await member("w2")
    assert (await other.next())[:2] == ("join", "w1")
    await second.track({"worker": 2})
    assert (await heard.next())[:2] == ("join", "w2")
    assert (await other.next())[:2] == ("join", "w2")
    assert sorted(second.presence_state()) == ["w1", "w2"]
    await first.untrack()
    assert (await other.next())[:2] == ("leave", "w1")
    await second.unsubscribe()
    assert (await heard.next())[:2] == ("leave", "w1")
    assert (await heard.next())[:2] == ("leave", "w2")


async def test_leaving(clients: Clients, target: Target) -> None:
    client = await clients.client()
    heard, channel = Heard(), client.channel("leaving")
    channel.on_postgres_changes("INSERT", heard.put, table=target.name("jobs"), schema="public")
    states = await clients.subscribe(channel)
    await channel.unsubscribe()
    assert (await states.next())[0] == CLOSED
    other = await clients.changes("jobs", "INSERT")
    target.sql("insert into rwc_jobs (kind) values ('x')")
    await other.next()
    assert heard.queue.empty()
    assert client.get_channels() == []


@pytest.mark.embedded("sockets are cut by a fault switch")
@pytest.mark.parametrize("code", [1000, 1006, 1012])
async def test_a_client_that_was_cut_off_comes_back(clients: Clients, target: Target, code: int) -> None:
    client = await clients.client()
    heard, channel = Heard(), client.channel("cut")
    channel.on_postgres_changes("INSERT", heard.put, table=target.name("jobs"), schema="public")
    states = await clients.subscribe(channel)
    assert target.embedded is not None
    target.embedded.faults.drop_sockets(code)
    seen = [await states.next() for _ in range(3)]
    assert [state[0] for state in seen[:2]] == [ERROR, SUBSCRIBED]
    assert seen[2].status == "ok"
    target.sql("insert into rwc_jobs (kind) values ('again')")
    assert (await heard.next())["data"]["record"]["kind"] == "again"
