"""A database that goes away: sockets stay, nobody is told, and changes flow again by themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg

from reactive_worker.local.postgres import Cluster
from tests.integration.realtime.conftest import QUICK, TABLES, MakeGateway
from tests.integration.realtime.harness import PATIENCE, Client, Gateway

TODOLIST = {"event": "*", "schema": "public", "table": "todolist"}


async def _hears_again(client: Client, writer: psycopg.Connection[Any]) -> None:
    """Insert until a change is heard: those before the new slot are lost, as on the real server."""
    async with asyncio.timeout(PATIENCE):
        while True:
            writer.execute("insert into todolist(agent_type) values ('again')")
            try:
                await client.change(timeout=0.1)
                return
            except TimeoutError:
                continue


async def test_the_log_is_asked_for_also_when_nothing_comes(
    gateway: Gateway, writer: psycopg.Connection[Any]
) -> None:
    """PostgreSQL's sender can oversleep a commit: without a word from us until the next one, 15 s later."""
    client = await gateway.client()
    await client.listen("realtime:x", TODOLIST, private=True)
    replies = (
        "select session.application_name, reply_time"
        " from pg_stat_replication join pg_stat_activity as session using (pid)"
        " where datname = current_database() order by 1"
    )

    async def heard_after(moments: list[Any]) -> list[Any]:
        async with asyncio.timeout(PATIENCE):
            while True:
                found = [moment for _, moment in writer.execute(replies).fetchall()]
                if len(found) == 2 and all(
                    new is not None and (old is None or new > old)
                    for new, old in zip(found, moments, strict=True)
                ):
                    return found
                await asyncio.sleep(0.01)

    await heard_after(await heard_after([None, None]))


async def _hears_messages_again(client: Client, writer: psycopg.Connection[Any]) -> None:
    """Send until a message is heard, likewise."""
    async with asyncio.timeout(PATIENCE):
        while True:
            writer.execute("select realtime.send('{}', 'again', 'private')")
            try:
                await client.next(lambda frame: frame["event"] == "broadcast", timeout=0.1)
                return
            except TimeoutError:
                continue


async def test_killed_backends_are_replaced(gateway: Gateway, writer: psycopg.Connection[Any]) -> None:
    client = await gateway.client()
    await client.listen("realtime:x", TODOLIST)
    member = await gateway.client()
    await member.join("realtime:private", private=True)
    killed = writer.execute(
        "select application_name, pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and application_name like 'realtime%'"
    ).fetchall()
    assert {("realtime_changes", True), ("realtime_messages", True), ("realtime_connect", True)} <= set(
        killed
    )
    await _hears_again(client, writer)
    await _hears_messages_again(member, writer)
    assert {frame["event"] for frame in member.frames} == {"phx_reply", "broadcast"}
    await client.heartbeat()
    told = [frame["event"] for frame in client.frames if frame["event"] != "postgres_changes"]
    assert told == ["phx_reply", "system", "phx_reply"]
    # And new subscriptions work, on the connection that was killed as well.
    assert (await client.listen("realtime:y", TODOLIST))["payload"]["status"] == "ok"
    assert (await member.join("realtime:z", private=True))["payload"]["status"] == "ok"


async def test_a_restarted_database_is_found_again(tmp_path: Path) -> None:
    cluster = Cluster(data_dir=tmp_path / "data")
    cluster.start()
    gateway = Gateway(cluster.admin_dsn(), timings=QUICK).start()
    try:
        with psycopg.connect(cluster.admin_dsn(), autocommit=True) as connection:
            connection.execute("set search_path = public")
            connection.execute(TABLES)
        client = await gateway.client()
        await client.listen("realtime:x", TODOLIST)
        member = await gateway.client()
        await member.join("realtime:private", private=True)
        port = cluster.port
        cluster.stop()
        # A join while the database is down is answered; its subscription comes when the database does.
        assert (await client.join("realtime:y", TODOLIST))["payload"]["status"] == "ok"
        # Policies cannot be asked, so nobody is let in on trust.
        gateway.faults.join_refusal_delay = 0.01
        refused = await member.join("realtime:other", private=True)
        assert refused["payload"]["response"]["reason"].startswith("UnableToConnectToProject: ")
        cluster = Cluster(data_dir=tmp_path / "data", port=port)
        cluster.start()
        system = await client.next(lambda frame: frame["event"] == "system")
        assert (system["topic"], system["payload"]["status"]) == ("realtime:y", "ok")
        with psycopg.connect(cluster.admin_dsn(), autocommit=True) as connection:
            connection.execute("set search_path = public")
            await _hears_again(client, connection)
            await _hears_messages_again(member, connection)
    finally:
        await gateway.disconnect()
        await asyncio.to_thread(gateway.stop)
        cluster.stop()


async def test_stopping_in_the_middle_of_a_subscription_leaves_no_session(
    pg_cluster: Cluster, make_gateway: MakeGateway
) -> None:
    """A half-made login would keep every database of the server from being dropped for a minute."""
    for _ in range(8):
        gateway = make_gateway()
        client = await gateway.client()
        await client.join("realtime:x", TODOLIST)
        await client.close()
        await asyncio.to_thread(gateway.stop)
        async with asyncio.timeout(30):
            await asyncio.to_thread(pg_cluster.create_database, "scratch")
            await asyncio.to_thread(pg_cluster.drop_database, "scratch")
