"""One bad row harms only itself: refused by a trigger, locked by a forgotten transaction, or too large."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from reactive_worker.testing.database import Database
from tests.integration.sql.calling import Caller, event, result


async def guard(
    database: Database, when: str, table: str = "todolist", moment: str = "before update"
) -> None:
    """A trigger of the project's own that refuses some writes; `when` is about `new`."""
    owner = Caller(await database.connect())
    await owner.rows(
        "create function public.guard() returns trigger language plpgsql as"
        f" $$ begin if {when} then raise exception 'refused by the project'; end if; return new; end $$"
    )
    await owner.rows(
        f"create trigger zz_guard {moment} on public.{table} for each row execute function guard()"
    )


async def claim(service: Caller, worker: str, *ids: str, **more: Any) -> dict[str, Any]:
    return await service.call("claim_todos", p_worker_id=worker, p_ids=list(ids), p_want=len(ids), **more)


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


BAD = "(select t.prompt from public.todolist t where t.id = new.todolist_id) = 'bad'"


@pytest.mark.parametrize(
    ("when", "table", "moment"),
    [
        ("new.prompt = 'bad' and new.agent_status = 'in_progress'", "todolist", "before update"),
        (f"new.event_type = 'task_started' and {BAD}", "events", "before insert"),
        ("new.prompt = 'bad' and new.agent_status = 'in_progress'", "todolist", "after update"),
    ],
)
async def test_a_claim_that_is_refused_fails_its_row_and_the_others_run(
    service: Caller, database: Database, when: str, table: str, moment: str
) -> None:
    worker = await service.register(lease=1000)
    tasks = {name: await service.submit(prompt=name) for name in ("a", "bad", "b")}
    await guard(database, when, table, moment)
    answer = await claim(service, worker, *tasks.values())
    assert ids(answer["claimed"]) == [tasks["a"], tasks["b"]]
    assert answer["gone"] == [tasks["bad"]]
    [refused] = answer["refused"]
    assert (refused["id"], refused["attempt"], refused["agent_status"]) == (tasks["bad"], 1, "pending")
    assert "refused by the project" in refused["reason"]
    # It pauses, is tried again as often as its budget allows, and is failed with the reason.
    assert ids((await service.sweep(worker))["candidates"]) == []
    for clock in (5, 10):
        await service.move_clock(clock)
        assert ids((await service.sweep(worker))["candidates"]) == [tasks["bad"]]
        await claim(service, worker, tasks["bad"])
    row = await service.todo(tasks["bad"])
    assert (row["agent_status"], row["failures"], row["attempt"]) == ("failed", 3, 3)
    assert (row["error"]["type"], row["agent_output"]) == ("Refused", {"error": row["error"]})
    assert await service.log(tasks["bad"]) == ["task_retrying", "task_retrying", "task_failed"]
    owner = Caller(await database.connect())
    assert await owner.rows("select * from reactive_worker_private.refusals") == []


async def test_a_row_that_nothing_can_change_is_left_alone_for_ever_longer(
    service: Caller, database: Database
) -> None:
    worker = await service.register(lease=86_400)
    bad, good = await service.submit(prompt="bad", priority=9), await service.submit()
    await guard(database, "new.prompt = 'bad'")
    answer = await claim(service, worker, bad, good)
    assert (ids(answer["claimed"]), answer["gone"]) == ([good], [bad])
    # It does not even cost a try until its pause is over, and no sweep shows it.
    later = await service.submit()
    answer = await claim(service, worker, bad, later)
    assert (ids(answer["claimed"]), ids(answer["refused"])) == ([later], [bad])
    waits = []
    owner = Caller(await database.connect())
    for _ in range(14):
        [row] = await owner.rows(
            "select extract(epoch from next_at - public.reactive_worker_now())::int as wait"
            " from reactive_worker_private.refusals"
        )
        assert ids((await service.sweep(worker))["candidates"]) == []
        await owner.rows("update reactive_worker_private.refusals set next_at = now() - interval '1 s'")
        assert ids((await service.sweep(worker))["candidates"]) == [bad]
        await claim(service, worker, bad)
        waits.append(row["wait"])
    assert (waits[:4], waits[-1]) == ([1, 2, 4, 8], 3600)
    assert (await service.todo(bad))["agent_status"] == "pending"


