"""Answers that json refuses as a whole are read row by row."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from supabase import AsyncClient, AsyncClientOptions, Client, ClientOptions

from reactive_worker.columns import FlawedRow, parse_time
from reactive_worker.errors import InvalidTaskError, UnreachableError
from reactive_worker.models import Todo, TodoEvent, TodoStatus
from reactive_worker.store._answers import read_answer
from reactive_worker.store.connection import Connection
from reactive_worker.store.store import TodoStore

ID = "6f1d3a52-0000-4000-8000-00000000000"
DIGITS = "1" + "0" * 5000
DEEP = "[" * 20_000 + "]" * 20_000

#: Values jsonb takes and Python's json does not.
UNREADABLE = {
    "a long integer": f'{{"n": {DIGITS}}}',
    "a long negative integer in a list": f"[1, [-{DIGITS}]]",
    "a bare long integer": DIGITS,
    "thousands of lists": DEEP,
    "thousands of objects": '{"a":' * 20_000 + "1" + "}" * 20_000,
    "brackets and quotes in strings": '{"[{\\"": "}]\\\\", "n": ' + DIGITS + ', "z": [{"]": "\\""}]}',
}


def row(number: int, value: str = "null", **more: Any) -> str:
    columns = {
        "id": f"{ID}{number}",
        "agent_type": "test",
        "prompt": 'p "[{',
        "agent_status": "in_progress",
        "created_at": "2026-01-01T00:00:00+00:00",
        "attempt": 2,
        "seq": 3,
        **more,
    }
    return json.dumps(columns)[:-1] + f', "input_data": {value}}}'


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_one_unreadable_value_is_a_flaw_of_its_row_only(value: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        json.loads(value)
    answer = read_answer(f'{{"claimed": [{row(1)}, {row(2, value)}, {row(3)}], "gone": ["x"], "n": 1.5}}')
    assert (answer["gone"], answer["n"]) == (["x"], 1.5)
    one, two, three = answer["claimed"]
    assert one == json.loads(row(1))
    assert three == json.loads(row(3))
    assert isinstance(two, FlawedRow)
    assert list(two.flaws) == ["input_data"]
    with pytest.raises(InvalidTaskError, match=r"input_data (is nested|holds a number)"):
        Todo.from_row(two)
    todo = Todo.read(two)
    assert (todo.id, todo.attempt, todo.seq, todo.prompt) == (f"{ID}2", 2, 3, 'p "[{')
    assert todo.input_data is None
    assert todo.unreadable is not None
    assert "input_data" in todo.unreadable
    assert Todo.read(one).unreadable is None


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_lists_and_single_rows_are_read_alike(value: str) -> None:
    (listed,) = read_answer(f" [ {row(1, value)} ] ")
    assert Todo.read(listed).unreadable is not None
    assert Todo.read(read_answer(row(1, value))).unreadable is not None


@pytest.mark.parametrize(
    "text",
    ["", "<html>", '{"a": ', '{"a" 1}', "{1: 2}", "[1 2]", "[1]]", '["a', DIGITS, "[[[[", '{"a": [{]}'],
)
def test_what_is_no_json_is_not_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|answer|Expecting|Unterminated"):
        read_answer(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
)


@settings(deadline=None, max_examples=200)
@given(JSON, st.booleans())
def test_what_json_reads_is_read_the_same(value: Any, ascii: bool) -> None:
    for indent in (None, 2):
        text = json.dumps(value, ensure_ascii=ascii, indent=indent)
        assert read_answer(text) == json.loads(text)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("created_at", "yesterday"),
        ("available_at", 5),
        ("timeout_seconds", "60"),
        ("context_id", {"a": 1}),
        ("owner_id", [[]]),
        ("priority", 1.5),
        ("prompt", None),
    ],
)
def test_an_odd_column_is_missing_and_the_others_are_there(column: str, value: Any) -> None:
    odd = {**json.loads(row(1, '{"n": 1}')), column: value}
    with pytest.raises(InvalidTaskError, match=column):
        Todo.from_row(odd)
    todo = Todo.read(odd)
    assert todo.unreadable is not None
    assert column in todo.unreadable
    assert (todo.id, todo.input_data, todo.agent_status) == (f"{ID}1", {"n": 1}, TodoStatus.IN_PROGRESS)
    assert todo.agent_type == "test"


@pytest.mark.parametrize("column", ["id", "agent_status", "attempt"])
def test_a_row_that_does_not_say_which_it_is_is_no_row(column: str) -> None:
    with pytest.raises(InvalidTaskError, match=column):
        Todo.read({**json.loads(row(1)), column: "?"})


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("infinity", 9999),
        ("-infinity", 1),
        ("290000-01-01T00:00:00+00:00", 9999),
        ("4713-01-01T00:00:00+00:00 BC", 1),
        ("0001-01-01T00:00:00+09:00", 1),
        ("9999-12-31T23:59:59.999999-11:00", 9999),
        ("1883-11-18T12:03:57-04:56:02", 1883),
    ],
)
def test_every_timestamp_of_postgresql_is_a_moment(text: str, year: int) -> None:
    moment = parse_time(text, "available_at")
    assert moment.year == year
    assert moment.utctimetuple()


def test_an_event_with_unreadable_data_keeps_its_place() -> None:
    text = (
        f'[{{"id": "{ID}1", "todolist_id": "{ID}2", "seq": 7, "attempt": 1, "event_type": "message_received",'
        f' "event_data": {{"message": {DEEP}}}}}]'
    )
    event = TodoEvent.read(read_answer(text)[0])
    assert (event.seq, event.event_type, dict(event.event_data)) == (7, "message_received", {})
    assert event.unreadable is not None
    assert "20000 levels" in event.unreadable


# -- through both clients ------------------------------------------------------------------------------------


def answering(text: str, kind: str) -> Connection:
    """A connection to a server that answers everything with this."""

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=text, headers={"content-type": "application/json"})

    url, key, transport = "http://127.0.0.1:1", "key", httpx.MockTransport(handle)
    if kind == "async":
        options = AsyncClientOptions(httpx_client=httpx.AsyncClient(transport=transport))
        return Connection(AsyncClient(url, key, options))
    return Connection(Client(url, key, ClientOptions(httpx_client=httpx.Client(transport=transport))))


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_the_store_returns_what_can_be_read(kind: str, value: str) -> None:
    claimed = answering(f'{{"claimed": [{row(1)}, {row(2, value)}], "gone": []}}', kind)
    result = await TodoStore(claimed).claim("w", ["a"], 2)
    assert [todo.unreadable is None for todo in result.claimed] == [True, False]
    listed = TodoStore(answering(f"[{row(1, value)}, {row(2)}, {row(3, agent_status='odd')}]", kind))
    assert [todo.id[-1] for todo in await listed.list_tasks()] == ["1", "2"]
    assert (await listed.get("x")).unreadable is not None
    assert (await TodoStore(answering(row(4, value), kind)).cancel("x")).id == f"{ID}4"


@pytest.mark.parametrize("text", ["<html>it works</html>", "[" * 20_000, '{"claimed": ['])
async def test_an_answer_that_is_no_json_is_no_answer(text: str) -> None:
    with pytest.raises(UnreachableError, match="no JSON"):
        await TodoStore(answering(text, "async")).claim("w", ["a"], 1)
