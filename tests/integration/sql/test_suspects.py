"""A task that kills its worker: it ends by its own budget, and those beside it never pay."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest

from tests.integration.sql.calling import Caller, result

TYPES = ("echo",)


class Fleet:
    """Workers that die whenever they run a poisonous task; what is not poisonous ends, in any order."""

    def __init__(self, service: Caller, poison: set[str], concurrency: int, seed: int) -> None:
        self.service = service
        self.poison = poison
        self.concurrency = concurrency
        self.random = random.Random(seed)
        self.clock = 0.0
        self.deaths = 0
        #: What each worker runs, as claimed.
        self.runs: dict[str, list[dict[str, Any]]] = {}

    async def start(self) -> str:
        worker = str(uuid.uuid4())
        await self.service.register(worker, lease=5)
        self.runs[worker] = []
        return worker

    async def turn(self, worker: str) -> None:
        """One look of a worker: recover, claim what there is room for, then end some, or die."""
        runs = self.runs[worker]
        found = await self.service.sweep(worker)
        offered = [row["id"] for row in found["candidates"]]
        room = self.concurrency - len(runs)
        answer = await self.service.call("claim_todos", p_worker_id=worker, p_ids=offered, p_want=room)
        runs += answer["claimed"]
        if self.poison & {run["id"] for run in runs} and self.random.random() < 0.7:
            self.deaths += 1
            del self.runs[worker]
            await self.start()
            return
        for run in [run for run in runs if run["id"] not in self.poison and self.random.random() < 0.5]:
            assert await self.service.finish(worker, result(run)) == ["finished"]
            runs.remove(run)

    async def live(self, turns: int) -> None:
        for _ in range(turns):
            open_ = await self.service.rows(
                "select 1 from todolist where agent_status in ('pending', 'in_progress') limit 1"
            )
            if not open_:
                return
            for worker in list(self.runs):
                await self.turn(worker)
            self.clock += 3
            await self.service.move_clock(self.clock)
            for worker in self.runs:
                await self.service.call("heartbeat_worker", p_worker_id=worker, p_lease_seconds=5)


@pytest.mark.parametrize(("workers", "poisonous", "seed"), [(1, 1, 1), (1, 3, 2), (3, 1, 3), (4, 2, 4)])
async def test_the_poison_ends_and_the_innocent_never_pay(
    service: Caller, workers: int, poisonous: int, seed: int
) -> None:
    tasks = [await service.submit(max_failures=2) for _ in range(12)]
    poison = set(random.Random(seed).sample(tasks, poisonous))
    fleet = Fleet(service, poison, concurrency=5, seed=seed)
    for _ in range(workers):
        await fleet.start()
    await fleet.live(turns=200)
    for id in tasks:
        row = await service.todo(id)
        if id in poison:
            assert (row["agent_status"], row["failures"]) == ("failed", 2)
            assert row["error"]["type"] == "WorkerLost"
        else:
            assert (row["agent_status"], row["failures"]) == ("completed", 0), await service.log(id)
    # Five together, two, one: then as often as its budget lasts; and again when another one clears it.
    assert fleet.deaths <= poisonous * (2 + 3) * poisonous


async def lost_together(service: Caller, count: int = 3) -> tuple[str, list[str]]:
    """A watcher, and tasks that were lost with a worker."""
    watcher, dead = await service.register(lease=80_000), await service.register(lease=5)
    tasks = [(await service.running(dead))["id"] for _ in range(count)]
    await service.move_clock(6)
    assert (await service.sweep(watcher))["reclaimed"] == count
    return watcher, tasks


async def claim(service: Caller, worker: str, *ids: str, want: int = 10) -> dict[str, Any]:
    return await service.call("claim_todos", p_worker_id=worker, p_ids=list(ids), p_want=want)


def claimed(answer: dict[str, Any]) -> list[str]:
    return [row["id"] for row in answer["claimed"]]


async def test_lost_together_costs_no_failure_and_says_so(service: Caller) -> None:
    _, tasks = await lost_together(service)
    for id in tasks:
        row = await service.todo(id)
        assert (row["agent_status"], row["failures"], row["available_at"]) == (
            "pending",
            0,
            row["updated_at"],
        )
        assert await service.log(id) == ["task_started", "task_lost"]
        assert (await service.events(id))[1]["event_data"]["suspect"] is True


async def test_a_suspect_runs_alone_until_its_run_tells(service: Caller) -> None:
    watcher, (first, second, third) = await lost_together(service)
    fresh = await service.submit()
    answer = await claim(service, watcher, first, second, fresh)
    assert (claimed(answer), answer["quarantine"]) == ([first], first)
    answer = await claim(service, watcher, second, third, fresh)
    assert (claimed(answer), answer["quarantine"], answer["busy"]) == ([], first, [])
    run = {"id": first, "attempt": 2, "seq": 3}
    assert await service.finish(watcher, result(run)) == ["finished"]
    # Better ones go first, as anywhere; then the next suspect, with room made for it.
    answer = await claim(service, watcher, fresh, second)
    assert (claimed(answer), answer["quarantine"]) == ([fresh], None)
    late = await service.submit()
    answer = await claim(service, watcher, second, late)
    assert (claimed(answer), answer["quarantine"]) == ([], second)
    await service.finish(watcher, result({"id": fresh, "attempt": 1, "seq": 1}))
    answer = await claim(service, watcher, late, second)
    assert (claimed(answer), answer["quarantine"]) == ([second], second)


async def test_suspects_run_in_half_the_company_then_in_a_quarter(service: Caller) -> None:
    watcher, tasks = await lost_together(service, 9)
    fresh = [await service.submit() for _ in range(3)]
    victim = await service.register(lease=5)
    # Up to four of nine, and with what else is held.
    assert claimed(await claim(service, victim, fresh[0])) == fresh[:1]
    assert claimed(await claim(service, victim, *tasks)) == tasks[:3]
    answer = await claim(service, victim, *tasks[3:], *fresh[1:])
    assert (claimed(answer), answer["quarantine"]) == ([], tasks[0])
    await service.move_clock(12)
    assert (await service.sweep(watcher))["reclaimed"] == 4
    # Of those, two may be together; of the others still four.
    assert claimed(await claim(service, watcher, *tasks[:3])) == tasks[:2]
    other = await service.register(lease=80_000)
    assert claimed(await claim(service, other, *tasks[3:])) == tasks[3:7]
    assert {row["failures"] for row in await service.rows("select failures from todolist")} == {0}


async def test_busy_workers_take_turns_in_making_room(service: Caller) -> None:
    """Never more than half of the living: a crash of a large worker does not stop the fleet."""
    _, tasks = await lost_together(service, 6)
    workers = [await service.register(lease=80_000) for _ in range(5)]
    for worker in workers:
        for _ in range(3):
            assert claimed(await claim(service, worker, await service.submit()))
    waits, works = [], []
    for worker in workers:
        answer = await claim(service, worker, *tasks, await service.submit())
        (works if answer["claimed"] else waits).append(worker)
    assert (len(waits), len(works)) == (3, 2)
    # Each makes room for another one; whoever is idle takes them first, and frees who made room.
    idle = await service.register(lease=80_000)
    reserved = (await claim(service, waits[0], *tasks))["quarantine"]
    assert claimed(await claim(service, idle, reserved)) == [reserved]
    other = await claim(service, waits[0], reserved, await service.submit())
    assert (len(other["claimed"]), other["quarantine"]) == (1, None)


async def test_the_culprit_clears_those_it_was_lost_with(service: Caller) -> None:
    watcher, (poison, *innocent) = await lost_together(service)
    victim = await service.register(lease=5)
    assert claimed(await claim(service, victim, poison)) == [poison]
    await service.move_clock(12)
    assert (await service.sweep(watcher))["reclaimed"] == 1
    assert (await service.todo(poison))["failures"] == 1
    # They run side by side again, and it goes on alone.
    assert claimed(await claim(service, watcher, *innocent)) == innocent
    answer = await claim(service, watcher, poison)
    assert (claimed(answer), answer["quarantine"]) == ([], poison)


async def test_who_was_alone_counts_however_long_recovery_takes(service: Caller, other: Caller) -> None:
    """The last row of many, put back by a later call, has not been alone."""
    watcher, dead = await service.register(lease=80_000), await service.register(lease=5)
    runs = [await service.running(dead) for _ in range(2)]
    await service.move_clock(6)
    async with other.connection.transaction():
        await other.rows("select 1 from todolist where id = %s for update", runs[0]["id"])
        assert (await service.sweep(watcher))["reclaimed"] == 1
    assert (await service.sweep(watcher))["reclaimed"] == 1
    assert {row["failures"] for row in await service.rows("select failures from todolist")} == {0}


async def test_what_is_handed_back_stays_under_suspicion(service: Caller) -> None:
    watcher, (first, second) = await lost_together(service, 2)
    assert claimed(await claim(service, watcher, first)) == [first]
    items = [{"id": first, "attempt": 2}]
    await service.call("release_todos", p_worker_id=watcher, p_items=items)
    assert claimed(await claim(service, watcher, first, second)) == [first]


async def test_what_ended_under_suspicion_is_no_suspect_when_it_runs_again(service: Caller) -> None:
    watcher, (first, second) = await lost_together(service, 2)
    for id in (first, second):
        await service.call("cancel_todo", p_id=id)
    await service.sweep(watcher)
    for id in (first, second):
        await service.call("retry_todo", p_id=id)
    assert claimed(await claim(service, watcher, first, second)) == [first, second]
