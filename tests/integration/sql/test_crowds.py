"""Many sessions at the same rows: nothing is handed out twice, and nobody waits in a circle."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import Generator

import psycopg
import pytest

from reactive_worker.testing.database import Database
from tests.integration.sql.calling import TERMINAL, Caller, event, result


@contextlib.contextmanager
def fair_refusals() -> Generator[None]:
    """Lets pass what the functions say to who comes too late; a deadlock (40P01) is no such thing."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate not in ("RW001", "PT409"):
            raise


async def test_a_hundred_claims_at_once_hand_out_each_task_once(database: Database, service: Caller) -> None:
    callers = [Caller(await database.connect("service_role")) for _ in range(10)]
    workers = [await service.register() for _ in callers]
    tasks = [await service.submit() for _ in range(100)]

    async def grab(caller: Caller, worker: str, rng: random.Random) -> list[str]:
        got: list[str] = []
        for _ in range(10):
            offered = rng.sample(tasks, 60)
            answer = await caller.call("claim_todos", p_worker_id=worker, p_ids=offered, p_want=5)
            got += [row["id"] for row in answer["claimed"]]
        return got

    hands = zip(callers, workers, strict=True)
    got = await asyncio.gather(*(grab(*hand, random.Random(n)) for n, hand in enumerate(hands)))
    everything = [id for part in got for id in part]
    assert len(everything) == len(set(everything))
    rows = await service.rows(
        "select id::text, worker_id::text as worker, attempt from todolist where attempt > 0"
    )
    assert {row["id"]: row["worker"] for row in rows} == {
        id: worker for worker, part in zip(workers, got, strict=True) for id in part
    }
    assert {row["attempt"] for row in rows} == {1}


async def test_one_key_from_twenty_clients_makes_one_task(database: Database) -> None:
    clients = [Caller(await database.connect("service_role")) for _ in range(20)]
    row = {"agent_type": "echo", "prompt": "x", "idempotency_key": "k"}
    answers = await asyncio.gather(*(client.call("submit_todos", p_rows=[row, row]) for client in clients))
    items = [item for answer in answers for item in answer]
    assert len({item["id"] for item in items}) == 1
    assert sum(item["created"] for item in items) == 1
    [count] = await clients[0].rows("select count(*) as n from todolist")
    assert count["n"] == 1


async def test_batches_that_share_keys_in_another_order_do_not_deadlock(database: Database) -> None:
    clients = [Caller(await database.connect("service_role")) for _ in range(6)]
    keys = [f"k{n}" for n in range(100)]

    async def submit(client: Caller, rng: random.Random) -> dict[str, str]:
        mine = rng.sample(keys, len(keys))
        rows = [{"agent_type": "echo", "prompt": "x", "idempotency_key": key} for key in mine]
        answer = await client.call("submit_todos", p_rows=rows)
        return {key: item["id"] for key, item in zip(mine, answer, strict=True)}

    answers = await asyncio.gather(*(submit(client, random.Random(n)) for n, client in enumerate(clients)))
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("seed", [1, 2])
async def test_everything_at_once_ends_without_a_deadlock(
    database: Database, service: Caller, seed: int
) -> None:
    """Batches over the same rows in any order, from every side. 40P01 would fail the call that meets it."""
    rng = random.Random(seed)
    watcher = await service.register(lease=1000)
    workers = [str(uuid.uuid4()) for _ in range(3)]
    tasks = [await service.submit(max_failures=1000) for _ in range(12)]
    answered = {"parts": [{"text": "go on"}]}

    async def work(caller: Caller, worker: str, rng: random.Random) -> None:
        for _ in range(25):
            await caller.register(worker, lease=0.1 if rng.random() < 0.3 else 30)
            offered = rng.sample(tasks, len(tasks))
            with fair_refusals():
                answer = await caller.call("claim_todos", p_worker_id=worker, p_ids=offered, p_want=4)
                runs = rng.sample(answer["claimed"], len(answer["claimed"]))
                items = [
                    {"todolist_id": run["id"], "attempt": run["attempt"], **event(run["seq"] + 1)}
                    for run in runs
                ]
                stored = await caller.call("append_events", p_worker_id=worker, p_events=items)
                lost = {run["id"] for run in stored["lost"] + stored["busy"]}
                runs = [run for run in runs if run["id"] not in lost]
                ends = [
                    result(run, rng.choice(["retry", "input_required", "completed"]), after=1)
                    for run in runs[:2]
                ]
                rest = [{"id": run["id"], "attempt": run["attempt"]} for run in runs[2:]]
                await caller.call("finish_todos", p_worker_id=worker, p_results=ends)
                await caller.call("release_todos", p_worker_id=worker, p_items=rest)
                await caller.call("heartbeat_worker", p_worker_id=worker, p_lease_seconds=1, p_in_flight=rest)
                if rng.random() < 0.2:
                    await caller.call("unregister_worker", p_worker_id=worker)

    async def meddle(caller: Caller, rng: random.Random) -> None:
        for _ in range(60):
            id = rng.choice(tasks)
            function = rng.choice(["cancel_todo", "retry_todo", "answer_todo"])
            arguments = {"p_message": answered} if function == "answer_todo" else {}
            with fair_refusals():
                await caller.call(function, p_id=id, **arguments)
            await caller.sweep(watcher)

    jobs = [
        work(Caller(await database.connect("service_role")), worker, random.Random(rng.random()))
        for worker in workers
    ]
    jobs += [
        meddle(Caller(await database.connect("service_role")), random.Random(rng.random())) for _ in range(2)
    ]
    await asyncio.gather(*jobs)
    for id in tasks:
        log, row = await service.log(id), await service.todo(id)
        ends = [kind for kind in log if kind in TERMINAL]
        assert len(ends) - log.count("task_retried") == (
            row["agent_status"] in ("completed", "failed", "cancelled")
        )
        assert log.count("task_started") == row["attempt"]
