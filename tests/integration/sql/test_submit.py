"""submit_todos, and rows written by other hands."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.integration.sql.calling import Caller, Refused


async def test_answers_in_input_order_and_fills_in_the_rest(service: Caller) -> None:
    given = str(uuid.uuid4())
    answer = await service.call(
        "submit_todos",
        p_rows=[
            {"agent_type": "echo", "prompt": "one"},
            {
                "id": given,
                "agent_type": "other",
                "prompt": "two",
                "input_data": {"keep": None},
                "priority": -5,
                "context_id": "c",
                "max_failures": 1,
                "timeout_seconds": 9,
                "idempotency_key": None,
            },
        ],
    )
    assert [row["created"] for row in answer] == [True, True]
    assert answer[1]["id"] == given
    first, second = [await service.todo(row["id"]) for row in answer]
    assert (first["prompt"], first["agent_status"], first["priority"]) == ("one", "pending", 0)
    assert (first["attempt"], first["failures"], first["max_failures"]) == (0, 0, 3)
    assert (first["input_data"], first["task_state"]) == (None, "TASK_STATE_SUBMITTED")
    assert second["input_data"] == {"keep": None}
    assert (second["priority"], second["context_id"]) == (-5, "c")
    assert (second["max_failures"], second["timeout_seconds"]) == (1, 9)
    assert await service.log(given) == []


async def test_a_batch_starts_in_its_own_order(service: Caller) -> None:
    rows = [{"agent_type": "echo", "prompt": str(n)} for n in range(50)]
    ids = [row["id"] for row in await service.call("submit_todos", p_rows=rows)]
    await service.move_clock(1)
    assert [row["id"] for row in (await service.sweep())["candidates"]] == ids


async def test_nothing_submitted(service: Caller) -> None:
    assert await service.call("submit_todos", p_rows=[]) == []


async def test_delay_and_schedule(service: Caller) -> None:
    delayed = await service.todo(await service.submit(delay_seconds=90.5))
    assert delayed["available_at"] - delayed["created_at"] == timedelta(seconds=90.5)
    moment = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
    scheduled = await service.todo(await service.submit(available_at=moment.isoformat()))
    assert scheduled["available_at"] == moment


async def test_a_key_is_used_once(service: Caller) -> None:
    row = {"agent_type": "echo", "prompt": "x", "idempotency_key": "k"}
    elsewhere = row | {"agent_type": "other"}
    answer = await service.call("submit_todos", p_rows=[row, elsewhere, row])
    assert [item["created"] for item in answer] == [True, True, False]
    assert answer[0]["id"] == answer[2]["id"] != answer[1]["id"]
    again = await service.call("submit_todos", p_rows=[row])
    assert again == [{"id": answer[0]["id"], "created": False}]
    # Also when the retry brings the id of the first try along.
    again = await service.call("submit_todos", p_rows=[row | {"id": answer[0]["id"]}])
    assert again == [{"id": answer[0]["id"], "created": False}]


async def test_a_key_stays_used_when_its_task_has_ended(service: Caller) -> None:
    run = await service.running(idempotency_key="k")
    await service.call("cancel_todo", p_id=run["id"])
    assert await service.submit(idempotency_key="k") == run["id"]


async def test_an_id_in_use_is_refused(service: Caller) -> None:
    id = await service.submit()
    with Refused("23505", "todolist_pkey"):
        await service.submit(id=id)


async def test_absurd_priorities_are_fine(service: Caller) -> None:
    ids = [await service.submit(priority=priority) for priority in (2**31 - 1, 0, -(2**31))]
    assert [row["id"] for row in (await service.sweep())["candidates"]] == ids


#: What is wrong with a row, and how the refusal says so.
BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": 1}, "prompt must be a text"),
    ({"prompt": None}, "prompt must be a text"),
    ({"agent_type": ""}, "agent_type must be a text of 1 to 100"),
    ({"agent_type": "x" * 101}, "agent_type must be a text of 1 to 100"),
    ({"id": "7"}, "id must be a uuid"),
    ({"priority": 2**31}, "priority must be a whole number"),
    ({"priority": "1"}, "priority must be a whole number"),
    ({"priority": 1.5}, "priority must be a whole number"),
    ({"delay_seconds": -1}, "delay_seconds must be a number between 0"),
    ({"delay_seconds": 1e12}, "delay_seconds must be a number between 0"),
    ({"delay_seconds": "1"}, "delay_seconds must be a number between 0"),
    ({"delay_seconds": 1, "available_at": "2030-01-01"}, "give delay_seconds or available_at, not both"),
    ({"available_at": "soon"}, "available_at must be a timestamp, got soon"),
    ({"available_at": "infinity"}, "available_at must be a finite timestamp"),
    ({"available_at": "2030-13-01"}, "available_at must be a timestamp"),
    ({"available_at": 1}, "available_at must be a timestamp"),
    ({"idempotency_key": ""}, "idempotency_key must be a text of 1 to 255"),
    ({"idempotency_key": "x" * 256}, "idempotency_key must be a text of 1 to 255"),
    ({"context_id": 5}, "context_id must be a text of 1 to 255"),
    ({"max_failures": 0}, "max_failures must be a whole number of at least 1"),
    ({"timeout_seconds": 0}, "timeout_seconds must be a whole number of at least 1"),
    ({"owner": str(uuid.uuid4()), "nope": 1}, "unknown keys: nope, owner"),
    ({"owner_id": "ann"}, "owner_id must be a uuid"),
    ({"owner_id": 7}, "owner_id must be a uuid"),
]


async def test_bad_rows_are_refused_by_number_and_reason(service: Caller) -> None:
    good = {"agent_type": "echo", "prompt": "x"}
    for row, text in BAD_ROWS:
        with Refused("22023", f"row 2: {text}"):
            await service.call("submit_todos", p_rows=[good, good | row])
    assert await service.rows("select 1 from todolist") == []


async def test_what_is_no_array_of_objects_is_refused(service: Caller) -> None:
    for rows in (None, {"agent_type": "echo"}):
        with Refused("22023", "p_rows must be an array of objects"):
            await service.call("submit_todos", p_rows=rows)
    with Refused("22023", "row 1: must be an object"):
        await service.call("submit_todos", p_rows=["x"])


async def test_rows_written_by_hand_get_the_defaults(service: Caller) -> None:
    """Studio sends what was filled in; API clients write NULL over defaults when a list's objects differ."""
    [row] = await service.rows(
        "insert into todolist (agent_type, prompt, agent_status, priority, created_at, updated_at,"
        " available_at, attempt, failures, max_failures, id)"
        " values ('echo', 'x', null, null, null, null, null, null, null, null, null) returning *"
    )
    assert (row["agent_status"], row["priority"], row["max_failures"]) == ("pending", 0, 3)
    assert [item["id"] for item in (await service.sweep())["candidates"]] == [str(row["id"])]
    assert await service.claim(await service.register(), str(row["id"]))


async def test_impossible_values_are_refused(service: Caller) -> None:
    await service.submit()
    for change in (
        "agent_status = 'done'",
        "max_failures = 0",
        "timeout_seconds = 0",
        "attempt = -1",
        "idempotency_key = ''",
    ):
        with Refused("23514"):
            await service.rows(f"update todolist set {change}")


async def test_updated_at_follows_every_change(service: Caller) -> None:
    id = await service.submit()
    before = (await service.todo(id))["updated_at"]
    await service.move_clock(60)
    await service.rows("update todolist set prompt = 'y', updated_at = null where id = %s", id)
    assert (await service.todo(id))["updated_at"] - before >= timedelta(seconds=60)
