"""register, heartbeat, unregister, mailbox, lists and figures."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from tests.integration.sql.calling import Caller, Refused, result


async def heartbeat(service: Caller, worker: str, *runs: dict[str, Any], lease: float = 30) -> dict[str, Any]:
    in_flight = [{"id": run["id"], "attempt": run["attempt"]} for run in runs]
    return await service.call(
        "heartbeat_worker", p_worker_id=worker, p_lease_seconds=lease, p_in_flight=in_flight
    )


async def test_registering_answers_what_a_worker_needs(service: Caller) -> None:
    worker = str(uuid.uuid4())
    answer = await service.call(
        "register_worker",
        p_worker_id=worker,
        p_name="w",
        p_agent_types=["a", "b"],
        p_concurrency=3,
        p_lease_seconds=12.5,
        p_info={"host": "x"},
    )
    assert answer["schema_version"] == 2
    assert answer["desired_state"] == "running"
    assert answer["now"] < answer["lease_until"]
    [row] = await service.rows(
        "select *, lease_until - heartbeat_at = interval '12.5 s' as exact from workers"
    )
    assert (row["name"], row["agent_types"], row["concurrency"]) == ("w", ["a", "b"], 3)
    assert (row["info"], row["exact"]) == ({"host": "x"}, True)


async def test_registering_again_keeps_state_and_tasks_of_a_live_worker(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker)
    await service.call("set_worker_state", p_worker_id=worker, p_state="paused")
    answer = await service.call(
        "register_worker",
        p_worker_id=worker,
        p_name="new name",
        p_agent_types=["echo"],
        p_concurrency=1,
        p_lease_seconds=30,
    )
    assert answer["desired_state"] == "paused"
    assert await service.finish(worker, result(run)) == ["finished"]


async def test_registering_after_the_lease_ran_out_gives_up_the_old_tasks(service: Caller) -> None:
    """Who registers again has stopped its runs; under the fresh lease nobody would ever sweep their rows."""
    worker = await service.register(lease=10)
    run = await service.running(worker)
    await service.move_clock(11)
    await service.register(worker)
    assert (await service.todo(run["id"]))["agent_status"] == "pending"
    assert await service.log(run["id"]) == ["task_started", "task_lost"]
    assert await service.finish(worker, result(run)) == ["lost"]


async def test_bad_registrations_are_refused(service: Caller) -> None:
    good: dict[str, Any] = {
        "p_worker_id": str(uuid.uuid4()),
        "p_name": "w",
        "p_agent_types": ["echo"],
        "p_concurrency": 1,
        "p_lease_seconds": 30,
    }
    for change, text in (
        ({"p_worker_id": None}, "p_worker_id must not be null"),
        ({"p_agent_types": []}, "p_agent_types must name at least one"),
        ({"p_agent_types": None}, "p_agent_types must name at least one"),
        ({"p_agent_types": ["a", None]}, "p_agent_types must name at least one"),
        ({"p_concurrency": 0}, "p_concurrency must be at least 1, got 0"),
        ({"p_lease_seconds": 0}, "p_lease_seconds must be between 0.1 and 86400 seconds, got 0"),
        ({"p_lease_seconds": float("nan")}, "p_lease_seconds must be between"),
        ({"p_lease_seconds": None}, "got null"),
    ):
        with Refused("22023", text):
            await service.call("register_worker", **good | change)


async def test_a_heartbeat_extends_the_lease_and_tells_the_news(service: Caller) -> None:
    worker = await service.register(lease=10)
    running, cancelled, lost = [await service.running(worker) for _ in range(3)]
    await service.call("cancel_todo", p_id=cancelled["id"])
    await service.rows("update todolist set attempt = attempt + 1 where id = %s", lost["id"])
    deleted = {"id": str(uuid.uuid4()), "attempt": 1}
    await service.move_clock(8)
    answer = await heartbeat(service, worker, running, cancelled, lost, deleted)
    assert answer["known"] is True
    assert answer["cancel"] == [{"id": cancelled["id"], "attempt": 1}]
    assert sorted(run["id"] for run in answer["lost"]) == sorted([lost["id"], deleted["id"]])
    assert {run["attempt"] for run in answer["lost"]} == {1}
    await service.move_clock(37)
    assert (await heartbeat(service, worker))["known"] is True


async def test_a_lease_that_ran_out_may_be_renewed_until_somebody_sweeps(service: Caller) -> None:
    """An outage of the database outlasts every lease; what was computed meanwhile still counts."""
    worker, watcher = await service.register(lease=10), await service.register(lease=1000)
    run = await service.running(worker)
    await service.move_clock(300)
    assert (await heartbeat(service, worker, run))["known"] is True
    assert (await service.sweep(watcher))["reclaimed"] == 0
    await service.move_clock(331)
    assert (await service.sweep(watcher))["reclaimed"] == 1
    answer = await heartbeat(service, worker, run)
    assert (answer["known"], answer["lease_until"], answer["lost"]) == (
        False,
        None,
        [{"id": run["id"], "attempt": 1}],
    )


async def test_a_heartbeat_names_what_its_worker_holds_without_knowing(service: Caller) -> None:
    """The answer to a claim was lost on its way: nobody runs these, and no sweep takes them either."""
    worker = await service.register()
    known, stray = await service.running(worker), await service.running(worker)
    await service.running(await service.register())
    answer = await heartbeat(service, worker, known)
    assert answer["stray"] == [{"id": stray["id"], "attempt": 1}]
    assert (await heartbeat(service, worker, known, stray))["stray"] == []
    # A run of an earlier attempt is no knowledge of this one.
    assert (await heartbeat(service, worker, known, stray | {"attempt": 0}))["stray"] == answer["stray"]


async def test_a_heartbeat_tells_when_the_next_of_the_others_may_be_dead(service: Caller) -> None:
    worker = await service.register(lease=10)
    assert (await heartbeat(service, worker))["next_lease_end"] is None
    short, _ = await service.register(lease=20), await service.register(lease=50)
    end = (await service.rows("select lease_until from workers where id = %s", short))[0]["lease_until"]
    assert datetime.fromisoformat((await heartbeat(service, worker))["next_lease_end"]) == end


async def test_a_heartbeat_of_nobody_is_not_known(service: Caller) -> None:
    answer = await heartbeat(service, str(uuid.uuid4()))
    assert (answer["known"], answer["desired_state"]) == (False, None)


async def test_only_who_has_lived_long_enough_calls_others_dead(service: Caller) -> None:
    """After an outage everybody's lease has run out, and who comes back first must wait for the others."""
    first, second = await service.register(lease=9), await service.register(lease=9)
    run = await service.running(second)
    await service.move_clock(100)
    assert (await service.sweep(first))["reclaimed"] == 0  # dead itself
    await heartbeat(service, first, lease=9)
    assert (await service.sweep(first))["reclaimed"] == 0  # back for less than a third of the other's lease
    newcomer = await service.register(lease=9)
    assert (await service.sweep(newcomer))["reclaimed"] == 0
    await service.move_clock(104)
    again = await service.register(newcomer, lease=9)  # registering again does not make it younger
    assert (await service.sweep(again))["reclaimed"] == 1
    assert await service.log(run["id"]) == ["task_started", "task_lost"]


