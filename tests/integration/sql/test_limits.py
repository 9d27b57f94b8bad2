"""What no run can take is refused where it enters, by the table itself, whoever writes and however."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from reactive_worker.models import MOST_LEVELS
from reactive_worker.testing.database import Database
from tests.integration.sql.calling import Caller, Refused
from tests.integration.sql.test_access import sign_in
from tests.integration.sql.test_client_functions import in_status


def nested(levels: int, key: str | None = None) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = [value] if key is None else {key: value}
    return value


#: JSON that jsonb takes and no run does, as text, and what is said about it.
UNREADABLE = {
    "more digits than Python reads": ('{"n": 1e4400}', "a number of more than 1000 digits"),
    "digits written out": (f'[1, {{"a": -{"9" * 1001}}}]', "a number of more than 1000 digits"),
    "a fraction no float holds": (f'{{"n": [1, {"9" * 309}.5]}}', "a fraction beyond 1e308"),
    "a fraction that is zero to a float": ('{"n": -2.5e-400}', "a number nearer to zero than 1e-307"),
    "arrays within arrays": (json.dumps(nested(MOST_LEVELS + 1)), "nested deeper than 30 levels"),
    "objects, thousands of them": (json.dumps(nested(400, "k")), "nested deeper than 30 levels"),
}
READABLE = {
    "as many digits as allowed": f'{{"n": {"9" * 1000}, "m": -{"8" * 1000}}}',
    "floats": "[1.25, -2.5e-307, 0, -0.0, 0.1]",
    "as deep as allowed": json.dumps(nested(MOST_LEVELS)),
    "digits in a text": json.dumps({"n": "9" * 5000}),
    "many levels, one after the other": json.dumps([nested(5)] * 300),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_what_cannot_be_read_is_refused_by_submit_insert_and_update(
    service: Caller, database: Database, name: str
) -> None:
    text, said = UNREADABLE[name]
    good = await service.submit()
    owner = Caller(await database.connect())
    ann, _ = await sign_in(database)
    for who in (service, owner, ann):
        with Refused("22023", f"input_data must not {'be ' if 'nested' in said else 'hold '}{said}"):
            await who.rows(
                "insert into todolist (agent_type, prompt, input_data) values ('echo', 'p', %s::jsonb)", text
            )
    with Refused("22023", said):
        await service.rows("update todolist set input_data = %s::jsonb where id = %s", text, good)
    for who in (service, ann):
        with Refused("22023", "row 2: input_data must not"):
            rows = (
                '[{"agent_type": "a", "prompt": "p"}, {"agent_type": "a", "prompt": "p", "input_data": %s}]'
            )
            await who.rows("select submit_todos(%s::jsonb)", rows % text)
    assert len(await service.rows("select 1 from todolist")) == 1


@pytest.mark.parametrize("name", READABLE)
async def test_what_can_be_read_is_taken(service: Caller, name: str) -> None:
    [row] = await service.rows(
        "insert into todolist (agent_type, prompt, input_data) values ('echo', 'p', %s::jsonb)"
        " returning id::text, input_data::text as text",
        READABLE[name],
    )
    [run] = await service.claim(await service.register(), row["id"])
    # As the worker reads it, and as it was meant.
    assert run["input_data"] == json.loads(row["text"]) == json.loads(READABLE[name])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("agent_type", "clear\x1b[2J"),
        ("agent_type", "tab\t"),
        ("agent_type", "right\u202eto left"),
        ("agent_type", ""),
        ("context_id", "bell\x07"),
        ("idempotency_key", "zero\u200bwidth"),
    ],
)
async def test_names_hold_nothing_a_terminal_obeys(service: Caller, column: str, value: str) -> None:
    row = {"agent_type": "echo", "prompt": "p", column: value}
    with Refused("22023", f"{column} must be a text"):
        await service.rows(
            f"insert into todolist ({', '.join(row)}) values ({', '.join(['%s'] * len(row))})", *row.values()
        )
    with Refused("22023", f"{column} must be a text"):
        await service.call("submit_todos", p_rows=[row])
    # A prompt is a text like any other: people write lines.
    await service.submit(prompt="line\nby\tline \x1b[0m", agent_type="umlauts \u00e4\u4e2d are fine")


@pytest.mark.parametrize("time", ["-infinity", "infinity", "20000-01-01", "0044-03-15 BC", "1899-12-31"])
@pytest.mark.parametrize("column", ["available_at", "created_at", "started_at", "completed_at"])
async def test_times_are_such_as_everybody_can_read(service: Caller, column: str, time: str) -> None:
    id = await service.submit()
    with Refused("22023", f"{column} must be between the years 1900 and 9998"):
        await service.rows(
            f"insert into todolist (agent_type, prompt, {column}) values ('echo', 'p', %s)", time
        )
    with Refused("22023", f"{column} must be between the years 1900 and 9998"):
        await service.rows(f"update todolist set {column} = %s where id = %s", time, id)


async def test_sizes_are_counted_as_text_not_as_it_is_stored(service: Caller, database: Database) -> None:
    owner = Caller(await database.connect())
    await owner.rows(
        "update reactive_worker_private.limits set input_bytes = 100000, user_input_bytes = 5000"
    )
    for who, most in ((service, 100_000), ((await sign_in(database))[0], 5000)):
        await who.submit(prompt="\u00e4" * ((most - 2) // 2), input_data={})
        for fields in (
            {"prompt": "x" * (most + 1)},
            {"prompt": "\u00e4" * (most // 2 + 1)},
            # Twelve bytes each in jsonb.
            {"input_data": [10**900] * (most // 800)},
            {"prompt": "x" * (most // 2), "input_data": {"x": "y" * (most // 2)}},
        ):
            with Refused("22023", f"prompt and input_data must have at most {most} bytes together, got"):
                await who.submit(**fields)


async def test_users_choose_within_limits_and_back_ends_do_not(service: Caller, database: Database) -> None:
    ann, ann_id = await sign_in(database)
    beyond = {
        "priority": (101, "priority must be between -100 and 100, got 101"),
        "max_failures": (11, "max_failures must be at most 10, got 11"),
        "timeout_seconds": (86_401, "timeout_seconds must be at most 86400, got 86401"),
        "available_at": ("2500-01-01T00:00:00Z", "available_at must be at most 31622400 seconds from now"),
    }
    for column, (value, said) in beyond.items():
        await service.submit(**{column: value})
        with Refused("22023", f"row 1: {said}"):
            await ann.submit(**{column: value})
        with Refused("22023", said):
            await ann.rows(
                f"insert into todolist (agent_type, prompt, {column}) values ('echo', 'p', %s)", value
            )
    with Refused("22023", "row 1: priority must be between -100 and 100, got -101"):
        await ann.submit(priority=-101)
    # As the project wants it.
    owner = Caller(await database.connect())
    await owner.rows("update reactive_worker_private.limits set user_priority_most = 500")
    await ann.submit(priority=500)
    with Refused("42501", "permission denied"):
        await ann.rows("update reactive_worker_private.limits set user_priority_most = 5000")
    for who in (ann, service):
        with Refused("42501", "permission denied"):
            await who.rows("select * from reactive_worker_private.limits")
    # What is said to be due for years is due now: nobody gets past the others by a date.
    [row] = await ann.rows(
        "insert into todolist (agent_type, prompt, available_at) values ('echo', 'p', '2001-01-01')"
        " returning available_at >= now() as now, owner_id::text"
    )
    assert row == {"now": True, "owner_id": ann_id}


#: Messages that A2A has no reading for, and what is said about them.
BAD_MESSAGES: dict[str, tuple[Any, str]] = {
    "a part that is no object": ({"parts": [123]}, "part 1 must be an object"),
    "one of two": ({"parts": [{"text": "a"}, None]}, "part 2 must be an object"),
    "nothing in it": ({"parts": [{}]}, "part 1 must have one of text, data, url and raw"),
    "two things in it": ({"parts": [{"text": "a", "data": 1}]}, "part 1 must have one of"),
    "text that is none": ({"parts": [{"text": 5}]}, "part 1 must have a text as text"),
    "bytes that are none": ({"parts": [{"raw": "*"}]}, "part 1 must have base64 as raw"),
    "metadata that is none": (
        {"parts": [{"text": "a", "metadata": 1}]},
        "part 1 must have an object as metadata",
    ),
    "a context that is none": ({"parts": [{"text": "a"}], "contextId": {}}, "must have a text as contextId"),
    "extensions that are none": (
        {"parts": [{"text": "a"}], "extensions": ["x", 1]},
        "must have a list of texts as extensions",
    ),
    "digits": ({"parts": [{"data": {"n": 10**1001}}]}, "must not hold a number of more than 1000 digits"),
    "depth": ({"parts": [{"data": nested(MOST_LEVELS + 1)}]}, "must not be nested deeper than 33 levels"),
    "size": ({"parts": [{"text": "x" * 2_000_000}]}, "must have at most 1048576 bytes, got 20000"),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
async def test_a_message_nobody_can_read_is_refused_as_answer_and_as_steering(
    service: Caller, name: str
) -> None:
    message, said = BAD_MESSAGES[name]
    message = {"messageId": str(uuid.uuid4()), "role": "ROLE_USER", **message}
    with Refused("22023", f"p_message {said}"):
        await service.call("answer_todo", p_id=await in_status(service, "input_required"), p_message=message)
    run = await service.running()
    with Refused("22023", f"p_message {said}"):
        await service.call("steer_todo", p_id=run["id"], p_message=message)
    # And by the table itself.
    with Refused("22023", f"message {said}"):
        await service.rows(
            "insert into steering (id, todolist_id, message) values (gen_random_uuid(), %s, %s)",
            run["id"],
            Jsonb(message),
        )


async def test_a_message_as_deep_as_runs_take_is_taken(service: Caller) -> None:
    message = {"messageId": str(uuid.uuid4()), "parts": [{"data": nested(MOST_LEVELS, "k")}, {"text": ""}]}
    id = await in_status(service, "input_required")
    assert (await service.call("answer_todo", p_id=id, p_message=message))["agent_status"] == "pending"
    run = await service.running()
    await service.call("steer_todo", p_id=run["id"], p_message=message)


async def test_what_workers_say_about_themselves_is_bounded(service: Caller) -> None:
    good: dict[str, Any] = {
        "p_worker_id": str(uuid.uuid4()),
        "p_name": "w",
        "p_agent_types": ["echo"],
        "p_concurrency": 1,
        "p_lease_seconds": 30,
    }
    for change, said in (
        ({"p_name": "n" * 201}, "p_name must be a text of at most 200 characters"),
        ({"p_name": "\x1b]0;title\x07"}, "p_name must be a text of at most 200 characters without control"),
        ({"p_agent_types": ["echo", "a\x07"]}, "p_agent_types must be texts of 1 to 100 characters without"),
        ({"p_info": [1]}, "p_info must be an object"),
        ({"p_info": {"x": "y" * 20_000}}, "p_info must have at most 16384 bytes"),
        ({"p_info": {"x": nested(20)}}, "p_info must not be nested deeper than 16 levels"),
        ({"p_info": {"n": 10**400}}, "p_info must not hold a number of more than 309 digits"),
    ):
        with Refused("22023", said):
            await service.call("register_worker", **good | change)
    await service.call("register_worker", **good | {"p_info": {"pid": 7}})
    with Refused("22023", "p_info must be an object"):
        await service.call(
            "heartbeat_worker", p_worker_id=good["p_worker_id"], p_lease_seconds=30, p_info=["odd"]
        )