@pytest.mark.parametrize(
    ("when", "table", "moment", "status", "log"),
    [
        ("new.prompt = 'bad' and new.agent_status = 'completed'", "todolist", "before update", "pending", 2),
        # That it fails is refused, too: it goes back.
        (
            "new.prompt = 'bad' and new.agent_status in ('completed', 'failed')",
            "todolist",
            "before update",
            "pending",
            2,
        ),
        (f"new.event_type = 'task_completed' and {BAD}", "events", "before insert", "pending", 2),
        # No word can be written at all: it goes back without one.
        (f"new.event_type <> 'task_started' and {BAD}", "events", "before insert", "pending", 1),
    ],
)
async def test_an_end_that_is_refused_twice_puts_the_row_back(
    service: Caller, database: Database, when: str, table: str, moment: str, status: str, log: int
) -> None:
    worker = await service.register()
    good, bad, fine = [
        await service.running(worker, prompt=name, max_failures=1 if "failed" in when else 3)
        for name in ("good", "bad", "fine")
    ]
    await guard(database, when, table, moment)
    ends = [result(run) for run in (good, bad, fine)]
    answer = await service.call("finish_todos", p_worker_id=worker, p_results=ends)
    assert [item["result"] for item in answer["results"]] == ["finished", "refused", "finished"]
    refused = answer["results"][1]
    assert (refused["todolist_id"], refused["attempt"]) == (bad["id"], 1)
    assert (refused["agent_status"], refused["reason"]) == ("in_progress", "refused by the project")
    [again] = (await service.call("finish_todos", p_worker_id=worker, p_results=[ends[1]]))["results"]
    assert (again["result"], again["agent_status"]) == ("refused", status)
    row = await service.todo(bad["id"])
    assert (row["agent_status"], row["failures"], row["worker_id"]) == (status, 1, None)
    assert (row["error"]["type"], row["error"]["message"]) == ("Refused", "refused by the project")
    assert len(await service.log(bad["id"])) == log
    # The run is over: nothing more of it is taken.
    assert await service.finish(worker, ends[1]) == ["lost"]
    assert (await service.call("heartbeat_worker", p_worker_id=worker, p_lease_seconds=30))["stray"] == []


async def test_a_result_that_cannot_be_read_is_refused_alone(service: Caller) -> None:
    worker = await service.register()
    runs = [await service.running(worker) for _ in range(4)]
    deep: Any = 1
    for _ in range(120):
        deep = {"d": deep}
    ends = [
        result(runs[0], output={"n": 10**4200}),
        result(runs[1], "failed", error={"type": "E", "message": "m", "deep": deep}),
        result(runs[2], output={"n": 10**3000}),
        result(runs[3], events=[event(2, event_data={"n": deep}), event(3, "task_completed")]),
    ]
    answer = await service.call("finish_todos", p_worker_id=worker, p_results=ends)
    assert [item["result"] for item in answer["results"]] == ["refused", "refused", "finished", "refused"]
    assert [item.get("reason") for item in answer["results"]] == [
        "output must not hold a number of more than 4000 digits",
        "error must not be nested deeper than 100 levels",
        None,
        "event_data must not be nested deeper than 100 levels",
    ]
    # The worker can still say so.
    assert await service.finish(worker, result(runs[0], "failed")) == ["finished"]


async def test_events_that_are_refused_keep_no_other_run_from_being_heard(
    service: Caller, database: Database
) -> None:
    worker = await service.register()
    good, bad, wide, ahead = [await service.running(worker, prompt=name) for name in ("a", "bad", "c", "d")]
    await guard(database, "new.message = 'no'", "events", "before insert")

    def said(run: dict[str, Any], seq: int, **more: Any) -> dict[str, Any]:
        return {"todolist_id": run["id"], "attempt": run["attempt"], **event(seq, **more)}

    batch = [
        said(good, 2),
        said(bad, 2),
        said(bad, 3, message="no"),
        said(wide, 2, event_data={"n": 10**4001}),
        said(ahead, 3),
        said(good, 3),
    ]
    answer = await service.call("append_events", p_worker_id=worker, p_events=batch)
    assert (answer["stored"], answer["lost"], answer["busy"]) == (2, [], [])
    reasons = {run["id"]: (run["attempt"], run["reason"]) for run in answer["refused"]}
    assert reasons == {
        bad["id"]: (1, "refused by the project"),
        wide["id"]: (1, "event_data must not hold a number of more than 4000 digits"),
        ahead["id"]: (1, "seq 3 does not follow: the last one stored is 1"),
    }
    # All of a run's events, or none: no gap.
    assert await service.log(bad["id"]) == ["task_started"]
    assert await service.log(good["id"]) == ["task_started", "task_progress", "task_progress"]


