"""Changes: who gets which, in which order, and how subscriptions begin and end."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import psycopg
import pytest
from websockets.asyncio.client import connect

from tests.integration.realtime.conftest import QUICK, MakeGateway
from tests.integration.realtime.harness import PATIENCE, Gateway
from tests.integration.realtime.replay import U1, U2

Connection = psycopg.Connection[Any]

TODOLIST = {"event": "*", "schema": "public", "table": "todolist"}


async def _until(writer: Connection, query: str, expected: object) -> None:
    """Wait until a query answers so."""
    async with asyncio.timeout(PATIENCE):
        while writer.execute(query).fetchone() != (expected,):  # type: ignore[arg-type]
            await asyncio.sleep(0.01)


async def test_the_old_api_names_events_after_the_change(gateway: Gateway, writer: Connection) -> None:
    client = await gateway.client()
    await client.send("realtime:public:todolist", "phx_join", {}, ref="1", join_ref="1")
    await client.next(lambda frame: frame["event"] == "system")
    writer.execute("insert into todolist(agent_type) values ('x')")
    frame = await client.next()
    assert frame["event"] == "INSERT"
    assert frame["payload"]["record"]["agent_type"] == "x"


async def test_nothing_is_created_before_it_is_needed_and_nothing_stays(
    make_gateway: MakeGateway, writer: Connection
) -> None:
    gateway = make_gateway(timings=dataclasses.replace(QUICK, linger=0.05))
    sessions = (
        "select count(*)::int from pg_stat_activity"
        " where datname = current_database() and application_name like 'realtime%'"
    )
    slots = "select count(*)::int from pg_replication_slots where database = current_database()"
    client = await gateway.client()
    await client.heartbeat()
    assert writer.execute(sessions).fetchone() == (0,)
    for topic in ("realtime:one", "realtime:again"):
        await client.listen(topic, TODOLIST)
        # One slot for changes, one for messages of the database.
        await _until(writer, slots, 2)
        ref = await client.send(topic, "phx_leave", {})
        await client.next(lambda frame, ref=ref: frame["ref"] == ref)  # type: ignore[misc]
        await _until(writer, slots, 0)
        await _until(writer, sessions, 0)


async def test_a_channel_that_left_hears_nothing_more(gateway: Gateway, writer: Connection) -> None:
    client = await gateway.client()
    await client.listen("realtime:a", TODOLIST)
    await client.listen("realtime:b", TODOLIST)
    await client.send("realtime:a", "phx_leave", {})
    await client.next(lambda frame: frame["event"] == "phx_close")
    writer.execute("insert into todolist(agent_type) values ('x')")
    assert (await client.next())["topic"] == "realtime:b"
    await client.heartbeat()
    assert [frame["topic"] for frame in client.frames if frame["event"] == "postgres_changes"] == [
        "realtime:b"
    ]


async def test_a_changed_publication_is_noticed_by_the_check(
    make_gateway: MakeGateway, writer: Connection
) -> None:
    gateway = make_gateway(timings=dataclasses.replace(QUICK, publication_check=0.3))
    early, wide, late = await gateway.client(), await gateway.client(), await gateway.client()
    nopub = {"event": "*", "schema": "public", "table": "nopub_t"}
    refusal = await early.listen("realtime:p1", nopub)
    assert refusal["payload"]["message"].startswith("Unable to subscribe to changes with given parameters.")
    await wide.listen("realtime:p2", {"event": "*", "schema": "public", "table": "*"})
    writer.execute("alter publication supabase_realtime add table nopub_t")
    system = await late.listen("realtime:p3", nopub)
    assert system["payload"]["status"] == "ok"
    # Whoever is subscribed is subscribed anew, unasked; whoever was refused is left alone.
    for client in (wide, late):
        again = await client.next(lambda frame: frame["event"] == "system")
        assert again["payload"]["message"] == "Subscribed to PostgreSQL"
    writer.execute("insert into nopub_t values (1, 'seen by both')")
    for client in (wide, late):
        assert (await client.change())["data"]["record"] == {"id": 1, "v": "seen by both"}
    writer.execute("alter publication supabase_realtime drop table nopub_t")
    writer.execute("insert into nopub_t values (2, 'silence')")
    writer.execute("insert into todolist(agent_type) values ('after')")
    assert (await wide.change())["data"]["table"] == "todolist"
    await early.heartbeat()
    assert [frame["event"] for frame in early.frames] == ["phx_reply", "system", "phx_reply"]


async def test_a_bulk_load_arrives_whole_and_in_order(gateway: Gateway, writer: Connection) -> None:
    client = await gateway.client()
    await client.listen("realtime:bulk", {**TODOLIST, "event": "INSERT", "select": ["priority"]})
    before, rows = len(client.frames), 25_000
    writer.execute(
        "insert into todolist(agent_type, priority) select 'bulk', g from generate_series(1, %s) g", (rows,)
    )
    await client.heard(before + rows, timeout=60)
    priorities = [frame["payload"]["data"]["record"]["priority"] for frame in client.frames[before:]]
    assert priorities == list(range(1, rows + 1))


async def test_every_subscriber_gets_what_its_claims_let_it_see(gateway: Gateway, writer: Connection) -> None:
    users = [f"00000000-0000-0000-0000-{number:012}" for number in range(20)]
    clients = []
    for user in users:
        client = await gateway.client(gateway.keys.anon_key)
        token = gateway.keys.mint_user(user)
        await client.listen("realtime:own", {"event": "*", "schema": "public", "table": "own_t"}, token=token)
        clients.append(client)
    with writer.transaction():
        for number, user in enumerate(users):
            writer.execute("insert into own_t values (%s, %s, 'mine')", (number, user))
    for number, client in enumerate(clients):
        change = await client.change()
        assert change["data"]["record"]["id"] == number
        await client.heartbeat()
        assert sum(frame["event"] == "postgres_changes" for frame in client.frames) == 1


async def test_keys_of_several_columns_and_names_that_need_quotes(
    gateway: Gateway, writer: Connection
) -> None:
    writer.execute(
        'create table "Ta""ble" ("Key A" int, "select" text, v json, primary key ("Key A", "select"))'
    )
    writer.execute('alter table "Ta""ble" enable row level security')
    writer.execute('create policy p on "Ta""ble" for select to authenticated using ("select" = \'yes\')')
    writer.execute('grant select on "Ta""ble" to authenticated, service_role')
    writer.execute('alter publication supabase_realtime add table "Ta""ble"')
    user, service = await gateway.client(gateway.keys.anon_key), await gateway.client()
    binding = {"event": "*", "schema": "public", "table": 'Ta"ble'}
    await user.listen("realtime:odd", binding, token=gateway.keys.mint_user(U1))
    await service.listen("realtime:odd", binding, {**binding, "filter": "select=eq.no"})
    writer.execute("""insert into "Ta""ble" values (1, 'no', '{"b":1}'), (1, 'yes', '{"a":"\\u0000"}')""")
    for _ in range(2):
        await service.change()
    first, second = (frame["payload"] for frame in service.frames[-2:])
    assert first["data"]["record"] == {"v": {"b": 1}, "Key A": 1, "select": "no"}
    assert len(first["ids"]) == 2
    assert len(second["ids"]) == 1
    # JSON that jsonb cannot hold is null, and costs nobody anything else.
    assert (await user.change())["data"]["record"] == {"v": None, "Key A": 1, "select": "yes"}


async def test_an_update_of_the_key_is_judged_by_the_new_one(gateway: Gateway, writer: Connection) -> None:
    writer.execute("insert into own_t values (1, %s, 'a')", (U1,))
    client = await gateway.client(gateway.keys.anon_key)
    binding = {"event": "*", "schema": "public", "table": "own_t"}
    await client.listen("realtime:own", binding, token=gateway.keys.mint_user(U1))
    writer.execute("update own_t set id = 2")
    change = await client.change()
    assert (change["data"]["old_record"], change["data"]["record"]["id"]) == ({"id": 1}, 2)


async def test_a_policy_that_fails_hides_its_rows_and_stops_nothing_else(
    gateway: Gateway, writer: Connection
) -> None:
    writer.execute("create policy broken on own_t for select to authenticated using (1 / id > 0)")
    user, service = await gateway.client(gateway.keys.anon_key), await gateway.client()
    binding = {"event": "*", "schema": "public", "table": "*"}
    await user.listen("realtime:all", binding, token=gateway.keys.mint_user(U2))
    await service.listen("realtime:all", binding)
    writer.execute("insert into own_t values (0, %s, 'fails')", (U1,))
    writer.execute("insert into todolist(agent_type) values ('fine')")
    assert [(await service.change())["data"]["table"] for _ in range(2)] == ["own_t", "todolist"]
    assert (await user.change())["data"]["table"] == "todolist"


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ("priority=gt.5,agent_type=neq.y", [3]),
        ("prompt=is.null", [4]),
        ("agent_type=like.x%", [1, 3]),
        ('input_data=eq.{"a": 1.0}', [1]),
        ("created_at=gte.2026-01-01T00:00:00Z", [2, 3]),
        ("id=in.(00000000-0000-0000-0000-000000000002,00000000-0000-0000-0000-000000000004)", [2, 4]),
        ("priority=not.in.(1,9)", [4]),
        ("id=eq.00000000-0000-0000-0000-00000000000A", []),
    ],
)
async def test_filters_on_live_changes(
    gateway: Gateway, writer: Connection, filter_text: str, expected: list[int]
) -> None:
    client = await gateway.client()
    system = await client.listen(
        "realtime:f", {**TODOLIST, "filter": filter_text}, {**TODOLIST, "event": "DELETE"}
    )
    assert system["payload"]["status"] == "ok", system
    rows = [
        (1, "x1", "p", '{"a": 1}', 1, "2025-01-01"),
        (2, "y", "p", None, 9, "2026-01-01"),
        (3, "x2", "p", None, 9, "2027-01-01"),
        (4, "z", None, None, 5, "2025-01-01"),
    ]
    with writer.transaction():
        for number, kind, prompt, data, priority, created in rows:
            writer.execute(
                "insert into todolist(id, agent_type, prompt, input_data, priority, created_at)"
                " values (%s, %s, %s, %s, %s, %s)",
                (f"00000000-0000-0000-0000-{number:012}", kind, prompt, data, priority, created),
            )
        # Its DELETE comes last and is wanted whatever the filter says.
        writer.execute("insert into todolist(id, agent_type) values (gen_random_uuid(), 'end')")
        writer.execute("delete from todolist where agent_type = 'end'")
    found: list[int] = []
    while (change := await client.change())["data"]["type"] != "DELETE":
        if change["data"]["record"]["agent_type"] != "end":
            found.append(int(change["data"]["record"]["id"][-2:]))
    assert found == expected


async def test_a_binding_that_selects_a_column_that_is_not_there_is_refused(gateway: Gateway) -> None:
    client = await gateway.client()
    system = await client.listen("realtime:s", {**TODOLIST, "select": ["nocol"]})
    assert system["payload"]["status"] == "error"
    assert system["payload"]["message"].endswith(
        'select: ["nocol"]]. Exception: ERROR P0001 (raise_exception) invalid column for select nocol'
    )


async def test_frames_of_a_change_are_compact_and_parse_everywhere(
    gateway: Gateway, writer: Connection
) -> None:
    """No NaN, no raw control characters: any JSON reader takes them."""
    client = await gateway.client()
    await client.listen("realtime:t", {"event": "*", "schema": "public", "table": "types_t"})
    writer.execute("insert into types_t(id, f8, num, t) values (1, 'NaN', 'Infinity', E'\\x01\\x7f\\u2028')")
    record = (await client.change())["data"]["record"]
    assert (record["f8"], record["num"], record["t"]) == (None, None, "\x01\x7f\u2028")
    assert json.loads(json.dumps(record, allow_nan=False)) == record


async def test_a_slow_reader_gets_everything(gateway: Gateway, writer: Connection) -> None:
    """Delivery waits for it, instead of keeping all in memory."""
    rows = 1000
    connection = await connect(gateway.url(gateway.keys.service_role_key), max_size=None, max_queue=1)
    join = {"topic": "realtime:slow", "event": "phx_join", "ref": "1", "join_ref": "1"}
    await connection.send(json.dumps({**join, "payload": {"config": {"postgres_changes": [TODOLIST]}}}))
    for _ in range(2):
        await connection.recv()
    writer.execute(
        "insert into todolist(agent_type, priority, big)"
        " select 'bulk', g, repeat('x', 20000) from generate_series(1, %s) g",
        (rows,),
    )
    assert gateway.server is not None
    async with asyncio.timeout(PATIENCE):
        # The rest is held back: 20 MB are more than may wait in a socket.
        while gateway.server.changes_handled == 0:
            await asyncio.sleep(0.01)
    assert gateway.server.changes_handled < rows
    frames = [json.loads(await connection.recv()) for _ in range(rows)]
    assert [frame["payload"]["data"]["record"]["priority"] for frame in frames] == list(range(1, rows + 1))
    await connection.close()


async def test_coming_and_going_never_leaves_anybody_deaf(
    make_gateway: MakeGateway, writer: Connection
) -> None:
    """Giving up the slot and taking it again must not get in each other's way."""
    gateway = make_gateway(timings=dataclasses.replace(QUICK, linger=0.0))
    client = await gateway.client()
    for number in range(15):
        topic = f"realtime:{number}"
        await client.listen(topic, TODOLIST)
        if number % 3:
            # Sometimes a failing one comes in between.
            await client.listen("realtime:bad", {**TODOLIST, "filter": "nocol=eq.1"})
        await client.send(topic, "phx_leave", {})
        await client.join("realtime:last", TODOLIST)
        await client.next(lambda frame: frame["event"] == "system" and frame["topic"] == "realtime:last")
        writer.execute("insert into todolist(agent_type) values (%s)", (topic,))
        assert (await client.change())["data"]["record"]["agent_type"] == topic
        await client.send("realtime:last", "phx_leave", {})
