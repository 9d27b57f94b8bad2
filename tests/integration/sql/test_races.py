"""Two sessions at the same row: who wins, whichever comes first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import psycopg

from reactive_worker.testing.database import Database
from tests.integration.sql.calling import Caller, Refused, event, result

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
    # Nobody shall lose patience before the other one has committed, however slow the machine.
    await waiting.rows("select set_config('app.settings.reactive_worker_lock_wait', '60s', false)")
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
    answer = await outcome
    assert (answer["stored"], answer["lost"]) == (0, [{"id": run["id"], "attempt": 1}])
    assert await service.log(run["id"]) == ["task_started", "task_lost"]


async def test_a_sweep_that_meets_events_leaves_their_task_to_the_next(
    service: Caller, other: Caller
) -> None:
    watcher, worker = await service.register(lease=1000), await service.register(lease=10)
    run = await service.running(worker)
    await other.move_clock(11)
    async with service.connection.transaction():
        item = {"todolist_id": run["id"], "attempt": 1, **event(2)}
        await service.call("append_events", p_worker_id=worker, p_events=[item])
        answer = await other.sweep(watcher)
        assert (answer["reclaimed"], answer["busy"]) == (0, [{"id": run["id"], "attempt": 1}])
    assert (await other.sweep(watcher))["reclaimed"] == 1
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


async def test_a_sweep_that_meets_a_result_leaves_it(service: Caller, other: Caller) -> None:
    watcher, worker = await service.register(lease=1000), await service.register(lease=10)
    run = await service.running(worker)
    await other.move_clock(11)
    async with service.connection.transaction():
        assert await service.finish(worker, result(run)) == ["finished"]
        assert (await other.sweep(watcher))["reclaimed"] == 0
    assert (await other.sweep(watcher))["reclaimed"] == 0
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
