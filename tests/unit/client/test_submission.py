"""What may be submitted: every refusal names the field, and happens before anything is sent."""

from __future__ import annotations

import json
import math
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_worker.client.new_task import NewTask, plain_json, task_id
from reactive_worker.errors import InvalidTaskError


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


REFUSED = [
    ({"agent_type": ""}, "agent_type must not be empty"),
    ({"agent_type": "   "}, "agent_type must not be empty"),
    ({"agent_type": None}, "agent_type must be text"),
    ({"agent_type": "x" * 101}, "agent_type is longer than 100"),
    ({"prompt": "a\0b"}, "prompt contains a NUL character at position 1"),
    ({"prompt": "half \ud83d"}, "prompt contains a lone surrogate"),
    ({"prompt": 7}, "prompt must be text, not int"),
    ({"input_data": {"a": [1, math.nan]}}, r"input_data\.a\[1\] is nan"),
    ({"input_data": {"a": -math.inf}}, r"input_data\.a is -inf"),
    ({"input_data": {"a": "\0"}}, r"input_data\.a contains a NUL"),
    ({"input_data": {"\0": 1}}, "a key of input_data contains a NUL"),
    ({"input_data": {"a\udc00": 1}}, "a key of input_data contains a lone surrogate"),
    ({"input_data": {1: 2}}, "input_data has the key 1"),
    ({"input_data": {"a": object()}}, r"input_data\.a is a object"),
    ({"input_data": {"a": {1, 2}}}, r"input_data\.a is a set"),
    ({"input_data": b"bytes"}, "input_data is a bytes"),
    ({"input_data": nested(101)}, "input_data is nested deeper than 100"),
    ({"input_data": 10**5000}, "input_data is an integer of"),
    ({"priority": 2**31}, "priority must be between"),
    ({"priority": 10**5000}, "priority must be between .* not an integer of"),
    ({"priority": 1.5}, "priority must be a whole number"),
    ({"priority": True}, "priority must be a whole number"),
    ({"delay": -1}, "delay must be between 0 s"),
    ({"delay": math.nan}, "delay must be between 0 s"),
    ({"delay": math.inf}, "delay must be between 0 s"),
    ({"delay": 10**400}, "delay must be between 0 s"),
    ({"delay": timedelta(seconds=-1)}, "delay must be between 0 s"),
    ({"delay": "soon"}, "delay must be seconds or a timedelta, not str"),
    ({"available_at": datetime(2030, 1, 1)}, "available_at has no time zone"),
    ({"available_at": "tomorrow"}, "available_at must be a datetime, not str"),
    ({"delay": 1, "available_at": datetime(2030, 1, 1, tzinfo=UTC)}, "delay and available_at exclude"),
    ({"idempotency_key": ""}, "idempotency_key must not be empty"),
    ({"idempotency_key": "k" * 256}, "idempotency_key is longer than 255"),
    ({"context_id": "c" * 256}, "context_id is longer than 255"),
    ({"max_failures": 0}, "max_failures must be between 1"),
    ({"timeout": 0}, "timeout must be between 1"),
    ({"timeout": "1"}, "timeout must be a whole number"),
    ({"id": "7"}, "not a task id"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_stored_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    task = NewTask.of({"agent_type": "t", "prompt": "p", **fields})
    with pytest.raises(InvalidTaskError, match=message):
        task.to_row()


def test_the_row_holds_only_what_was_given() -> None:
    assert NewTask("t", "p").to_row() == {"agent_type": "t", "prompt": "p", "priority": 0}


def test_a_full_task_becomes_the_columns_submit_todos_knows() -> None:
    id = uuid.uuid4()
    row = NewTask(
        "t",
        "p",
        {"when": date(2030, 1, 2), "id": id, "pair": (1, 2)},
        priority=-5,
        delay=timedelta(minutes=1),
        idempotency_key="k",
        context_id="c",
        max_failures=1,
        timeout=9,
        id=str(id).upper(),
    ).to_row()
    assert row == {
        "agent_type": "t",
        "prompt": "p",
        "input_data": {"when": "2030-01-02", "id": str(id), "pair": [1, 2]},
        "priority": -5,
        "delay_seconds": 60.0,
        "idempotency_key": "k",
        "context_id": "c",
        "max_failures": 1,
        "timeout_seconds": 9,
        "id": str(id),
    }


def test_a_moment_is_sent_in_utc() -> None:
    at = datetime(2030, 1, 1, 9, tzinfo=timezone(timedelta(hours=9)))
    assert NewTask("t", "p", available_at=at).to_row()["available_at"] == "2030-01-01T00:00:00+00:00"


def test_falsy_input_data_is_kept() -> None:
    for value in (0, "", [], {}, False):
        assert NewTask("t", "p", value).to_row()["input_data"] == value


def test_unknown_and_missing_fields_are_named() -> None:
    with pytest.raises(InvalidTaskError, match="unknown field 'promt'"):
        NewTask.of({"agent_type": "t", "promt": "p"})
    with pytest.raises(InvalidTaskError, match="prompt is missing"):
        NewTask.of({"agent_type": "t"})


def test_an_input_is_copied() -> None:
    data = {"list": [1]}
    row = NewTask("t", "p", data).to_row()
    data["list"].append(2)
    assert row["input_data"] == {"list": [1]}


def test_task_ids_are_canonical() -> None:
    id = uuid.uuid4()
    assert task_id(id) == task_id(str(id).upper()) == task_id(f"{{{id}}}") == str(id)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()) | st.integers(), inner),
    max_leaves=20,
)


@given(anything)
def test_what_is_accepted_is_json_postgres_can_hold(value: Any) -> None:
    try:
        plain = plain_json("input_data", value)
    except InvalidTaskError:
        return
    stored = json.dumps(plain, allow_nan=False, ensure_ascii=False)
    assert "\\u0000" not in stored
    assert json.loads(stored.encode()) == plain