async def test_what_somebody_has_locked_is_busy_and_the_rest_is_done(service: Caller, other: Caller) -> None:
    """A forgotten transaction: 0.2 s of patience for all of a batch, none for claims and the dead."""
    worker = await service.register(lease=1000)
    free, held = await service.running(worker), await service.running(worker)
    open_, locked = await service.submit(), await service.submit()
    run = {"id": held["id"], "attempt": 1}
    async with other.connection.transaction():
        await other.rows("select 1 from todolist where id = any(%s) for update", [held["id"], locked])
        answer = await claim(service, worker, locked, open_)
        assert (ids(answer["claimed"]), answer["busy"], answer["gone"]) == ([open_], [locked], [])

        batch = [{"todolist_id": r["id"], "attempt": 1, **event(2)} for r in (free, held)]
        answer = await service.call("append_events", p_worker_id=worker, p_events=batch)
        assert (answer["stored"], answer["busy"], answer["refused"]) == (1, [run], [])

        ends = [result(held), result(free, after=1)]
        answer = await service.call("finish_todos", p_worker_id=worker, p_results=ends)
        assert [item["result"] for item in answer["results"]] == ["busy", "finished"]

        items = [run, {"id": open_, "attempt": 1}]
        answer = await service.call("release_todos", p_worker_id=worker, p_items=items)
        assert (answer["busy"], ids(answer["released"])) == ([run], [open_])

        beat = await service.call(
            "heartbeat_worker", p_worker_id=worker, p_lease_seconds=30, p_in_flight=[run]
        )
        assert (beat["known"], beat["lost"]) == (True, [])

        answer = await service.call("unregister_worker", p_worker_id=worker)
        assert (answer["released"], answer["busy"]) == (0, [run])
    # It had left by itself: what is left of it goes back unharmed.
    watcher = await service.register(lease=1000)
    assert (await service.sweep(watcher))["reclaimed"] == 1
    row = await service.todo(held["id"])
    assert (row["agent_status"], row["failures"]) == ("pending", 0)
    assert ids(await service.call("list_workers")) == [watcher]


async def test_a_dead_workers_bad_rows_keep_nobody_from_recovery(
    service: Caller, other: Caller, database: Database
) -> None:
    watcher, dead = await service.register(lease=1000), await service.register(lease=10)
    names = ("locked", "bad", "good")
    runs = {name: (await service.running(dead, prompt=name))["id"] for name in names}
    await guard(database, "new.prompt = 'bad'")
    await service.move_clock(11)
    async with other.connection.transaction():
        await other.rows("select 1 from todolist where id = %s for share", runs["locked"])
        waiting = await service.submit()
        answer = await service.call("reclaim_todos", p_worker_id=watcher)
        assert answer["reclaimed"] == 1
        assert ids(answer["busy"]) == [runs["locked"]]
        assert [(run["id"], run["reason"]) for run in answer["refused"]] == [
            (runs["bad"], "refused by the project")
        ]
        assert ids((await service.sweep(watcher))["candidates"]) == [waiting, runs["good"]]
        # What was refused is not tried at every turn.
        assert (await service.call("reclaim_todos", p_worker_id=watcher))["refused"] == []
    assert (await service.sweep(watcher))["reclaimed"] == 1
    assert (await service.todo(runs["locked"]))["agent_status"] == "pending"
    await Caller(await database.connect()).rows("drop trigger zz_guard on todolist")
    await service.move_clock(20)
    assert (await service.sweep(watcher))["reclaimed"] == 1
    assert ids(await service.call("list_workers")) == [watcher]


