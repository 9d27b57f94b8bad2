"""sweep_todos and claim_todos: who is due, in which order, and who gets it."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import psycopg
import pytest

from tests.integration.sql.calling import Caller, Refused, result


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


async def test_best_first_by_priority_then_age_across_types(service: Caller) -> None:
    low = await service.submit(priority=1)
    high = await service.submit(priority=7, agent_type="other")
    older = await service.submit(priority=5)
    newer = await service.submit(priority=5, agent_type="other")
    await service.submit(priority=9, agent_type="not asked for")
    answer = await service.sweep(types=["other", "echo", "echo"])
    assert ids(answer["candidates"]) == [high, older, newer, low]
    assert (answer["full"], answer["reclaimed"], answer["next_due_at"]) == (False, 0, None)
    assert set(answer["candidates"][0]) == {
        "id",
        "agent_type",
        "priority",
        "attempt",
        "available_at",
        "created_at",
        "owner_id",
        "context_id",
    }


async def test_the_limit_keeps_the_best_however_they_are_spread(service: Caller) -> None:
    """More rows are due than asked for, so the sweep walks from priority to priority."""
    expected = [
        (priority, await service.submit(priority=priority, agent_type=agent_type))
        for priority in (5, -3, 7, 5)
        for agent_type in ("echo", "other")
        for _ in range(3)
    ]
    expected.sort(key=lambda item: -item[0])  # stable: by age within a priority
    for limit in (1, 2, 7, 23, 24):
        answer = await service.sweep(types=["echo", "other"], limit=limit)
        assert ids(answer["candidates"]) == [id for _, id in expected[:limit]]
        assert answer["full"] is True
    assert (await service.sweep(types=["echo", "other"], limit=25))["full"] is False


async def test_later_ones_are_announced_not_offered(service: Caller) -> None:
    later = await service.submit(delay_seconds=60, priority=9)
    latest = await service.submit(delay_seconds=90, priority=9)
    due = [await service.submit() for _ in range(3)]
    await service.rows("update todolist set available_at = '9998-12-31' where id = %s", latest)
    for limit in (2, 10):
        answer = await service.sweep(limit=limit)
        assert ids(answer["candidates"]) == due[:limit]
        due_at = datetime.fromisoformat(answer["next_due_at"])
        assert due_at == (await service.todo(later))["available_at"]
    await service.move_clock(61)
    assert ids((await service.sweep())["candidates"]) == [later, *due]


async def test_bad_sweeps_are_refused(service: Caller) -> None:
    for limit in (0, -1, 10_001, None):
        with Refused("22023", "p_limit must be between 1 and 10000"):
            await service.call("sweep_todos", p_worker_id=None, p_agent_types=["a"], p_limit=limit)
    with Refused("RW001", "register again"):
        await service.call("sweep_todos", p_worker_id=str(uuid.uuid4()), p_agent_types=["a"], p_limit=1)
    with Refused("22023", "p_agent_types must not be null"):
        await service.call("sweep_todos", p_worker_id=None, p_agent_types=None, p_limit=1)
    assert (await service.sweep(await service.register(), types=[]))["candidates"] == []


async def test_a_claim_takes_the_first_wanted_in_the_order_given(service: Caller) -> None:
    worker = await service.register()
    tasks = [await service.submit(priority=n) for n in range(4)]
    order = [tasks[2], tasks[0], tasks[2], tasks[3], tasks[1]]
    answer = await service.call("claim_todos", p_worker_id=worker, p_ids=order, p_want=3)
    assert ids(answer["claimed"]) == [tasks[2], tasks[0], tasks[3]]
    assert answer["gone"] == []
    assert (await service.todo(tasks[1]))["agent_status"] == "pending"


async def test_a_claimed_row_comes_whole_and_is_logged(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker, input_data={"a": [1]})
    row = await service.todo(run["id"])
    assert (row["agent_status"], str(row["worker_id"]), row["attempt"]) == ("in_progress", worker, 1)
    assert (row["context_id"], row["task_state"]) == (run["id"], "TASK_STATE_WORKING")
    assert row["started_at"] is not None
    assert (run["seq"], run["input_data"], run["prompt"]) == (1, {"a": [1]}, "hello")
    assert set(run) == set(row) | {"seq"}
    [started] = await service.events(run["id"])
    status = started["event_data"]["statusUpdate"]
    assert (status["taskId"], status["contextId"]) == (run["id"], run["id"])
    assert status["status"]["state"] == "TASK_STATE_WORKING"
    assert status["status"]["timestamp"].endswith("Z")
    assert (started["event_type"], started["attempt"], str(started["worker_id"])) == (
        "task_started",
        1,
        worker,
    )
    assert (started["context_id"], started["task_id"]) == (run["id"], run["id"])


async def test_a_second_claim_counts_on(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker, context_id="conversation")
    await service.call("release_todos", p_worker_id=worker, p_items=[{"id": run["id"], "attempt": 1}])
    [again] = await service.claim(worker, run["id"])
    assert (again["attempt"], again["seq"], again["context_id"]) == (2, 3, "conversation")
    assert again["started_at"] == run["started_at"]


async def test_what_cannot_be_claimed_is_gone_unless_it_may_come(service: Caller) -> None:
    worker = await service.register()
    running = (await service.running())["id"]
    deleted = str(uuid.uuid4())
    later = await service.submit(delay_seconds=60)
    answer = await service.call(
        "claim_todos", p_worker_id=worker, p_ids=[running, deleted, later, deleted], p_want=10
    )
    assert answer["claimed"] == []
    assert sorted(answer["gone"]) == sorted([running, deleted])


async def test_bad_claims_are_refused(service: Caller) -> None:
    worker = await service.register(lease=10)
    id = await service.submit()
    with Refused("22023", "p_want must be at least 0, got -1"):
        await service.call("claim_todos", p_worker_id=worker, p_ids=[id], p_want=-1)
    with Refused("22023", "p_ids must not be null"):
        await service.call("claim_todos", p_worker_id=worker, p_ids=None, p_want=1)
    with Refused("RW001", "register again"):
        await service.claim(str(uuid.uuid4()), id)
    await service.move_clock(11)
    with Refused("RW001", "register again"):
        await service.claim(worker, id)
    await service.register(worker)
    assert ids((await service.call("claim_todos", p_worker_id=worker, p_ids=[id], p_want=0))["claimed"]) == []
    assert ids(await service.claim(worker, id)) == [id]


async def test_a_lost_worker_costs_one_failure_and_the_first_retry_is_at_once(service: Caller) -> None:
    watcher = await service.register(lease=1000)
    run = await service.running(await service.register(lease=10))
    clock = 0
    for failures, wait in ((1, 0), (2, 1)):
        clock += 11
        await service.move_clock(clock)
        answer = await service.sweep(watcher)
        assert answer["reclaimed"] == 1
        assert ids(answer["candidates"]) == ([run["id"]] if wait == 0 else [])
        row = await service.todo(run["id"])
        assert (row["agent_status"], row["failures"], row["worker_id"]) == ("pending", failures, None)
        clock += wait + 1
        await service.move_clock(clock)
        await service.claim(await service.register(lease=10), run["id"])
    await service.move_clock(clock + 11)
    assert (await service.sweep(watcher))["reclaimed"] == 1
    row = await service.todo(run["id"])
    assert (row["agent_status"], row["failures"], row["task_state"]) == ("failed", 3, "TASK_STATE_FAILED")
    assert row["error"] == {"type": "WorkerLost", "message": "worker lost"}
    assert row["agent_output"] == {"error": row["error"]}
    assert row["completed_at"] is not None
    assert await service.log(run["id"]) == ["task_started", "task_lost"] * 3 + ["task_failed"]
    lost = (await service.events(run["id"]))[1]
    assert lost["event_data"] == {"workerId": str(lost["worker_id"]), "attempt": 1, "failures": 1}
    assert [row["id"] for row in await service.call("list_workers")] == [watcher]


async def test_backoff_after_losses_doubles_up_to_a_minute(service: Caller) -> None:
    waits = []
    watcher = await service.register(lease=1000)
    run = await service.running(await service.register(lease=10), max_failures=100)
    for failures in (1, 2, 3, 4, 8, 60):
        await service.rows("update todolist set failures = %s, available_at = now()", failures - 1)
        await service.move_clock(11)
        await service.sweep(watcher)
        [row] = await service.rows(
            "select extract(epoch from available_at - updated_at)::float as wait from todolist"
        )
        waits.append(row["wait"])
        await service.move_clock(0)
        await service.rows("update todolist set available_at = now() - interval '1 s'")
        assert await service.claim(await service.register(lease=10), run["id"])
    assert waits == [0, 1, 2, 4, 60, 60]


async def test_a_lost_task_that_was_to_be_cancelled_is_cancelled(service: Caller) -> None:
    watcher = await service.register(lease=1000)
    run = await service.running(await service.register(lease=10))
    await service.call("cancel_todo", p_id=run["id"], p_reason="enough")
    await service.move_clock(11)
    await service.sweep(watcher)
    row = await service.todo(run["id"])
    assert (row["agent_status"], row["failures"]) == ("cancelled", 0)
    assert await service.log(run["id"]) == ["task_started", "task_cancelled"]
    assert (await service.events(run["id"]))[1]["message"] == "enough"


async def test_a_live_worker_keeps_its_tasks(service: Caller) -> None:
    dead, alive = await service.register(lease=10), await service.register(lease=60)
    lost, kept = await service.running(dead), await service.running(alive)
    await service.move_clock(11)
    assert (await service.sweep(alive))["reclaimed"] == 1
    assert await service.finish(alive, result(kept)) == ["finished"]
    assert await service.finish(dead, result(lost)) == ["lost"]
    assert [row["id"] for row in await service.call("list_workers")] == [alive]


async def test_strays_written_by_hand_come_back(service: Caller) -> None:
    """In progress with nobody, or with a worker whose row somebody deleted."""
    nobodys = await service.submit()
    await service.rows("update todolist set agent_status = 'in_progress'")
    worker = await service.register()
    orphan = await service.running(worker)
    kept = await service.running()
    await service.rows("delete from workers where id = %s", worker)
    answer = await service.sweep()
    assert answer["reclaimed"] == 2
    assert sorted(ids(answer["candidates"])) == sorted([nobodys, orphan["id"]])
    assert ((await service.todo(nobodys))["failures"], await service.log(nobodys)) == (0, ["task_released"])
    assert await service.log(orphan["id"]) == ["task_started", "task_lost"]
    assert (await service.todo(kept["id"]))["agent_status"] == "in_progress"


async def test_a_sweep_is_bounded_and_the_next_one_goes_on(service: Caller) -> None:
    """Between the two the worker is condemned: it can no longer renew its lease."""
    watcher, worker = await service.register(lease=1000), await service.register(lease=10)
    await service.rows(
        "insert into todolist (agent_type, prompt, agent_status, worker_id, attempt)"
        " select 'echo', 'x', 'in_progress', %s, 1 from generate_series(1, 1500)",
        worker,
    )
    await service.move_clock(11)
    assert (await service.sweep(watcher, limit=1))["reclaimed"] == 1000
    answer = await service.call("heartbeat_worker", p_worker_id=worker, p_lease_seconds=10)
    assert answer["known"] is False
    assert (await service.sweep(watcher, limit=1))["reclaimed"] == 500
    assert [row["id"] for row in await service.call("list_workers")] == [watcher]


async def test_a_fair_sweep_shows_the_best_of_each_owner(service: Caller, database: Any) -> None:
    """Ten thousand rows of one owner hide nobody, and the answer says that there are more."""
    worker = await service.register()
    owners = {name: f"{digit}0000000-0000-0000-0000-000000000000" for name, digit in ("a4", "b8", "cc")}
    connection = await database.connect()
    fill = (
        "insert into todolist (agent_type, prompt, priority, owner_id, available_at)"
        " select 'echo', %s || n, %s, %s::uuid, now() - %s * interval '1 hour' + n * interval '1 ms'"
        " from generate_series(1, %s) n"
    )
    for name, priority, owner, age, rows in (
        ("a", 0, owners["a"], 3, 10_000),
        ("b", -5, owners["b"], 2, 3),
        ("c", 0, owners["c"], 1, 2),
        ("C", 7, owners["c"], 1, 1),
        ("n", 0, None, 1, 2),
    ):
        await connection.execute(fill, [name, priority, owner, age, rows])
    # Not due yet.
    await connection.execute(fill, ["z", 9, owners["b"], -1, 5])

    async def sweep(limit: int, fair_by: str | None = "owner_id") -> dict[str, Any]:
        arguments = {"p_worker_id": worker, "p_agent_types": ["echo"], "p_limit": limit, "p_fair_by": fair_by}
        answer: dict[str, Any] = await service.call("sweep_todos", **arguments)
        cursor = await connection.execute(
            "select prompt from unnest(%s::uuid[]) with ordinality u (id, n)"
            " join todolist using (id) order by n",
            [ids(answer["candidates"])],
        )
        answer["prompts"] = [prompt for (prompt,) in await cursor.fetchall()]
        return answer

    strict = await sweep(20, None)
    assert [prompt[0] for prompt in strict["prompts"]] == ["C", *"a" * 19]
    fair = await sweep(20)
    # In rounds: each owner's best, then each owner's second ...; within a round by priority, then age.
    assert fair["prompts"][:9] == ["C1", "a1", "n1", "b1", "a2", "c1", "n2", "b2", "a3"]
    assert {prompt for prompt in fair["prompts"] if prompt[0] != "a"} == {
        "b1",
        "b2",
        "b3",
        "c1",
        "c2",
        "C1",
        "n1",
        "n2",
    }
    assert len(fair["prompts"]) == 20
    assert fair["full"] is True

    # More owners than places: whoever is shown, it is one each, and others are shown another time.
    seen = {prompt[0] for _ in range(60) for prompt in (await sweep(2))["prompts"]}
    assert seen >= {"a", "b", "n"}
    await connection.execute("delete from todolist where prompt like 'a%'")
    assert (await sweep(20))["full"] is False
    with pytest.raises(psycopg.DataError, match="p_fair_by must be owner_id or null, got agent_type"):
        await sweep(1, "agent_type")
