"""Two or more sessions at the same rows: who wins, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

import psycopg
import pytest

from reactive_worker.testing.database import Database
from tests.integration.sql.calling import TERMINAL, Caller, Refused, event, result

DEADLINE = 10.0


async def is_blocked(watcher: Caller, waiting: Caller) -> bool:
    [row] = await watcher.rows("select cardinality(pg_blocking_pids(%s)) > 0 as yes", waiting.pid)
    return row["yes"]


@contextlib.asynccontextmanager
async def overtaking(
    database: Database, first: Caller, second: Callable[[], Awaitable[Any]], waiting: Caller
) -> AsyncGenerator[asyncio.Future[Any]]:
    """Inside: `first` has an open transaction. At the end `second` is started, is seen to wait for it, and
    then `first` commits; the future given holds what `second` came to.
    """
    watcher = Caller(await database.connect())
    outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    async with first.connection.transaction():
        yield outcome
        task = asyncio.ensure_future(second())
        async with asyncio.timeout(DEADLINE):
            while not await is_blocked(watcher, waiting):
                assert not task.done(), "did not wait"
    try:
        outcome.set_result(await task)
    except psycopg.Error as error:
        outcome.set_exception(error)


@contextlib.contextmanager
def fair_refusals() -> Generator[None]:
    """Lets pass what the functions say to who comes too late; a deadlock (40P01) is no such thing."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate not in ("RW001", "PT409"):
            raise


async def test_two_claims_never_wait_and_never_share(service: Caller, other: Caller) -> None:
    tasks = [await service.submit() for _ in range(4)]
    one, two = await service.register(), await service.register()
    async with service.connection.transaction():
        assert [row["id"] for row in await service.claim(one, *tasks[:2])] == tasks[:2]
        answer = await other.call("claim_todos", p_worker_id=two, p_ids=tasks, p_want=4)
        # What the first has locked is neither ours nor gone: it may still come back.
        assert [row["id"] for row in answer["claimed"]] == tasks[2:]
        assert answer["gone"] == []
    answer = await other.call("claim_todos", p_worker_id=two, p_ids=tasks[:2], p_want=4)
    assert (answer["claimed"], sorted(answer["gone"])) == ([], sorted(tasks[:2]))


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


async def test_a_sweep_skips_a_worker_that_is_just_claiming(service: Caller, other: Caller) -> None:
    watcher, worker = await service.register(lease=1000), await service.register(lease=10)
    id = await service.submit()
    await other.move_clock(11)
    async with service.connection.transaction():
        assert await service.claim(worker, id)
        assert (await other.sweep(watcher))["reclaimed"] == 0
    assert (await other.sweep(watcher))["reclaimed"] == 1
    assert await service.log(id) == ["task_started", "task_lost"]


async def test_a_claim_that_meets_the_sweep_of_its_worker_is_refused(
    database: Database, service: Caller, other: Caller
) -> None:
    watcher, worker = await service.register(lease=1000), await service.register(lease=10)
    id = await service.submit()
    await service.move_clock(11)
    async with overtaking(database, service, lambda: other.claim(worker, id), other) as outcome:
        assert (await service.sweep(watcher))["reclaimed"] == 0
    with Refused("RW001"):
        await outcome
    assert (await service.todo(id))["agent_status"] == "pending"


async def test_a_heartbeat_that_meets_the_sweep_of_its_worker_is_not_known(
    database: Database, service: Caller, other: Caller
) -> None:
    watcher, worker = await service.register(lease=1000), await service.register(lease=10)
    await service.move_clock(11)

    def beat() -> Awaitable[Any]:
        return other.call("heartbeat_worker", p_worker_id=worker, p_lease_seconds=30)

    async with overtaking(database, service, beat, other) as outcome:
        await service.sweep(watcher)
    assert (await outcome)["known"] is False


async def test_a_heartbeat_in_time_saves_its_worker(service: Caller, other: Caller) -> None:
    watcher, worker = await service.register(lease=1000), await service.register(lease=10)
    run = await service.running(worker)
    await other.move_clock(11)
    async with service.connection.transaction():
        await service.call("heartbeat_worker", p_worker_id=worker, p_lease_seconds=30)
        assert (await other.sweep(watcher))["reclaimed"] == 0
    assert (await other.sweep(watcher))["reclaimed"] == 0
    assert await service.finish(worker, result(run)) == ["finished"]


async def test_two_sweeps_share_the_work(service: Caller, other: Caller) -> None:
    watcher = await service.register(lease=1000)
    for _ in range(3):
        await service.running(await service.register(lease=10))
    for caller in (service, other):
        await caller.move_clock(11)
    async with service.connection.transaction():
        assert (await service.sweep(watcher))["reclaimed"] == 3
        assert (await other.sweep(watcher))["reclaimed"] == 0
    rows = await service.rows("select distinct failures, agent_status from todolist")
    assert rows == [{"failures": 1, "agent_status": "pending"}]


async def test_events_that_meet_the_sweep_are_lost(
    database: Database, service: Caller, other: Caller
) -> None:
    watcher, worker = await service.register(lease=1000), await service.register(lease=10)
    run = await service.running(worker)
    item = {"todolist_id": run["id"], "attempt": 1, **event(2)}
    await service.move_clock(11)

    def append() -> Awaitable[Any]:
        return other.call("append_events", p_worker_id=worker, p_events=[item])

    async with overtaking(database, service, append, other) as outcome:
        await service.sweep(watcher)
    assert await outcome == {"stored": 0, "lost": [run["id"]]}
    assert await service.log(run["id"]) == ["task_started", "task_lost"]