@pytest.mark.parametrize("how", ["release", "unregister", "register"])
async def test_one_row_that_cannot_be_handed_back_keeps_no_other(
    service: Caller, database: Database, how: str
) -> None:
    worker = await service.register(lease=10)
    good, bad = await service.running(worker), await service.running(worker, prompt="bad")
    runs = [{"id": run["id"], "attempt": 1} for run in (bad, good)]
    await guard(database, "new.prompt = 'bad'")
    if how == "release":
        answer = await service.call("release_todos", p_worker_id=worker, p_items=runs)
        assert (ids(answer["released"]), ids(answer["refused"])) == ([good["id"]], [bad["id"]])
    elif how == "unregister":
        answer = await service.call("unregister_worker", p_worker_id=worker)
        assert (answer["released"], ids(answer["refused"])) == (1, [bad["id"]])
    else:
        await service.move_clock(11)
        await service.register(worker)
    assert (await service.todo(good["id"]))["agent_status"] == "pending"


async def test_a_failure_on_record_puts_a_run_back_and_counts(service: Caller) -> None:
    """What a worker that cannot begin a run, or cannot write its end, has to say."""
    worker = await service.register(lease=1000)
    run = await service.running(worker, max_failures=2)
    item = {"id": run["id"], "attempt": 1, "failure": {"type": "ValueError", "message": "10**400"}}
    answer = await service.call("release_todos", p_worker_id=worker, p_items=[item])
    assert answer["released"] == [{"id": run["id"], "attempt": 1, "agent_status": "pending"}]
    row = await service.todo(run["id"])
    assert (row["failures"], row["error"]) == (1, item["failure"])
    await service.move_clock(2)
    [again] = await service.claim(worker, run["id"])
    item["attempt"] = again["attempt"]
    answer = await service.call("release_todos", p_worker_id=worker, p_items=[item])
    assert answer["released"][0]["agent_status"] == "failed"
    assert await service.log(run["id"]) == ["task_started", "task_retrying", "task_started", "task_failed"]


async def test_trouble_that_is_not_the_rows_fails_the_call_and_blames_nobody(
    service: Caller, database: Database
) -> None:
    """A full disk, say: the same call may succeed a minute later."""
    worker = await service.register()
    run, waiting = await service.running(worker), await service.submit()
    owner = Caller(await database.connect())
    await owner.rows(
        "create function public.full() returns trigger language plpgsql as"
        " $$ begin raise exception using errcode = '53100', message = 'no space left on device'; end $$"
    )
    await owner.rows(
        "create trigger full_ before update on todolist for each row execute function public.full()"
    )
    for function, arguments in (
        ("claim_todos", {"p_ids": [waiting], "p_want": 1}),
        ("finish_todos", {"p_results": [result(run)]}),
        ("release_todos", {"p_items": [{"id": run["id"], "attempt": 1}]}),
    ):
        for _ in range(3):
            with pytest.raises(Exception, match="no space left on device"):
                await service.call(function, p_worker_id=worker, **arguments)
    await owner.rows("drop trigger full_ on todolist")
    assert await service.finish(worker, result(run)) == ["finished"]
    assert (await service.todo(waiting))["failures"] == 0


async def test_a_claims_answer_is_bounded_in_bytes(service: Caller) -> None:
    worker = await service.register()
    # A thousandth of it as it is stored: what counts is what is sent.
    big = [await service.submit(input_data={"x": "y" * 300_000}) for _ in range(4)]
    small = await service.submit()
    answer = await claim(service, worker, *big, small, p_max_bytes=700_000)
    assert ids(answer["claimed"]) == big[:2]
    assert (answer["gone"], answer["busy"]) == ([], [])
    answer = await claim(service, worker, *big[2:], small, p_max_bytes=1)
    assert ids(answer["claimed"]) == [big[2]]
    answer = await claim(service, worker, big[3], small, p_max_bytes=310_000)
    assert ids(answer["claimed"]) == [big[3], small]


