"""What the triggers broadcast, to whom, and that no trouble with it reaches whoever writes a row."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from reactive_worker.local.migrations import migrate
from reactive_worker.local.postgres import Cluster
from reactive_worker.local.project import find_project
from reactive_worker.store.push.hints import hinted_rows, mailbox_topic, todolist_topic
from reactive_worker.testing.database import Database
from tests.integration.sql.calling import Caller, result

MESSAGES = "select topic, event, private, payload from realtime.messages order by inserted_at"
BROKEN_SEND = """
create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true)
returns void language plpgsql as $$ begin raise exception 'realtime is broken'; end $$
"""


class Ear:
    """Reads what was sent since it was last asked."""

    def __init__(self, service: Caller) -> None:
        self._service = service
        self._known: set[str] = set()

    async def hear(self) -> list[tuple[str, Any]]:
        """``(topic, payload)`` of each new message."""
        rows = await self._service.rows(MESSAGES)
        new = [row for row in rows if row["payload"]["id"] not in self._known]
        self._known |= {row["payload"]["id"] for row in rows}
        assert all(row["private"] for row in new)
        return [(row["topic"], row["payload"]) for row in new]

    async def ids(self) -> list[str]:
        """Tasks told of since then."""
        told = [hinted_rows(payload)[0] for topic, payload in await self.hear() if ":todolist:" in topic]
        return [str(row["id"]) for rows in told for row in rows]


async def test_whatever_makes_a_task_runnable_is_told_once_and_nothing_else(
    database: Database, service: Caller
) -> None:
    ear = Ear(service)
    user = Caller(await database.connect("authenticated", {"sub": "00000000-0000-0000-0000-0000000000aa"}))
    id = await user.submit(agent_type="echo", priority=7)
    [(topic, payload)] = await ear.hear()
    assert topic == todolist_topic("echo") == "reactive_worker:todolist:echo"
    [[row], more] = hinted_rows(payload)
    assert (row["id"], row["priority"], row["attempt"], row["agent_type"], more) == (id, 7, 0, "echo", 0)
    assert row["owner_id"] == "00000000-0000-0000-0000-0000000000aa"
    assert "prompt" not in json.dumps(payload)

    worker = await service.register()
    run = (await service.call("claim_todos", p_worker_id=worker, p_ids=[id], p_want=1))["claimed"][0]
    assert await ear.ids() == []
    await service.call("release_todos", p_worker_id=worker, p_items=[{"id": id, "attempt": 1}])
    assert await ear.ids() == [id]
    run = (await service.call("claim_todos", p_worker_id=worker, p_ids=[id], p_want=1))["claimed"][0]
    parked = result(run, "input_required")
    await service.call("finish_todos", p_worker_id=worker, p_results=[parked])
    assert await ear.ids() == []
    await user.call("answer_todo", p_id=id, p_message={"parts": [{"text": "yes"}]})
    assert await ear.ids() == [id]
    run = (await service.call("claim_todos", p_worker_id=worker, p_ids=[id], p_want=1))["claimed"][0]
    await service.call("finish_todos", p_worker_id=worker, p_results=[result(run, "retry", retry_after=60)])
    [(_, payload)] = await ear.hear()
    [row], _ = hinted_rows(payload)
    # Told now, due later: the worker keeps it until then.
    assert (row["id"], row["attempt"]) == (id, 3)
    assert row["available_at"] > row["created_at"]
    await user.call("cancel_todo", p_id=id)
    assert await ear.ids() == []
    await user.call("retry_todo", p_id=id)
    assert await ear.ids() == [id]
    await service.call("claim_todos", p_worker_id=worker, p_ids=[id], p_want=1)
    await service.call("unregister_worker", p_worker_id=worker)
    assert await ear.ids() == [id]

    await service.rows(
        "insert into todolist (agent_type, prompt, agent_status) values ('echo', 'x', 'completed')"
        " returning id"
    )
    async with service.connection.transaction(force_rollback=True):
        await service.submit(agent_type="echo")
    assert await ear.hear() == []


async def test_a_touched_mailbox_tells_its_worker(service: Caller) -> None:
    ear = Ear(service)
    worker = await service.register()
    probe = await service.call("touch_probe", p_worker_id=worker)
    await service.call("set_worker_state", p_worker_id=worker, p_state="paused")
    (topic, probed), (_, paused) = await ear.hear()
    assert topic == mailbox_topic(worker)
    assert probed["probe_at"] == probe["probe_at"]
    assert paused["desired_state"] == "paused"
    await service.call("heartbeat_worker", p_worker_id=worker, p_lease_seconds=30)
    assert await ear.hear() == []


async def test_a_bulk_insert_costs_few_small_messages(service: Caller) -> None:
    ear = Ear(service)
    await service.connection.execute(
        "insert into todolist (agent_type, prompt, priority)"
        " select 'echo', 'x', n % 1000 from generate_series(1, 10000) n"
    )
    [(_, payload)] = await ear.hear()
    rows, more = hinted_rows(payload)
    assert (len(rows), more) == (100, 9_900)
    assert {row["priority"] for row in rows} == set(range(990, 1000))
    assert len(json.dumps(payload)) < 30_000
    await service.connection.execute(
        "insert into todolist (agent_type, prompt) select 'type ' || n, 'x' from generate_series(1, 150) n"
    )
    assert len(await ear.hear()) == 100


async def test_the_worker_computes_the_same_topics(service: Caller) -> None:
    names = ["echo", "crew-ai-dr", "a.b_C-9", "a b", "Grüße, Welt", "x\n", "*", "ж" * 100, "\U0001f600" * 100]
    rows = await service.rows(
        "select n, reactive_worker_private.push_topic(n) as topic from unnest(%s::text[]) n", names
    )
    assert {row["n"]: row["topic"] for row in rows} == {name: todolist_topic(name) for name in names}


async def test_whoever_sends_in_the_same_transaction_finds_their_topic_again(service: Caller) -> None:
    async with service.connection.transaction():
        await service.rows("select set_config('realtime.topic', 'mine', true)")
        await service.submit(agent_type="echo")
        [row] = await service.rows("select current_setting('realtime.topic') as topic")
    assert row["topic"] == "mine"


async def test_no_trouble_with_broadcasts_reaches_whoever_writes_a_row(
    database: Database, service: Caller
) -> None:
    worker = await service.register()
    with psycopg.connect(database.admin_dsn) as admin:
        # Somebody holds the table of messages: the insert waits a tenth of a second, not for the lock.
        admin.execute("lock table realtime.messages in access exclusive mode")
        await service.rows("set statement_timeout = '5s'")
        await service.submit(agent_type="echo")
        await service.call("touch_probe", p_worker_id=worker)
        admin.rollback()
        assert await service.rows(MESSAGES) == []

        admin.execute(BROKEN_SEND)
        admin.commit()
        said: list[str] = []
        service.connection.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
        await service.submit(agent_type="echo")
        await service.call("touch_probe", p_worker_id=worker)
        assert len(said) == 2
        assert all("realtime is broken" in one for one in said)

        admin.execute("alter table todolist disable trigger todolist_broadcast_update")
        admin.commit()
        ways = await service.call("push_ways")
        assert ways == {
            "broadcast": False,
            "reason": "trigger todolist_broadcast_update is missing or disabled",
        }

        admin.execute("alter function realtime.send(jsonb, text, text, boolean) rename to sent")
        admin.commit()
        said.clear()
        await service.submit(agent_type="echo")
        await service.call("touch_probe", p_worker_id=worker)
        assert said == []
        ways = await service.call("push_ways")
        assert ways == {"broadcast": False, "reason": "this database has no function realtime.send"}
    [row] = await service.rows("select count(*) as n from todolist")
    assert row["n"] == 3


async def test_the_policy_lets_workers_read_hints_and_nobody_write_them(
    database: Database, service: Caller
) -> None:
    worker = await service.register()
    await service.submit(agent_type="echo")
    await service.call("touch_probe", p_worker_id=worker)
    await service.rows("select 1 from realtime.send('{}', 'e', 'jobs:1', true)")
    seen: dict[tuple[str, str], int] = {}
    for role in ("anon", "authenticated", "reactive_worker"):
        caller = Caller(await database.connect(role))
        for topic in (todolist_topic("echo"), mailbox_topic(worker), "jobs:1"):
            async with caller.connection.transaction():
                await caller.rows("select set_config('realtime.topic', %s, true)", topic)
                rows = await caller.rows("select 1 from realtime.messages where topic = %s", topic)
                seen[role, topic.split(":")[0]] = max(len(rows), seen.get((role, topic.split(":")[0]), 0))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await caller.rows(
                "insert into realtime.messages (topic, extension, private, payload, event)"
                " values (%s, 'broadcast', true, '{}', 'todos') returning id",
                todolist_topic("echo"),
            )
    assert {key for key, found in seen.items() if found} == {("reactive_worker", "reactive_worker")}


@pytest.mark.parametrize("realtime", ["absent", "not ours"])
def test_the_migration_applies_where_realtime_is_absent_or_not_ours(
    pg_cluster: Cluster, realtime: str
) -> None:
    name = f"realtime_{realtime.replace(' ', '_')}"
    pg_cluster.create_database(name)
    try:
        with psycopg.connect(pg_cluster.admin_dsn(name), autocommit=True) as admin:
            if realtime == "absent":
                admin.execute("drop schema realtime cascade")
            else:
                admin.execute("alter table realtime.messages owner to supabase_admin")
        migrate(pg_cluster.dsn(name), find_project())
        with psycopg.connect(pg_cluster.dsn(name), autocommit=True) as owner:
            owner.execute("insert into todolist (agent_type, prompt) values ('echo', 'x')")
            [ways] = owner.execute("select push_ways()").fetchone() or [None]
            assert ways is not None
            assert ways["broadcast"] == (realtime == "not ours")
            policies = owner.execute("select 1 from pg_policies where schemaname = 'realtime'").fetchall()
            assert policies == []
    finally:
        pg_cluster.drop_database(name)
