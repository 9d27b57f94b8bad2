"""steer_todo, read_steering, and what the log says about a message: together they are never of two minds."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from reactive_worker.testing.database import Database
from tests.integration.sql.calling import Caller, Refused, event, result
from tests.integration.sql.test_access import sign_in
from tests.integration.sql.test_client_functions import in_status


def words(text: str = "shorter") -> dict[str, Any]:
    return {"messageId": str(uuid.uuid4()), "role": "ROLE_USER", "parts": [{"text": text}]}


def said(seq: int, what: str, message: dict[str, Any]) -> dict[str, Any]:
    return event(seq, f"steer_{what}", event_data={"steer": {"messageId": message["messageId"]}})


async def unread(service: Caller, worker: str, *runs: dict[str, Any]) -> list[tuple[str, bool]]:
    held = [{"id": run["id"], "attempt": run["attempt"]} for run in runs]
    answer = await service.call("read_steering", p_worker_id=worker, p_runs=held)
    return [(row["message"]["parts"][0]["text"], row["accepted"]) for row in answer["messages"]]


async def beat(service: Caller, worker: str, *runs: dict[str, Any]) -> list[dict[str, Any]]:
    held = [{"id": run["id"], "attempt": run["attempt"]} for run in runs]
    answer = await service.call(
        "heartbeat_worker", p_worker_id=worker, p_lease_seconds=30.0, p_in_flight=held
    )
    return answer["steer"]


async def test_a_message_is_stored_once_and_wakes_the_worker(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker)
    assert await beat(service, worker, run) == []
    message = words()
    answer = await service.call("steer_todo", p_id=run["id"], p_message=message)
    assert answer == {"message_id": message["messageId"], "todolist_id": run["id"], "seq": run["seq"]}
    (mailbox,) = await service.rows("select signal_at from worker_mailbox")
    assert mailbox["signal_at"] is not None
    # The answer got lost, it is sent again: also after the task has moved on.
    assert await service.call("steer_todo", p_id=run["id"], p_message=message) == answer
    assert await beat(service, worker, run) == [{"id": run["id"], "attempt": run["attempt"]}]
    assert await unread(service, worker, run) == [("shorter", False)]
    # Nobody but the holder numbers events while the task runs.
    assert await service.log(run["id"]) == ["task_started"]


async def test_what_the_log_says_is_what_the_table_knows(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker)
    first, second, third = words("first"), words("second"), words("third")
    for message in (first, second, third):
        await service.call("steer_todo", p_id=run["id"], p_message=message)
    assert [text for text, _ in await unread(service, worker, run)] == ["first", "second", "third"]

    async def append(*events: dict[str, Any], attempt: int = run["attempt"]) -> Any:
        rows = [{**each, "todolist_id": run["id"], "attempt": attempt} for each in events]
        return await service.call("append_events", p_worker_id=worker, p_events=rows)

    accepted = said(run["seq"] + 1, "accepted", first)
    await append(accepted)
    await append(accepted)
    assert await unread(service, worker, run) == [("first", True), ("second", False), ("third", False)]
    await append(said(run["seq"] + 2, "applied", first), said(run["seq"] + 3, "refused", second))
    assert await unread(service, worker, run) == [("third", False)]
    # A fenced-out run changes nothing.
    lost = await append(said(run["seq"] + 4, "applied", third), attempt=run["attempt"] + 1)
    assert lost["lost"] == [{"id": run["id"], "attempt": run["attempt"] + 1}]
    assert await unread(service, worker, run) == [("third", False)]
    await service.finish(
        worker,
        result(
            run,
            events=[said(run["seq"] + 4, "applied", third), event(run["seq"] + 5, "task_completed")],
        ),
    )
    rows = await service.rows(
        "select message -> 'parts' -> 0 ->> 'text' as text, accepted_at is not null as accepted,"
        " applied_at is not null as applied, refused_at is not null as refused from steering order by n"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("first", True, True, False),
        ("second", False, False, True),
        ("third", True, True, False),
    ]


async def test_the_next_run_gets_what_was_not_applied(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker)
    for text in ("one", "two"):
        await service.call("steer_todo", p_id=run["id"], p_message=words(text))
    await service.call(
        "release_todos", p_worker_id=worker, p_items=[{"id": run["id"], "attempt": run["attempt"]}]
    )
    other = await service.register()
    assert await unread(service, worker, run) == []
    (again,) = (await service.call("claim_todos", p_worker_id=other, p_ids=[run["id"]], p_want=1))["claimed"]
    assert [text for text, _ in await unread(service, other, again)] == ["one", "two"]
    assert await unread(service, other, run) == [], "of another attempt"
    assert await unread(service, worker, again) == [], "somebody else's"


@pytest.mark.parametrize("status", ["pending", "input_required", "completed", "failed", "cancelled"])
async def test_only_a_running_task_is_steered(service: Caller, status: str) -> None:
    id = await in_status(service, status)
    with Refused("PT409", f"cannot be steered: it is {status}"):
        await service.call("steer_todo", p_id=id, p_message=words())


async def test_what_is_refused(service: Caller) -> None:
    worker = await service.register()
    run = await service.running(worker)
    with Refused("22023", "p_message must have a uuid as messageId"):
        await service.call("steer_todo", p_id=run["id"], p_message={**words(), "messageId": "m"})
    bad: list[Any] = [[], {}, {"parts": []}, {**words(), "parts": "no"}]
    for message in bad:
        with Refused("22023", "p_message must be an A2A Message"):
            await service.call("steer_todo", p_id=run["id"], p_message=message)
    with Refused("PT404", "not found"):
        await service.call("steer_todo", p_id=str(uuid.uuid4()), p_message=words())
    for n in range(100):
        await service.call("steer_todo", p_id=run["id"], p_message=words(str(n)))
    with Refused("PT409", "100 messages to it are still unread"):
        await service.call("steer_todo", p_id=run["id"], p_message=words())
    await service.call("cancel_todo", p_id=run["id"])
    with Refused("PT409", "it is being cancelled"):
        await service.call("steer_todo", p_id=run["id"], p_message=words())


async def test_owners_steer_their_own_tasks_only(database: Database, service: Caller) -> None:
    ada, _ = await sign_in(database)
    bob, _ = await sign_in(database)
    id = await ada.submit()
    worker = await service.register()
    await service.call("claim_todos", p_worker_id=worker, p_ids=[id], p_want=1)
    await ada.call("steer_todo", p_id=id, p_message=words())
    with Refused("PT404", "not found"):
        await bob.call("steer_todo", p_id=id, p_message=words())
    assert len(await ada.rows("select * from public.steering")) == 1
    assert await bob.rows("select * from public.steering") == []
    for statement in ("update public.steering set applied_at = now()", "delete from public.steering"):
        with Refused("42501", "permission denied"):
            await ada.rows(statement)
