"""cancel_todo, retry_todo, answer_todo: what people do to a task."""

from __future__ import annotations

import uuid
from typing import Any

from psycopg.types.json import Jsonb

from tests.integration.sql.calling import Caller, Refused, result

ANSWER = {
    "messageId": "m",
    "role": "ROLE_USER",
    "parts": [{"text": "yes"}, {"data": {"n": 1}}, {"text": "please"}],
}


async def in_status(service: Caller, status: str) -> str:
    """A task in this status, by the way it gets there."""
    if status == "pending":
        return await service.submit()
    worker = await service.register()
    run = await service.running(worker)
    if status != "in_progress":
        await service.finish(worker, result(run, status))
    return run["id"]


async def test_a_waiting_task_is_cancelled_at_once(service: Caller) -> None:
    for status, before in (("pending", []), ("input_required", ["task_started", "task_input_required"])):
        id = await in_status(service, status)
        row = await service.call("cancel_todo", p_id=id, p_reason="enough")
        assert (row["agent_status"], row["task_state"], row["worker_id"]) == (
            "cancelled",
            "TASK_STATE_CANCELED",
            None,
        )
        assert row["completed_at"] is not None
        assert await service.log(id) == [*before, "task_cancelled"]
        last = (await service.events(id))[-1]
        status_update = last["event_data"]["statusUpdate"]
        assert (status_update["taskId"], status_update["contextId"]) == (id, id)
        assert status_update["status"]["state"] == "TASK_STATE_CANCELED"
        assert status_update["status"]["message"]["parts"] == [{"text": "enough"}]
        assert last["message"] == "enough"
        # Asked twice, answered the same, nothing doubled.
        assert await service.call("cancel_todo", p_id=id, p_reason="really") == row
        assert len(await service.log(id)) == len(before) + 1


async def test_a_running_task_is_asked_to_stop_once(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker)
    row = await service.call("cancel_todo", p_id=run["id"], p_reason="enough")
    assert (row["agent_status"], row["cancel_reason"]) == ("in_progress", "enough")
    assert row["cancel_requested_at"] is not None
    signals = await service.rows("select signal_at from worker_mailbox")
    assert await service.call("cancel_todo", p_id=run["id"]) == row
    assert await service.rows("select signal_at from worker_mailbox") == signals
    # Only the holder writes events while a task runs.
    assert await service.log(run["id"]) == ["task_started"]


async def test_an_ended_task_goes_back_to_the_start(service: Caller) -> None:
    worker = await service.register()
    for kind in ("failed", "cancelled"):
        run = await service.running(worker, max_failures=2)
        await service.rows(
            "update todolist set failures = 1, cancel_requested_at = now() where id = %s", run["id"]
        )
        await service.finish(worker, result(run, kind, error={"type": "E", "message": "m"}))
        row = await service.call("retry_todo", p_id=run["id"])
        assert (row["agent_status"], row["failures"], row["attempt"]) == ("pending", 0, 1)
        assert [row[name] for name in ("error", "agent_output", "completed_at", "cancel_requested_at")] == [
            None
        ] * 4
        assert await service.log(run["id"]) == ["task_started", f"task_{kind}", "task_retried"]
        [again] = await service.claim(worker, run["id"])
        assert (again["attempt"], again["seq"]) == (2, 4)
        assert await service.finish(worker, result(again)) == ["finished"]


async def test_an_answer_continues_a_waiting_task(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker, context_id="c")
    await service.rows("update todolist set failures = 2")
    await service.finish(worker, result(run, "input_required"))
    row = await service.call("answer_todo", p_id=run["id"], p_message=ANSWER)
    assert (row["agent_status"], row["failures"], row["task_state"]) == ("pending", 0, "TASK_STATE_WORKING")
    assert await service.log(run["id"]) == ["task_started", "task_input_required", "message_received"]
    received = (await service.events(run["id"]))[-1]
    assert received["event_data"] == {"message": ANSWER}
    assert (received["message"], received["context_id"], received["worker_id"]) == ("yes\nplease", "c", None)
    [again] = await service.claim(worker, run["id"])
    assert again["seq"] == 4


async def test_what_does_not_fit_the_status_is_refused_and_says_so(service: Caller) -> None:
    allowed: dict[str, tuple[set[str], str, dict[str, Any]]] = {
        "cancel_todo": ({"pending", "in_progress", "input_required", "cancelled"}, "cannot be cancelled", {}),
        "retry_todo": ({"failed", "cancelled"}, "cannot be retried", {}),
        "answer_todo": ({"input_required"}, "is not waiting for an answer", {"p_message": ANSWER}),
    }
    for status in ("pending", "in_progress", "input_required", "completed", "failed", "cancelled"):
        for function, (fine, text, arguments) in allowed.items():
            if status not in fine:
                id = await in_status(service, status)
                before = await service.todo(id), await service.log(id)
                with Refused("PT409", f"task {id} {text}: it is {status}"):
                    await service.call(function, p_id=id, **arguments)
                assert (await service.todo(id), await service.log(id)) == before


async def test_unknown_tasks_and_bad_answers_are_refused(service: Caller) -> None:
    for id in (str(uuid.uuid4()), None):
        for function, arguments in (
            ("cancel_todo", {}),
            ("retry_todo", {}),
            ("answer_todo", {"p_message": ANSWER}),
        ):
            with Refused("PT404", f"task {id or 'null'} not found"):
                await service.call(function, p_id=id, **arguments)
    id = await in_status(service, "input_required")
    for message in ("yes", ["yes"], {}, {"parts": []}, {"parts": "yes"}, None):
        with Refused("22023", "p_message must be an A2A Message"):
            argument = None if message is None else Jsonb(message)
            await service.rows("select answer_todo(%s, %s)", id, argument)
    assert (await service.todo(id))["agent_status"] == "input_required"
