"""append_events, finish_todos, release_todos: what a run writes, and what becomes of its task."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from tests.integration.sql.calling import LAST_EVENT, Caller, Refused, event, result

NOTHING: dict[str, Any] = {"lost": [], "busy": [], "refused": []}
ERROR = {"type": "ValueError", "message": "no"}


def of(run: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    """An event as `append_events` takes it."""
    return {"todolist_id": run["id"], "attempt": run["attempt"], **item}


async def append(service: Caller, worker: str, *events: dict[str, Any]) -> dict[str, Any]:
    return await service.call("append_events", p_worker_id=worker, p_events=list(events))


async def test_events_are_stored_once(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker)
    before = await service.todo(run["id"])
    batch = [of(run, event(2, message="half", task_state="TASK_STATE_WORKING")), of(run, event(3))]
    assert await append(service, worker, *batch) == {"stored": 2, **NOTHING}
    assert await append(service, worker, *batch, of(run, event(4))) == {"stored": 1, **NOTHING}
    assert await service.log(run["id"]) == ["task_started"] + ["task_progress"] * 3
    stored = (await service.events(run["id"]))[1]
    assert str(stored["id"]) == batch[0]["id"]
    assert (stored["event_data"], stored["message"]) == (batch[0]["event_data"], "half")
    assert (stored["context_id"], stored["task_id"]) == (run["id"], run["id"])
    assert (stored["attempt"], str(stored["worker_id"])) == (1, worker)
    # The task's row is left alone: a stream of events must not rewrite it again and again.
    assert await service.todo(run["id"]) == before
    assert await append(service, worker) == {"stored": 0, **NOTHING}


async def test_events_of_lost_tasks_are_not_stored_and_named(service: Caller) -> None:
    worker, thief = await service.register(), await service.register()
    mine = await service.running(worker)
    taken = await service.running(worker)
    released = {"id": taken["id"], "attempt": 1}
    await service.call("release_todos", p_worker_id=worker, p_items=[released])
    await service.claim(thief, taken["id"])
    deleted = {"id": str(uuid.uuid4()), "attempt": 1}
    stale = {"id": mine["id"], "attempt": 0}
    answer = await append(
        service, worker, of(mine, event(2)), of(taken, event(4)), of(deleted, event(1)), of(stale, event(3))
    )
    assert answer["stored"] == 1
    lost = [(run["id"], run["attempt"]) for run in answer["lost"]]
    assert sorted(lost) == sorted([(taken["id"], 1), (deleted["id"], 1), (mine["id"], 0)])
    assert await service.log(mine["id"]) == ["task_started", "task_progress"]
    assert len(await service.log(taken["id"])) == 3


async def test_bad_events_are_refused_with_their_task(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker)
    good = of(run, event(2))
    for change, text in (
        ({"id": "7"}, "an event's id must be a uuid"),
        ({"seq": 0}, "an event's seq must be a whole number of at least 1"),
        ({"seq": "2"}, "an event's seq must be a whole number of at least 1"),
        ({"event_type": ""}, "an event's event_type must be a text of 1 to 50"),
        ({"event_type": "x" * 51}, "an event's event_type must be a text of 1 to 50"),
        ({"event_data": None}, "an event's event_data must be an object"),
        ({"event_data": [1]}, "an event's event_data must be an object"),
        ({"context_id": "x" * 256}, "an event's context_id and task_id must have at most 255"),
        ({"attempt": None}, "attempt must be a whole number"),
        ({"event_type": "task_completed"}, "task_completed is written by finish_todos only"),
        ({"event_type": "task_cancelled"}, "task_cancelled is written by finish_todos only"),
    ):
        with Refused("22023", f"event 2 of task {run['id']}: {text}"):
            await append(service, worker, good, good | change)
    with Refused("22023", "event 1 of task null: todolist_id must be a uuid"):
        await append(service, worker, good | {"todolist_id": None})
    with Refused("22023", "event 1 of task null: an event must be an object"):
        await service.call("append_events", p_worker_id=worker, p_events=["x"])
    with Refused("22023", "p_events must be an array of objects"):
        await service.call("append_events", p_worker_id=worker, p_events={})
    answer = await append(service, worker, of(run, event(1)))
    assert (answer["stored"], "events_todolist_id_seq_key" in answer["refused"][0]["reason"]) == (0, True)
    assert await service.log(run["id"]) == ["task_started"]


async def test_completed(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker)
    await append(service, worker, of(run, event(2)))
    said = [event(2), event(3), event(4, "task_completed", message="done")]
    # The first of them was stored before, though its answer got lost.
    said[0]["id"] = str((await service.events(run["id"]))[1]["id"])
    answer = await service.call(
        "finish_todos",
        p_worker_id=worker,
        p_results=[result(run, events=said, output={"text": "42"}, task_state="TASK_STATE_COMPLETED")],
    )
    [done] = answer["results"]
    assert (done["todolist_id"], done["attempt"]) == (run["id"], 1)
    assert (done["result"], done["agent_status"]) == ("finished", "completed")
    row = await service.todo(run["id"])
    assert (row["agent_status"], row["agent_output"], row["error"]) == ("completed", {"text": "42"}, None)
    assert (row["task_state"], str(row["worker_id"])) == ("TASK_STATE_COMPLETED", worker)
    assert row["completed_at"] == row["updated_at"]
    kinds = ["task_started", "task_progress", "task_progress", "task_completed"]
    assert await service.log(run["id"]) == kinds


async def test_failed_and_rejected(service: Caller) -> None:
    worker = await service.register()
    plain, partial, silent = [await service.running(worker) for _ in range(3)]
    rejected = [event(2, "task_rejected", message="not my job")]
    assert (
        await service.finish(
            worker,
            result(plain, "failed", error=ERROR),
            result(partial, "failed", error=ERROR, output={"text": "half"}),
            result(silent, "failed", events=rejected, task_state="TASK_STATE_REJECTED"),
        )
        == ["finished"] * 3
    )
    row = await service.todo(plain["id"])
    assert (row["agent_status"], row["error"], row["agent_output"]) == ("failed", ERROR, {"error": ERROR})
    assert (row["failures"], row["task_state"]) == (0, "TASK_STATE_FAILED")
    assert (await service.todo(partial["id"]))["agent_output"] == {"text": "half"}
    row = await service.todo(silent["id"])
    assert (row["task_state"], row["error"]) == (
        "TASK_STATE_REJECTED",
        {"type": "TaskFailed", "message": "not my job"},
    )


async def test_cancelled_keeps_what_was_made(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker)
    assert await service.finish(worker, result(run, "cancelled", output={"text": "half"})) == ["finished"]
    row = await service.todo(run["id"])
    assert (row["agent_status"], row["agent_output"]) == ("cancelled", {"text": "half"})
    assert (row["task_state"], row["completed_at"] is not None) == ("TASK_STATE_CANCELED", True)


async def test_parked_is_held_by_nobody(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker)
    parked = [event(2, "task_auth_required")]
    await service.finish(
        worker, result(run, "input_required", events=parked, task_state="TASK_STATE_AUTH_REQUIRED")
    )
    row = await service.todo(run["id"])
    assert (row["agent_status"], row["worker_id"], row["completed_at"]) == ("input_required", None, None)
    assert row["task_state"] == "TASK_STATE_AUTH_REQUIRED"
    answer = await append(service, worker, of(run, event(3)))
    assert (answer["stored"], answer["lost"]) == (0, [{"id": run["id"], "attempt": 1}])


async def test_a_retry_waits_and_counts(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker)
    await service.finish(worker, result(run, "retry", error=ERROR, retry_after_seconds=2.5))
    row = await service.todo(run["id"])
    assert (row["agent_status"], row["failures"], row["worker_id"]) == ("pending", 1, None)
    assert row["available_at"] - row["updated_at"] == timedelta(seconds=2.5)
    assert (row["error"], row["task_state"], row["completed_at"]) == (ERROR, "TASK_STATE_WORKING", None)
    assert await service.log(run["id"]) == ["task_started", "task_retrying"]
    retry = (await service.events(run["id"]))[1]["event_data"]["retry"]
    assert (retry["failures"], retry["maxFailures"], retry["error"]) == (1, 3, ERROR)
    assert retry["availableAt"].endswith("Z")


async def test_a_retry_that_does_not_count_never_uses_up_the_budget(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker, max_failures=1)
    for _ in range(3):
        await service.finish(worker, result(run, "retry", error=ERROR, counts_as_failure=False))
        row = await service.todo(run["id"])
        assert (row["agent_status"], row["failures"]) == ("pending", 0)
        [run] = await service.claim(worker, run["id"])


async def test_a_retry_without_budget_fails_with_the_event_it_brought(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker, max_failures=1)
    last = [event(2), event(3, "task_failed", message="boom")]
    answer = await service.call(
        "finish_todos", p_worker_id=worker, p_results=[result(run, "retry", error=ERROR, events=last)]
    )
    assert answer["results"][0]["agent_status"] == "failed"
    row = await service.todo(run["id"])
    assert (row["failures"], row["error"], row["agent_output"]) == (1, ERROR, {"error": ERROR})
    assert await service.log(run["id"]) == ["task_started", "task_progress", "task_failed"]
    assert (await service.events(run["id"]))[2]["event_data"] == last[1]["event_data"]


@pytest.mark.parametrize("kind", ["retry", "input_required"])
async def test_a_cancelled_task_does_not_come_back(service: Caller, kind: str) -> None:
    worker = await service.register()
    run = await service.running(worker)
    await service.call("cancel_todo", p_id=run["id"], p_reason="enough")
    answer = await service.call("finish_todos", p_worker_id=worker, p_results=[result(run, kind)])
    assert answer["results"][0]["agent_status"] == "cancelled"
    row = await service.todo(run["id"])
    assert (row["failures"], row["task_state"]) == (0, "TASK_STATE_CANCELED")
    assert await service.log(run["id"]) == ["task_started", "task_cancelled"]
    last = (await service.events(run["id"]))[1]
    assert last["event_data"]["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELED"
    assert last["message"] == "enough"


@pytest.mark.parametrize("kind", ["completed", "failed", "cancelled"])
async def test_an_end_that_came_before_the_cancel_request_was_heard_stands(
    service: Caller, kind: str
) -> None:
    worker = await service.register()
    run = await service.running(worker)
    await service.call("cancel_todo", p_id=run["id"])
    assert await service.finish(worker, result(run, kind)) == ["finished"]
    assert (await service.todo(run["id"]))["agent_status"] == kind


@pytest.mark.parametrize("kind", LAST_EVENT)
async def test_finishing_may_be_repeated(service: Caller, kind: str) -> None:
    worker = await service.register()
    run = await service.running(worker)
    item = result(run, kind)
    assert await service.finish(worker, item) == ["finished"]
    before = await service.todo(run["id"]), await service.log(run["id"])
    assert await service.finish(worker, item) == ["repeated"]
    assert (await service.todo(run["id"]), await service.log(run["id"])) == before
    if kind == "retry":
        # And still when the task has been claimed again meanwhile.
        await service.claim(worker, run["id"])
        assert await service.finish(worker, item) == ["repeated"]
        assert (await service.todo(run["id"]))["agent_status"] == "in_progress"


async def test_each_result_stands_alone_and_answers_come_in_order(service: Caller) -> None:
    worker, stranger = await service.register(), await service.register()
    mine = [await service.running(worker) for _ in range(3)]
    theirs = await service.running(stranger)
    deleted = {"id": str(uuid.uuid4()), "attempt": 1, "seq": 1}
    stale = mine[1] | {"attempt": 0}
    answer = await service.call(
        "finish_todos",
        p_worker_id=worker,
        p_results=[result(run) for run in (mine[2], theirs, deleted, mine[0], stale)],
    )
    assert answer["results"] == [
        {"todolist_id": mine[2]["id"], "attempt": 1, "result": "finished", "agent_status": "completed"},
        {"todolist_id": theirs["id"], "attempt": 1, "result": "lost", "agent_status": "in_progress"},
        {"todolist_id": deleted["id"], "attempt": 1, "result": "lost", "agent_status": None},
        {"todolist_id": mine[0]["id"], "attempt": 1, "result": "finished", "agent_status": "completed"},
        {"todolist_id": mine[1]["id"], "attempt": 0, "result": "lost", "agent_status": "in_progress"},
    ]
    assert await service.log(mine[1]["id"]) == ["task_started"]
    assert await service.call("finish_todos", p_worker_id=worker, p_results=[]) == {"results": []}


async def test_bad_results_are_refused_with_their_task(service: Caller) -> None:
    worker = await service.register()
    run, neighbour = await service.running(worker), await service.running(worker)
    good = result(run)
    for change, text in (
        ({"attempt": "1"}, "attempt must be a whole number"),
        ({"kind": "done"}, "kind must be completed, failed, cancelled, input_required or retry, got done"),
        ({"kind": None}, "got null"),
        ({"error": "no"}, "error must be an object"),
        ({"task_state": "x" * 51}, "task_state must have at most 50"),
        ({"counts_as_failure": 1}, "counts_as_failure must be true or false"),
        ({"retry_after_seconds": -1}, "retry_after_seconds must be a number between 0"),
        ({"retry_after_seconds": "1"}, "retry_after_seconds must be a number between 0"),
        ({"events": []}, "events must be an array that ends with the event of this outcome"),
        ({"events": None}, "events must be an array that ends with the event of this outcome"),
        ({"events": [{}]}, "an event's id must be a uuid"),
        ({"events": [event(2, "task_failed")]}, "a completed result cannot end with task_failed"),
        ({"events": [event(2, "task_progress")]}, "a completed result cannot end with task_progress"),
        ({"kind": "retry"}, "a retry result cannot end with task_completed"),
        (
            {"events": [event(2, "task_failed"), event(3, "task_completed")]},
            "task_failed is allowed as the last event only",
        ),
    ):
        with Refused("22023", f"task {run['id']}: {text}" if text != "got null" else text):
            await service.finish(worker, result(neighbour), good | change)
    with Refused("22023", f"task {run['id']}: more than one result in one batch"):
        await service.finish(worker, good, result(run, "failed"))
    with Refused("22023", "task null: todolist_id must be a uuid"):
        await service.finish(worker, good | {"todolist_id": None})
    with Refused("22023", "task null: a result must be an object"):
        await service.call("finish_todos", p_worker_id=worker, p_results=[1])
    with Refused("22023", "p_results must be an array of objects"):
        await service.call("finish_todos", p_worker_id=worker, p_results=None)
    with Refused("22P05"):
        await service.finish(worker, good | {"output": {"text": "a\x00b"}})
    assert (await service.todo(neighbour["id"]))["agent_status"] == "in_progress"
    assert await service.finish(worker, good, result(neighbour)) == ["finished", "finished"]


async def test_released_tasks_are_due_again_unharmed(service: Caller) -> None:
    worker = await service.register()
    run, cancelled, lost = [await service.running(worker) for _ in range(3)]
    await service.call("cancel_todo", p_id=cancelled["id"])
    items = [{"id": item["id"], "attempt": 1} for item in (run, cancelled)]
    items.append({"id": lost["id"], "attempt": 2})
    answer = await service.call("release_todos", p_worker_id=worker, p_items=items)
    released = {item["id"]: item["agent_status"] for item in answer["released"]}
    assert released == {run["id"]: "pending", cancelled["id"]: "cancelled"}
    assert answer["lost"] == [{"id": lost["id"], "attempt": 2}]
    row = await service.todo(run["id"])
    assert (row["agent_status"], row["failures"], row["attempt"]) == ("pending", 0, 1)
    assert (row["worker_id"], row["available_at"]) == (None, row["updated_at"])
    assert await service.log(run["id"]) == ["task_started", "task_released"]
    assert (await service.todo(cancelled["id"]))["agent_status"] == "cancelled"
    assert await service.log(cancelled["id"]) == ["task_started", "task_cancelled"]
    again = await service.call("release_todos", p_worker_id=worker, p_items=items[:1])
    assert again == {"released": [], "lost": items[:1], "busy": [], "refused": []}
    with Refused("22023", "p_items must be an array"):
        await service.call("release_todos", p_worker_id=worker, p_items=["x"])


async def test_big_and_deep_results_are_stored(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker, prompt="p" * 10_000_000)
    deep: Any = "end"
    for _ in range(90):
        deep = [deep]
    output = {"text": "x" * 10_000_000, "deep": deep}
    assert await service.finish(worker, result(run, output=output)) == ["finished"]
    [row] = await service.rows(
        "select length(prompt) as prompt, length(agent_output ->> 'text') as text from todolist"
    )
    assert (row["prompt"], row["text"]) == (10_000_000, 10_000_000)
