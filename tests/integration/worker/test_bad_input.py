"""What nobody should send: each is refused or stored, with a clear error, and stops nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest
from a2a.server.agent_execution import AgentExecutor

from reactive_worker.client.tasks import TaskClient
from reactive_worker.errors import InvalidTaskError, PermanentFailure, RetryLater
from reactive_worker.executors.function import FunctionExecutor
from reactive_worker.models import PushState, Todo
from reactive_worker.testing.workers import eventually, running_worker
from tests.executors import Echo
from tests.support import broken_logs, count, events_of, insert, query


@pytest.fixture
async def client(local_supabase: Any) -> AsyncIterator[TaskClient]:
    async with TaskClient.from_settings(
        url=local_supabase.api_url, key=local_supabase.service_role_key
    ) as client:
        yield client


@pytest.fixture
async def rest(local_supabase: Any) -> AsyncIterator[httpx.AsyncClient]:
    key = local_supabase.service_role_key
    headers = {"apikey": key, "Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(
        base_url=f"{local_supabase.api_url}/rest/v1", headers=headers, timeout=60
    ) as client:
        yield client


def nested(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = [value]
    return value


def say_nul(prompt: str) -> str:
    return "a\0b"


def say_surrogate(prompt: str) -> str:
    return "half \ud800 a character"


def say_nan(prompt: str) -> Any:
    return {"score": float("nan")}


def say_deep(prompt: str) -> Any:
    return {"deep": nested(500)}


def say_much(prompt: str) -> str:
    return "y" * 10_000_000


_later: set[str] = set()


def later(context: Any) -> str:
    """Asks for another try once, without counting a failure."""
    if context.task_id not in _later:
        _later.add(context.task_id)
        raise RetryLater(0.1, "not yet", counts=False)
    return "now"


def never(prompt: str) -> str:
    raise PermanentFailure("this cannot be done")


EXECUTORS: dict[str, AgentExecutor] = {
    "test": Echo(),
    **{
        f.__name__: FunctionExecutor(f)
        for f in (say_nul, say_surrogate, say_nan, say_deep, say_much, later, never)
    },
}

REFUSED_BY_CLIENT: list[dict[str, Any]] = [
    {"prompt": "nul \0"},
    {"prompt": "half \ud800"},
    {"input_data": {"x": float("nan")}},
    {"input_data": {"x": float("-inf")}},
    {"input_data": nested(5000)},
    {"input_data": {"x": ["\0"]}},
    {"priority": 2**31},
    {"priority": -(2**40)},
    {"priority": 1.5},
    {"max_failures": 0},
    {"timeout": -1},
    {"idempotency_key": "k" * 256},
]

#: Bodies of POST /todolist.
REFUSED_BY_REST = {
    "NUL": r'{"agent_type": "test", "prompt": "a\u0000b"}',
    "lone surrogate": r'{"agent_type": "test", "prompt": "a\ud800b"}',
    "NaN": '{"agent_type": "test", "prompt": "p", "input_data": NaN}',
    "priority": '{"agent_type": "test", "prompt": "p", "priority": 99999999999}',
    "status": '{"agent_type": "test", "prompt": "p", "agent_status": "bananas"}',
    "no type": '{"prompt": "p"}',
    "not JSON": '{"agent_type": "test", "prompt": ',
}

#: Written by hand, as in Studio: half of the columns, and some that make no sense.
BY_HAND = {
    "half the columns": "insert into todolist (agent_type, prompt) values ('test', 'plain')",
    "nothing but nulls": """insert into todolist (agent_type, prompt, input_data, context_id, timeout_seconds)
        values ('test', 'nulls', null, null, null)""",
    "an empty context": "insert into todolist (agent_type, prompt, context_id) values ('test', 'c', '')",
    "an empty prompt": "insert into todolist (agent_type, prompt) values ('say_nul', '')",
    "data that is no object": """insert into todolist (agent_type, prompt, input_data)
        values ('test', 'd', '7')""",
    "in progress with nobody": """insert into todolist (agent_type, prompt, agent_status)
        values ('test', 'orphan', 'in_progress')""",
    "in progress with a stranger": """insert into todolist
        (agent_type, prompt, agent_status, worker_id, attempt)
        values ('test', 'stranger', 'in_progress', gen_random_uuid(), 7)""",
    "absurd priority": "insert into todolist (agent_type, prompt, priority) values ('test', 'p', 2147483647)",
    "absurd patience": """insert into todolist (agent_type, prompt, timeout_seconds, max_failures)
        values ('test', 'patient', 2147483647, 2147483647)""",
}

#: Written by hand, and refused by the table.
REFUSED_BY_HAND = {
    "due since ever": """insert into todolist (agent_type, prompt, available_at, created_at)
        values ('test', 'old', '-infinity', '-infinity')""",
    "made in a far future": """insert into todolist (agent_type, prompt, created_at)
        values ('test', 'future', '20000-01-01')""",
    "due before Christ": """insert into todolist (agent_type, prompt, available_at, created_at)
        values ('test', 'ides', '0044-03-15 BC', '0044-03-15 BC')""",
    "more digits than Python reads": """insert into todolist (agent_type, prompt, input_data)
        values ('test', 'n', '{"n": 1e4400}')""",
    "an agent type that clears the screen": """insert into todolist (agent_type, prompt)
        values (e'test\\x1b[2J', 'esc')""",
}


async def refused(db: str, statement: str) -> psycopg.Error | None:
    try:
        await query(db, statement)
    except psycopg.Error as error:
        return error
    return None


async def test_bad_input_is_refused_or_stored_and_stops_nothing_else(
    client: TaskClient, rest: httpx.AsyncClient, local_supabase: Any
) -> None:
    db = local_supabase.db_url

    async def done(id: str, status: str = "completed") -> Any:
        return await query(db, "select 1 from todolist where id = %s and agent_status = %s", id, status)

    async with running_worker(
        local_supabase, executors=EXECUTORS, settings={"polling_interval": 0.5}
    ) as worker:
        await eventually(lambda: worker.health.state is PushState.HEALTHY)
        before = worker.health.since

        # What clients send.
        for fields in REFUSED_BY_CLIENT:
            with pytest.raises(InvalidTaskError):
                await client.submit_task(**{"agent_type": "test", "prompt": "p", **fields})
        for name, body in REFUSED_BY_REST.items():
            answer = await rest.post("/todolist", content=body)
            assert answer.status_code == 400, (name, answer.status_code, answer.text)
            assert answer.json()["message"], name
        for name, statement in REFUSED_BY_HAND.items():
            refusal = await refused(db, statement)
            assert isinstance(refusal, psycopg.errors.InvalidParameterValue), name
        deep = json.dumps({"agent_type": "test", "prompt": "deep", "input_data": nested(31)})
        assert "nested deeper than 30 levels" in (await rest.post("/todolist", content=deep)).text
        assert await query(db, "select id from todolist") == []

        # What is stored and makes no sense to anybody: it waits, or runs.
        unknown = await client.submit_task("no such agent", "waits for ever")
        long = await client.submit_task("test", "x" * 10_000_000, {"quiet": True})
        deep = json.dumps({"agent_type": "test", "prompt": "deep", "input_data": {"deep": nested(29)}})
        assert (await rest.post("/todolist", content=deep)).status_code == 201
        by_hand = {
            name: (await query(db, f"{statement} returning id::text"))[0]["id"]
            for name, statement in BY_HAND.items()
        }
        for bad in ("max_failures = 0", "timeout_seconds = 0", "attempt = -1", "prompt = null"):
            with pytest.raises(psycopg.IntegrityError):
                await query(db, f"update todolist set {bad} where id = %s", long)

        # What executors say.
        said = {
            name: await client.submit_task(name, "p", max_failures=1) for name in EXECUTORS if name != "test"
        }
        neighbours = await insert(db, [f"neighbour {n}" for n in range(20)])
        for id in [*neighbours, long, *by_hand.values(), said["say_nul"], said["later"]]:
            await eventually(lambda id=id: done(id), what=f"task {id} completed", timeout=40)
        for name in ("say_surrogate", "say_nan", "say_deep", "say_much", "never"):
            await eventually(lambda name=name: done(said[name], "failed"), what=f"{name} failed", timeout=40)
        columns = "id::text as id, agent_status, agent_output, error, attempt, failures"
        rows = {row["id"]: row for row in await query(db, f"select {columns} from todolist")}
        assert rows[unknown]["agent_status"] == "pending"
        assert rows[said["say_nul"]]["agent_output"]["text"] == "a\N{REPLACEMENT CHARACTER}b"
        errors = {name: rows[said[name]]["error"] for name in said if rows[said[name]]["error"]}
        assert errors["never"]["message"] == "this cannot be done"
        assert "surrogates not allowed" in errors["say_surrogate"]["message"]
        assert "nan" in errors["say_nan"]["message"].lower()
        assert "too deep" in errors["say_deep"]["message"]
        assert "the limit is 1048576" in errors["say_much"]["message"]
        assert rows[said["later"]]["attempt"] == 2
        assert rows[said["later"]]["failures"] == 0
        assert [e["event_type"] for e in await events_of(db, said["later"])].count("task_retrying") == 1
        # And the worker is as well as before.
        assert worker.health.state is PushState.HEALTHY
        assert worker.health.since >= before
        assert not worker.running
    assert await broken_logs(db) == []


#: What jsonb takes and Python's json does not, or no float holds.
POISON = {
    "long": '{"n": 1e4400}',
    "deep": "[" * 3_000 + "]" * 3_000,
    "deep objects": '{"a":' * 2_000 + "1" + "}" * 2_000,
    "beyond a2a": "[" * 95 + "]" * 95,
}


async def test_rows_nobody_can_read_fail_by_themselves_and_can_be_shown(
    local_supabase: Any, client: TaskClient
) -> None:
    """Each is the best of a backlog: it is claimed with others, until its budget is used up."""
    db = local_supabase.db_url
    # Rows from before the table had limits.
    await query(db, "alter table todolist disable trigger todolist_limits")
    for name, value in POISON.items():
        row = "insert into todolist (agent_type, prompt, input_data, priority) values ('test', %s, %s, 5)"
        await query(db, row, name, value)
    await query(db, "alter table todolist enable trigger todolist_limits")
    huge = (await insert(db, ["a float is too small"], input_data={"n": 10**309}))[0]
    fine = await insert(db, [f"fine {number}" for number in range(20)])
    settings = {"heartbeat": 0.2, "polling_interval": 0.5, "concurrency": 4}
    async with running_worker(local_supabase, Echo(), settings=settings):
        await eventually(lambda: all_ended(db), timeout=60)
    rows = await query(db, "select id::text, prompt, agent_status, failures, error from todolist")
    found = {row["prompt"]: row for row in rows}
    assert all(row["agent_status"] == "completed" for row in rows if row["id"] in {huge, *fine})
    for name in POISON:
        assert (found[name]["agent_status"], found[name]["failures"]) == ("failed", 3)
        assert found[name]["error"]["type"] == "InvalidTaskError"
        said = [event["event_type"] for event in await events_of(db, found[name]["id"])]
        assert said == ["task_started", "task_retrying"] * 2 + ["task_started", "task_failed"]
        shown = await client.get_task(found[name]["id"])
        assert (shown.unreadable is None) == (name == "beyond a2a")
    assert "4300 digits" in found["long"]["error"]["message"]
    assert "3000 levels deep" in found["deep"]["error"]["message"]
    assert "nested too deeply" in found["beyond a2a"]["error"]["message"]
    assert len(await client.list_tasks(limit=100)) == len(rows)
    assert await broken_logs(db) == []
    # What else is done with such a row works as well.
    assert (await client.retry_task(found["deep"]["id"])).agent_status == "pending"
    assert (await client.cancel_task(found["deep"]["id"])).agent_status == "cancelled"


async def all_ended(db: str) -> bool:
    rows = await query(db, "select 1 from todolist where agent_status in ('pending', 'in_progress') limit 1")
    return not rows


async def test_an_odd_column_fails_its_row_only(local_supabase: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever rows look like one day, those claimed with one that cannot be read run."""
    db = local_supabase.db_url
    read = Todo.from_row

    def picky(row: Any) -> Todo:
        if row["prompt"] == "unreadable":
            raise InvalidTaskError("this makes no sense")
        return read(row)

    monkeypatch.setattr(Todo, "from_row", picky)
    await insert(db, ["a", "b", "unreadable", "c"])
    async with running_worker(local_supabase, Echo(), settings={"heartbeat": 0.2, "polling_interval": 0.5}):
        await eventually(lambda: all_ended(db), timeout=60)
    (row,) = await query(db, "select prompt, error from todolist where agent_status = 'failed'")
    assert row["prompt"] == "unreadable"
    assert row["error"]["message"] == "this row cannot be read: this makes no sense"
    assert await count(db, "completed") == 3
    assert await broken_logs(db) == []