async def test_who_registers_again_after_its_lease_ran_out_is_new(service: Caller) -> None:
    back, silent = await service.register(lease=9), await service.register(lease=9)
    await service.running(silent)
    await service.move_clock(100)
    await service.register(back, lease=9)
    assert (await service.sweep(back))["reclaimed"] == 0


async def test_bad_heartbeats_are_refused(service: Caller) -> None:
    worker = await service.register()
    for in_flight in (None, {}, [1], [{"id": "x", "attempt": 1}], [{"id": worker, "attempt": "1"}]):
        with Refused("22023", "p_in_flight must be an array"):
            await service.call(
                "heartbeat_worker", p_worker_id=worker, p_lease_seconds=1, p_in_flight=in_flight
            )


async def test_heartbeats_keep_or_replace_the_info(service: Caller) -> None:
    worker = await service.register()
    await service.call("heartbeat_worker", p_worker_id=worker, p_lease_seconds=30, p_info={"health": "deaf"})
    await heartbeat(service, worker)
    [row] = await service.call("list_workers")
    assert row["info"] == {"health": "deaf"}


async def test_unregistering_hands_everything_back_unharmed(service: Caller) -> None:
    worker = await service.register()
    run, cancelled = await service.running(worker), await service.running(worker)
    await service.call("cancel_todo", p_id=cancelled["id"])
    assert await service.call("unregister_worker", p_worker_id=worker) == {
        "released": 2,
        "busy": [],
        "refused": [],
    }
    row = await service.todo(run["id"])
    assert (row["agent_status"], row["failures"], row["worker_id"]) == ("pending", 0, None)
    assert await service.log(run["id"]) == ["task_started", "task_released"]
    assert await service.log(cancelled["id"]) == ["task_started", "task_cancelled"]
    assert await service.rows("select 1 from workers union all select 1 from worker_mailbox") == []
    assert await service.call("unregister_worker", p_worker_id=worker) == {
        "released": 0,
        "busy": [],
        "refused": [],
    }


