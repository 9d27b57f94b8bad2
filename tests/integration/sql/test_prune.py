"""prune_todos: what ended long ago goes in batches, and nothing that somebody needs."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from reactive_worker.testing.database import Database
from tests.integration.sql.calling import Caller, Refused, event, result


async def ended(service: Caller, status: str = "completed", **more: Any) -> str:
    worker = await service.register(lease=80_000)
    run = await service.running(worker)
    assert await service.finish(worker, result(run, status, **more)) == ["finished"]
    return run["id"]


async def there(service: Caller) -> set[str]:
    return {row["id"] for row in await service.rows("select id::text from todolist")}


async def prune(service: Caller, older_than: str = "10 minutes", **more: Any) -> dict[str, Any]:
    return await service.call("prune_todos", p_older_than=older_than, **more)


async def test_only_what_ended_long_ago_and_oldest_first(service: Caller) -> None:
    await service.move_clock(-3600)
    old = [await ended(service, status) for status in ("completed", "failed", "cancelled")]
    waiting, parked = await service.submit(), await ended(service, "input_required")
    running = await service.running()
    await service.move_clock(0)
    young = await ended(service)
    answer = await prune(service, p_limit=2)
    assert (answer["pruned"], answer["files"], answer["kept"], answer["more"]) == (old[:2], [], [], True)
    assert await service.log(old[0]) == []
    answer = await prune(service)
    assert (answer["pruned"], answer["more"]) == (old[2:], False)
    assert await there(service) == {waiting, parked, running["id"], young}


async def test_statuses_and_limits(service: Caller) -> None:
    await service.move_clock(-3600)
    good, failed = await ended(service), await ended(service, "failed")
    await service.move_clock(0)
    owner_call = "select prune_todos(%s, p_statuses => %s::text[])"
    [row] = await service.rows(owner_call, "1 minute", ["completed"])
    assert row["prune_todos"]["pruned"] == [good]
    assert await there(service) == {failed}
    for statuses in (["pending"], ["completed", "in_progress"], None):
        with Refused("22023", "p_statuses must be among completed, failed and cancelled"):
            await service.rows(owner_call, "1 minute", statuses)
    with Refused("22023", "p_older_than must not be negative"):
        await prune(service, "-1 second")
    for limit in (0, 10_001, None):
        with Refused("22023", "p_limit must be between 1 and 10000"):
            await prune(service, p_limit=limit)


async def test_its_own_files_are_named_and_nobody_elses(service: Caller) -> None:
    await service.move_clock(-3600)
    worker = await service.register(lease=80_000)
    run = await service.running(worker)

    def part(path: str, bucket: str = "results") -> dict[str, Any]:
        return {"url": "https://x", "metadata": {"storage": {"bucket": bucket, "path": path, "size": 1}}}

    mine, said = f"{run['id']}/aaa", f"{run['id']}/bbb"
    artifact = {"artifactUpdate": {"artifact": {"parts": [part(said), {"text": "x"}, part(mine)]}}}
    output = {
        "artifacts": [{"parts": [part(mine), part(f"{uuid.uuid4()}/ccc"), part("plan.pdf", "private")]}]
    }
    last = [event(2, "task_artifact", event_data=artifact), event(3, "task_completed")]
    await service.finish(worker, result(run, events=last, output=output))
    await service.move_clock(0)
    files = (await prune(service))["files"]
    assert sorted(file["path"] for file in files) == [mine, said]
    assert {file["bucket"] for file in files} == {"results"}


async def test_what_others_need_stays_and_keeps_nothing_else(
    service: Caller, other: Caller, database: Database
) -> None:
    await service.move_clock(-3600)
    needed, locked, free = [await ended(service) for _ in range(3)]
    await service.move_clock(0)
    owner = Caller(await database.connect())
    await owner.rows("create table invoices (task uuid references public.todolist (id))")
    await owner.rows("insert into invoices values (%s)", needed)
    async with other.connection.transaction():
        await other.rows("select 1 from todolist where id = %s for update", locked)
        answer = await prune(service)
    assert answer["pruned"] == [free]
    [kept] = answer["kept"]
    assert (kept["id"], "invoices" in kept["reason"]) == (needed, True)
    assert await there(service) == {needed, locked}


async def test_a_workers_token_prunes_what_the_project_gives_free(
    service: Caller, database: Database
) -> None:
    await service.move_clock(-40 * 86_400)
    old = await ended(service)
    worker = Caller(await database.connect("reactive_worker", {}))
    with Refused("42501", "workers may not prune what ended less than forever ago"):
        await prune(worker, "39 days")
    owner = Caller(await database.connect())
    await owner.rows("update reactive_worker_private.limits set workers_prune_after = interval '30 days'")
    with Refused("42501", "workers may not prune what ended less than 30 days ago"):
        await prune(worker, "29 days")
    assert (await prune(worker, "30 days"))["pruned"] == [old]


def test_ids_grow_with_time(database: Database) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        ids = [
            uuid.UUID(str(row[0]))
            for _ in range(2)
            for row in connection.execute(
                "insert into todolist (agent_type, prompt) values ('echo', 'a') returning id"
            )
        ]
        connection.execute("select pg_sleep(0.002)")
        [(third,)] = connection.execute(
            'select (submit_todos(\'[{"agent_type": "echo", "prompt": "b"}]\') -> 0 ->> \'id\')::uuid'
        )
        ids.append(third)
        [(now,)] = connection.execute("select extract(epoch from now()) * 1000")
    assert [id.version for id in ids] == [7, 7, 7]
    assert {id.variant for id in ids} == {uuid.RFC_4122}
    assert ids[0] < ids[2]
    assert ids[1] < ids[2]
    assert abs((ids[2].int >> 80) - int(now)) < 60_000


@pytest.mark.parametrize("version", [150000, 170005])
def test_ids_grow_with_time_where_postgresql_does_not_make_them(database: Database, version: int) -> None:
    """What PostgreSQL 15 to 17 run, on whichever the tests have."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        [(body,)] = connection.execute(
            "select pg_get_functiondef('public.reactive_worker_uuid()'::regprocedure)"
        )
        old = body.replace("current_setting('server_version_num')::integer", str(version))
        old = old.replace("public.reactive_worker_uuid()", "pg_temp.old_uuid()")
        assert old.count(str(version)) == 1
        connection.execute(old.encode())
        rows = connection.execute(
            "select pg_temp.old_uuid(), extract(epoch from clock_timestamp()) * 1000"
            " from generate_series(1, 200)"
        ).fetchall()
    ids = [uuid.UUID(str(id)) for id, _ in rows]
    assert {id.version for id in ids} == {7}
    assert {id.variant for id in ids} == {uuid.RFC_4122}
    assert len(set(ids)) == 200
    for id, (_, now) in zip(ids, rows, strict=True):
        assert abs((id.int >> 80) - int(now)) < 60_000