async def test_a_sweep_that_meets_events_counts_on_after_them(
    database: Database, service: Caller, other: Caller
) -> None:
    watcher, worker = await service.register(lease=1000), await service.register(lease=10)
    run = await service.running(worker)
    await other.move_clock(11)
    async with overtaking(database, service, lambda: other.sweep(watcher), other) as outcome:
        item = {"todolist_id": run["id"], "attempt": 1, **event(2)}
        await service.call("append_events", p_worker_id=worker, p_events=[item])
    assert (await outcome)["reclaimed"] == 1
    assert await service.log(run["id"]) == ["task_started", "task_progress", "task_lost"]


async def test_a_result_that_meets_the_sweep_is_lost(
    database: Database, service: Caller, other: Caller
) -> None:
    watcher, worker = await service.register(lease=1000), await service.register(lease=10)
    run = await service.running(worker)
    await service.move_clock(11)
    async with overtaking(database, service, lambda: other.finish(worker, result(run)), other) as outcome:
        await service.sweep(watcher)
    assert await outcome == ["lost"]
    assert await service.log(run["id"]) == ["task_started", "task_lost"]


async def test_a_sweep_that_meets_a_result_leaves_it(
    database: Database, service: Caller, other: Caller
) -> None:
    watcher, worker = await service.register(lease=1000), await service.register(lease=10)
    run = await service.running(worker)
    await other.move_clock(11)
    async with overtaking(database, service, lambda: other.sweep(watcher), other) as outcome:
        assert await service.finish(worker, result(run)) == ["finished"]
    assert (await outcome)["reclaimed"] == 0
    assert await service.log(run["id"]) == ["task_started", "task_completed"]
    assert [row["id"] for row in await service.call("list_workers")] == [watcher]


async def test_the_same_result_twice_at_once_is_stored_once(
    database: Database, service: Caller, other: Caller
) -> None:
    """A request that timed out is sent again while the first one is still at work."""
    worker = await service.register()
    run = await service.running(worker)
    item = result(run)
    async with overtaking(database, service, lambda: other.finish(worker, item), other) as outcome:
        assert await service.finish(worker, item) == ["finished"]
    assert await outcome == ["repeated"]
    assert await service.log(run["id"]) == ["task_started", "task_completed"]


async def test_two_answers_start_one_turn(database: Database, service: Caller, other: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker)
    await service.finish(worker, result(run, "input_required"))
    message = {"parts": [{"text": "yes"}]}

    def answer() -> Awaitable[Any]:
        return other.call("answer_todo", p_id=run["id"], p_message=message)

    async with overtaking(database, service, answer, other) as outcome:
        await service.call("answer_todo", p_id=run["id"], p_message=message)
    with Refused("PT409", "it is pending"):
        await outcome
    assert (await service.log(run["id"]))[2:] == ["message_received"]


async def test_a_cancel_that_meets_the_end_is_refused(
    database: Database, service: Caller, other: Caller
) -> None:
    worker = await service.register()
    run = await service.running(worker)
    async with overtaking(
        database, service, lambda: other.call("cancel_todo", p_id=run["id"]), other
    ) as outcome:
        await service.finish(worker, result(run))
    with Refused("PT409", "it is completed"):
        await outcome
    assert await service.log(run["id"]) == ["task_started", "task_completed"]


async def test_an_end_that_meets_the_cancel_stands_and_a_retry_does_not(
    database: Database, service: Caller, other: Caller
) -> None:
    worker = await service.register()
    for kind, end in (("completed", "task_completed"), ("retry", "task_cancelled")):
        run = await service.running(worker)
        item = result(run, kind)
        second = lambda item=item: other.finish(worker, item)  # noqa: E731
        async with overtaking(database, service, second, other) as outcome:
            await service.call("cancel_todo", p_id=run["id"])
        assert await outcome == ["finished"]
        assert await service.log(run["id"]) == ["task_started", end]


async def test_a_cancel_that_meets_the_claim_asks_the_new_holder(
    database: Database, service: Caller, other: Caller
) -> None:
    worker, id = await service.register(), await service.submit()
    async with overtaking(database, service, lambda: other.call("cancel_todo", p_id=id), other) as outcome:
        assert await service.claim(worker, id)
    row = await outcome
    assert (row["agent_status"], row["cancel_requested_at"] is not None) == ("in_progress", True)
    [mailbox] = await service.rows("select signal_at from worker_mailbox")
    assert mailbox["signal_at"] is not None


async def test_a_claim_skips_what_is_being_cancelled(service: Caller, other: Caller) -> None:
    worker, id = await service.register(), await service.submit()
    async with service.connection.transaction():
        await service.call("cancel_todo", p_id=id)
        assert await other.claim(worker, id) == []
    answer = await other.call("claim_todos", p_worker_id=worker, p_ids=[id], p_want=1)
    assert (answer["claimed"], answer["gone"]) == ([], [id])


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
                runs = [run for run in runs if run["id"] not in stored["lost"]]
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