async def test_the_mailbox_is_touched_by_probe_state_and_cancel(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker)

    async def mailbox() -> dict[str, Any]:
        return (await service.rows("select * from worker_mailbox"))[0]

    before = await mailbox()
    assert (before["desired_state"], before["signal_at"], before["probe_at"]) == ("running", None, None)
    answer = await service.call("touch_probe", p_worker_id=worker)
    probed = await mailbox()
    assert datetime.fromisoformat(answer["probe_at"]) == probed["probe_at"]
    assert probed["signal_at"] is None
    answer = await service.call("set_worker_state", p_worker_id=worker, p_state="draining")
    assert answer == {"worker_id": worker, "desired_state": "draining"}
    drained = await mailbox()
    assert drained["desired_state"] == "draining"
    await service.call("cancel_todo", p_id=run["id"])
    assert (await mailbox())["signal_at"] > drained["signal_at"]


async def test_refusals_about_unknown_workers_and_states(service: Caller) -> None:
    nobody = str(uuid.uuid4())
    with Refused("RW001", "register again"):
        await service.call("touch_probe", p_worker_id=nobody)
    with Refused("PT404", f"worker {nobody} not found"):
        await service.call("set_worker_state", p_worker_id=nobody, p_state="paused")
    with Refused("22023", "p_state must be running, paused or draining, got asleep"):
        await service.call("set_worker_state", p_worker_id=nobody, p_state="asleep")


async def test_the_list_of_workers_shows_the_dead_as_dead(service: Caller) -> None:
    short = await service.register(lease=10)
    long = await service.register(lease=100)
    await service.running(long)
    await service.move_clock(50)
    rows = {row["id"]: row for row in await service.call("list_workers")}
    assert (rows[short]["alive"], rows[short]["in_progress"]) == (False, 0)
    assert (rows[long]["alive"], rows[long]["in_progress"]) == (True, 1)
    assert rows[long]["desired_state"] == "running"
    assert rows[long]["agent_types"] == ["echo"]


async def test_the_figures(service: Caller) -> None:
    empty = await service.call("todo_stats")
    assert (empty["total_tasks"], empty["oldest_pending_seconds"], empty["by_agent_type"]) == (0, None, {})
    worker = await service.register(types=("echo", "other"))
    await service.submit(delay_seconds=3600)
    assert (await service.call("todo_stats"))["oldest_pending_seconds"] is None
    await service.submit()
    await service.running(worker)
    for kind in ("completed", "failed", "cancelled", "input_required"):
        await service.finish(worker, result(await service.running(worker, agent_type="other"), kind))
    await service.move_clock(20)
    stats = await service.call("todo_stats")
    assert stats["total_tasks"] == 7
    assert stats["workers_alive"] == 1
    assert 20 <= stats["oldest_pending_seconds"] < 40
    assert stats["by_agent_type"]["echo"] == {
        "total_tasks": 3,
        "pending_tasks": 2,
        "in_progress_tasks": 1,
        "input_required_tasks": 0,
        "completed_tasks": 0,
        "failed_tasks": 0,
        "cancelled_tasks": 0,
    }
    other = await service.call("todo_stats", p_agent_type="other")
    assert set(other["by_agent_type"]) == {"other"}
    assert {
        name: other[f"{name}_tasks"] for name in ("completed", "failed", "cancelled", "input_required")
    } == {
        "completed": 1,
        "failed": 1,
        "cancelled": 1,
        "input_required": 1,
    }
    assert other["oldest_pending_seconds"] is None


async def test_times_of_what_ended_and_why_some_failed(service: Caller) -> None:
    nothing = await service.call("todo_timings")
    assert (nothing["sampled"], nothing["wait_p50"], nothing["failures_by_cause"]) == (0, None, {})
    assert nothing["completed_by_minute"] == [0] * 10
    worker = await service.register(lease=3600)
    clock = 0
    for wait, run, kind in ((1, 10, "completed"), (3, 20, "completed"), (5, 40, "failed")):
        id = await service.submit()
        await service.move_clock(clock := clock + wait)
        (claimed,) = await service.claim(worker, id)
        await service.move_clock(clock := clock + run)
        more = {"error": {"type": "timeout", "message": "too long"}} if kind == "failed" else {}
        await service.finish(worker, result(claimed, kind, **more))
    await service.move_clock(clock + 60)
    figures = await service.call("todo_timings")
    assert figures["sampled"] == 3
    assert (round(figures["wait_p50"]), round(figures["wait_p95"])) == (3, 5)
    assert (round(figures["run_p50"]), round(figures["run_p95"])) == (20, 40)
    assert sum(figures["completed_by_minute"]) == 2
    assert figures["completed_per_minute"] == 0.2
    assert figures["failures_by_cause"] == {"timeout": 1}
    # Out of the window, or of another type: not seen.
    assert (await service.call("todo_timings", p_window_seconds=30))["sampled"] == 0
    assert (await service.call("todo_timings", p_agent_type="other"))["sampled"] == 0
    with Refused("22023", "p_window_seconds"):
        await service.call("todo_timings", p_window_seconds=0)