async def test_steering_is_read_in_portions(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker)
    held = [{"id": run["id"], "attempt": 1}]
    for n in range(12):
        message = {"messageId": str(uuid.UUID(int=n + 1)), "parts": [{"text": "x" * 1_000_000}]}
        await service.call("steer_todo", p_id=run["id"], p_message=message)
    answer = await service.call("read_steering", p_worker_id=worker, p_runs=held)
    assert [row["id"] for row in answer["messages"]] == [str(uuid.UUID(int=n + 1)) for n in range(9)]


async def test_what_was_taken_back_by_hand_does_not_run_twice_in_one_worker(service: Caller) -> None:
    """Set to pending in Studio while it runs: others may have it at once, its own worker once it stopped."""
    mine, theirs = await service.register(lease=1000), await service.register(lease=1000)
    run = await service.running(mine)
    in_flight = [{"id": run["id"], "attempt": 1}]
    await service.rows("update todolist set agent_status = 'pending' where id = %s", run["id"])
    # It is told at once.
    [mailbox] = await service.rows("select signal_at from worker_mailbox where worker_id = %s", mine)
    assert mailbox["signal_at"] is not None
    answer = await claim(service, mine, run["id"])
    assert (answer["claimed"], answer["busy"], answer["gone"]) == ([], [run["id"]], [])

    async def beat(runs: list[dict[str, Any]]) -> dict[str, Any]:
        return await service.call(
            "heartbeat_worker", p_worker_id=mine, p_lease_seconds=1000, p_in_flight=runs
        )

    assert (await beat(in_flight))["lost"] == in_flight
    assert (await claim(service, mine, run["id"]))["claimed"] == []
    assert (await beat([]))["lost"] == []
    [again] = (await claim(service, mine, run["id"]))["claimed"]
    assert again["attempt"] == 2
    assert await service.finish(mine, result(run)) == ["lost"]
    await service.rows("update todolist set agent_status = 'pending' where id = %s", run["id"])
    assert [row["attempt"] for row in (await claim(service, theirs, run["id"]))["claimed"]] == [3]


@pytest.mark.parametrize("status", ["cancelled", "failed", "completed"])
async def test_a_row_repaired_by_hand_runs(service: Caller, status: str) -> None:
    worker = await service.register()
    run = await service.running(worker, max_failures=1)
    if status == "cancelled":
        await service.call("cancel_todo", p_id=run["id"], p_reason="no")
    await service.finish(worker, result(run, {"failed": "retry"}.get(status, status)))
    row = await service.todo(run["id"])
    assert row["agent_status"] == status
    await service.rows("update todolist set agent_status = 'pending' where id = %s", run["id"])
    row = await service.todo(run["id"])
    for column in ("cancel_requested_at", "cancel_reason", "completed_at", "worker_id", "error"):
        assert row[column] is None, column
    [again] = await service.claim(worker, run["id"])
    beat = await service.call(
        "heartbeat_worker",
        p_worker_id=worker,
        p_lease_seconds=30,
        p_in_flight=[{"id": run["id"], "attempt": again["attempt"]}],
    )
    assert beat["cancel"] == []
    # With its whole budget.
    await service.finish(worker, result(again, "completed"))
    assert (await service.todo(run["id"]))["agent_status"] == "completed"


async def test_a_worker_gets_the_types_it_registered_and_its_token_names(
    service: Caller, database: Database
) -> None:
    mine, secret = await service.submit(), await service.submit(agent_type="secret")
    worker = await service.register(types=("echo",))
    answer = await claim(service, worker, secret, mine)
    assert (ids(answer["claimed"]), answer["gone"]) == ([mine], [secret])
    assert (await service.sweep(worker, types=("echo", "secret")))["candidates"] == []
    # A token for one type, used with the id of a worker that serves another.
    claims = {"role": "reactive_worker", "agent_types": ["echo"]}
    narrow = Caller(await database.connect("reactive_worker", claims))
    wide = await service.register(types=("echo", "secret"))
    assert (await claim(narrow, wide, secret))["claimed"] == []
    assert (await narrow.sweep(wide, types=("echo", "secret")))["candidates"] == []
    with pytest.raises(Exception, match="this token does not serve the agent type secret"):
        await narrow.register(types=("echo", "secret"))
    assert ids((await claim(service, wide, secret))["claimed"]) == [secret]
