"""Push by broadcast, by changes, and the choice between them, on real sockets."""

from __future__ import annotations

import functools
import time
from typing import Any

import psycopg
import pytest

from reactive_worker.backoff import Backoff
from reactive_worker.models import PushState
from reactive_worker.store.push.broadcast import BroadcastLink
from reactive_worker.store.push.hints import mailbox_topic, todolist_topic
from reactive_worker.testing.database import Database
from reactive_worker.testing.workers import eventually as eventually_within
from reactive_worker.testing.workers import running_worker
from tests.executors import Echo
from tests.support import count, insert, query

#: Sweeps and probes happen when something asks for them, not by the clock.
QUIET = {"polling_interval": 3600.0, "sweep_interval": 3600.0, "probe_interval": 3600.0, "push": "auto"}
#: Patient: other tests may have the machine.
eventually = functools.partial(eventually_within, timeout=60)
POLICY = "workers hear their hints"


async def done(supabase: Any, wanted: int) -> bool:
    return await count(supabase.db_url, "completed") == wanted


def healthy(worker: Any, way: str) -> bool:
    return (worker.health.state, worker.health.mode) == (PushState.HEALTHY, way)


def as_admin(database: Database, statement: str) -> None:
    with psycopg.connect(database.admin_dsn, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[arg-type]


async def test_auto_goes_by_broadcast_falls_back_while_it_is_silent_and_returns(
    local_supabase: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart of the database: broadcasts vanish, no frame says so, sockets stay open."""
    monkeypatch.setattr("reactive_worker.store.push.link.RECONNECT", Backoff(0.5, 1.0, jitter="full"))
    settings = {**QUIET, "probe_interval": 1.0, "lease": 60.0, "heartbeat": 30.0}
    async with running_worker(local_supabase, Echo(), settings=settings) as worker:
        assert worker._session is not None
        worker._session.push.probe.echo_timeout = 1.0
        await eventually(lambda: healthy(worker, "broadcast"))
        # More than a hint names: the rest is found by the sweep it asks for.
        await insert(local_supabase.db_url, [f"bulk {n}" for n in range(150)])
        await eventually(lambda: done(local_supabase, 150))
        # The control channel goes the same way: the next heartbeat is half a minute away.
        await insert(local_supabase.db_url, ["long"], input_data={"sleep": 60})
        (run,) = await eventually(lambda: worker.running)
        await query(local_supabase.db_url, "select cancel_todo(%s)", run.id)
        await eventually(lambda: count(local_supabase.db_url, "cancelled"))

        local_supabase.faults.broadcast_deaf = True
        await insert(local_supabase.db_url, ["not told"])
        # The next probe finds out, changes are opened, and what nobody told is swept up.
        await eventually(lambda: done(local_supabase, 151))
        await eventually(lambda: healthy(worker, "changes"))
        assert "broadcasts do not arrive" in worker.health.detail
        await insert(local_supabase.db_url, ["told by changes"])
        await eventually(lambda: done(local_supabase, 152))
        local_supabase.faults.broadcast_deaf = False
        await eventually(lambda: healthy(worker, "broadcast"))
        await insert(local_supabase.db_url, ["told by broadcast"])
        await eventually(lambda: done(local_supabase, 153))


async def test_a_hint_that_overtakes_its_row_is_not_forgotten(
    local_supabase: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL streams a commit before it shows it to others; here it does so for as long as we like."""
    monkeypatch.setattr("reactive_worker.worker.claiming.PATIENCE", 60.0)
    as_admin(database, "alter table todolist disable trigger todolist_broadcast_insert")
    async with running_worker(local_supabase, Echo(), settings={**QUIET, "push": "broadcast"}) as worker:
        session = worker._session
        assert session is not None
        await eventually(lambda: healthy(worker, "broadcast"))
        connection = await database.connect()
        async with connection.transaction():
            cursor = await connection.execute(
                "insert into todolist (agent_type, prompt) values ('test', 'unseen')"
                " returning id::text, agent_type, created_at"
            )
            id, agent_type, at = await cursor.fetchone() or ("", "", None)
            session.push.rows.on_next({"id": id, "agent_type": agent_type, "created_at": at})
            await eventually(lambda: session.claim.visibility._since)
        await eventually(lambda: done(local_supabase, 1))


async def test_both_ways_are_merged(local_supabase: Any) -> None:
    async with running_worker(local_supabase, Echo(), settings={**QUIET, "push": "both"}) as worker:
        await eventually(lambda: healthy(worker, "both"))
        for deaf in ("deaf", "broadcast_deaf"):
            setattr(local_supabase.faults, deaf, True)
            await insert(local_supabase.db_url, [f"while {deaf}"])
            await eventually(lambda deaf=deaf: done(local_supabase, 1 if deaf == "deaf" else 2))
            setattr(local_supabase.faults, deaf, False)
    rows = await query(local_supabase.db_url, "select attempt from todolist")
    assert [row["attempt"] for row in rows] == [1, 1]


async def test_a_refused_worker_goes_by_changes_until_it_is_let_in(
    local_supabase: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker with the least privileged role; its policy is missing at first."""
    monkeypatch.setattr("reactive_worker.store.push.link.REFUSED_PAUSE", 0.5)
    local_supabase.faults.join_refusal_delay = 0.1
    definition = await query(
        local_supabase.db_url, "select qual from pg_policies where policyname = %s", POLICY
    )
    as_admin(database, f'drop policy "{POLICY}" on realtime.messages')
    token = local_supabase.keys.mint({"role": "reactive_worker", "exp": int(time.time()) + 600})
    settings = {**QUIET, "worker_token": token, "key": local_supabase.anon_key}
    async with running_worker(local_supabase, Echo(), settings=settings) as worker:
        await eventually(lambda: healthy(worker, "changes"))
        assert "refuses this worker (Unauthorized" in worker.health.detail
        await insert(local_supabase.db_url, ["told by changes"])
        await eventually(lambda: done(local_supabase, 1))
        as_admin(
            database,
            f'create policy "{POLICY}" on realtime.messages for select to reactive_worker'
            f" using ({definition[0]['qual']})",
        )
        await eventually(lambda: healthy(worker, "broadcast"))
        await insert(local_supabase.db_url, ["told by broadcast"])
        await eventually(lambda: done(local_supabase, 2))
    workers = await query(local_supabase.db_url, "select 1 from workers")
    assert workers == []


async def test_a_database_without_realtime_send_is_heard_by_changes(
    local_supabase: Any, database: Database
) -> None:
    as_admin(database, "alter function realtime.send(jsonb, text, text, boolean) rename to sent")
    settings = {**QUIET, "heartbeat": 0.2}
    async with running_worker(local_supabase, Echo(), settings=settings) as worker:
        await eventually(lambda: healthy(worker, "changes"))
        assert "this database has no function realtime.send" in worker.health.detail
        await insert(local_supabase.db_url, ["x"])
        await eventually(lambda: done(local_supabase, 1))

        async def listed() -> Any:
            rows = await query(local_supabase.db_url, "select list_workers() as workers")
            info = rows[0]["workers"][0]["info"]
            return info if info["push"] == "healthy" else None

        info = await eventually(listed)
        assert info["push_mode"] == "changes"
        assert "realtime.send" in info["push_detail"]


async def test_nobody_else_gets_into_the_channels_of_workers(local_supabase: Any) -> None:
    local_supabase.faults.join_refusal_delay = 0.05
    keys = local_supabase.keys
    role = {"exp": int(time.time()) + 600}
    tokens = {
        "anon": local_supabase.anon_key,
        "authenticated": keys.mint_user("00000000-0000-0000-0000-0000000000aa"),
        "reactive_worker": keys.mint({"role": "reactive_worker", **role}),
        "service_role": local_supabase.service_role_key,
    }
    let_in: set[tuple[str, str]] = set()
    for name, token in tokens.items():
        for topic in (todolist_topic("test"), todolist_topic("Grüße"), mailbox_topic("w"), "jobs:1"):
            link = BroadcastLink(local_supabase.api_url, token, [topic], on_message=lambda *_: None)
            await link.start()
            try:
                await eventually(lambda link=link: link.is_live or link.refusal)
            finally:
                await link.stop()
            if not link.refusal:
                let_in.add((name, topic.split(":")[0]))
    workers = {"reactive_worker", "service_role"}
    assert let_in == {(name, "reactive_worker") for name in workers} | {("service_role", "jobs")}
