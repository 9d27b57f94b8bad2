"""What PostgreSQL decides: our shortcuts for filters and values must say the same."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reactive_worker.local.postgres import Cluster
from reactive_worker.local.realtime.catalog import TableColumn
from reactive_worker.local.realtime.database import AnyConnection
from reactive_worker.local.realtime.filters import Filter, ParsedFilter, compares_by_text, evaluate
from reactive_worker.local.realtime.render import Renderer, plain
from reactive_worker.local.realtime.validation import FitError, SubscriptionFactory

_letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
_strings = st.text(_letters, max_size=8)
_numbers = st.one_of(
    st.integers(-5, 5).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-9, max_value=9).map(str),
    st.sampled_from(["1", "1.0", "1.00", "-0", "0", "NaN", "Infinity", "-Infinity", "1e3", "1e300", "1e-7"]),
)
_moments = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat(sep=" ")),
    st.sampled_from(["infinity", "-infinity", "0044-03-15 00:00:00 BC", "20000-01-01 00:00:00"]),
)
_uuids = st.uuids().map(str) | st.uuids().map(lambda uuid: str(uuid).upper())
#: Type, a column of it, and values people write.
TYPES: dict[str, st.SearchStrategy[str]] = {
    "boolean": st.sampled_from(["t", "f", "true", "FALSE", "yes", "0"]),
    "smallint": st.integers(-9, 9).map(str),
    "integer": st.integers(-9, 9).map(str) | st.just(" 5 "),
    "bigint": st.integers(-(2**63), 2**63 - 1).map(str),
    "numeric": _numbers,
    "double precision": _numbers,
    "text": _strings,
    "character varying": _strings,
    "character": _strings.filter(bool),
    "uuid": _uuids,
    "date": st.dates().map(str) | st.just("infinity"),
    "timestamp without time zone": _moments,
    "timestamp with time zone": _moments.map(lambda text: text if "infinity" in text else f"{text}+02"),
    "interval": st.sampled_from(["1 day", "24:00:00", "1 month", "-3 days 02:03:04.5"]),
    "jsonb": st.sampled_from(['{"a": 1}', '{"a":1.0}', "[]", "null", '"x"', '{"b": 2, "a": [1, null]}']),
    "json": st.sampled_from(['{"z":1, "a": 2.00}', "[ ]", '"\\u00e9"']),
    "bytea": st.binary(max_size=5).map(lambda data: "\\x" + data.hex()),
    "integer[]": st.lists(st.integers(-9, 9) | st.none(), max_size=4).map(
        lambda items: "{" + ",".join("NULL" if item is None else str(item) for item in items) + "}"
    ),
    "text[]": st.lists(_strings, max_size=3).map(
        lambda items: "{" + ",".join(json.dumps(item, ensure_ascii=False) for item in items) + "}"
    ),
    "inet": st.ip_addresses(v=4).map(str),
    "time without time zone": st.times().map(str),
    "time with time zone": st.times().map(lambda time: f"{time}+02"),
    "int4range": st.sampled_from(["[1,5)", "empty", "(,3]"]),
    "point": st.sampled_from(["(1,2)", "(0.5,-3)"]),
}
COMPARABLE = sorted(set(TYPES) - {"json", "point"})
_SYMBOLS = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}

relaxed = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@asynccontextmanager
async def _session(dsn: str) -> AsyncGenerator[AnyConnection]:
    options = "-c timezone=UTC -c datestyle=ISO,YMD -c intervalstyle=postgres -c search_path=public"
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, options=options) as connection:
        yield connection


@pytest.fixture(scope="module")
def session_dsn(pg_cluster: Cluster) -> str:
    """A superuser's connection string; the tests need no tables."""
    return pg_cluster.admin_dsn()


async def _scalar(connection: AnyConnection, query: str, *parameters: object) -> object:
    cursor = await connection.execute(query, parameters)  # type: ignore[arg-type]
    row = await cursor.fetchone()
    return row[0] if row is not None else None


async def _forms(connection: AnyConnection, type_name: str, values: list[str | None]) -> list[str | None]:
    """Values as the log has them: the text form of their type."""
    return [
        await _scalar(
            connection,
            f"select case when v is not null then format('%%s', v) end from cast(%s as {type_name}) as v",
            value,
        )
        for value in values
    ]  # type: ignore[misc]


@given(data=st.data())
@relaxed
async def test_filters_mean_what_postgresql_means(session_dsn: str, data: st.DataObject) -> None:
    type_name = data.draw(st.sampled_from(COMPARABLE))
    values = data.draw(st.lists(st.none() | TYPES[type_name], min_size=1, max_size=6))
    # An array of arrays is one list of elements to PostgreSQL: nothing anybody filters by.
    lists = [] if type_name.endswith("[]") else ["in"]
    operator = data.draw(st.sampled_from([*_SYMBOLS, *lists, "isdistinct"]))
    negate = data.draw(st.booleans())
    wanted = data.draw(st.lists(TYPES[type_name], min_size=1, max_size=3))
    # An element equal to a value is drawn often, or nothing would ever match.
    wanted += [value for value in values if value is not None and data.draw(st.booleans())]
    async with _session(session_dsn) as connection:
        value = wanted[-1]
        if operator == "in":
            value = str(await _scalar(connection, f"select (%s::text[]::{type_name}[])::text", wanted))
        type_oid = await _scalar(connection, "select %s::regtype::oid", type_name)
        renderer = Renderer()
        column = TableColumn("c", int(str(type_oid)), "any", False, frozenset({"r"}))
        factory = SubscriptionFactory(renderer)
        condition = await factory.fit(
            connection, ParsedFilter("c", operator, value, negate), column, type_name
        )
        assert (condition.texts is not None) == compares_by_text(column.type_oid, operator)
        ours = await _ours(connection, condition, await _forms(connection, type_name, values))
        theirs = [await _reference(connection, type_name, one, operator, value, negate) for one in values]
        assert ours == theirs, (type_name, operator, negate, value, values)


async def _ours(connection: AnyConnection, condition: Filter, values: list[str | None]) -> list[bool]:
    answers = [condition.decide(value) for value in values]
    judged = await evaluate(connection, [(condition, text) for text in answers if isinstance(text, str)])
    return [judged[condition, answer] if isinstance(answer, str) else answer for answer in answers]


async def _reference(
    connection: AnyConnection, type_name: str, value: str | None, operator: str, wanted: str, negate: bool
) -> bool:
    """The rule, as one expression for one value, on what the real server's log reader makes of it."""
    subject: object = value
    if value is not None:
        rendered = await _scalar(connection, f"select to_jsonb(%s::{type_name}) #>> '{{}}'", value)
        (text,) = await _forms(connection, type_name, [value])
        subject = rendered if type_name != "bytea" else str(text).removeprefix("\\x")
        if type_name in ("numeric", "double precision") and text in ("NaN", "Infinity", "-Infinity"):
            subject = None
        if type_name == "character":
            subject = text
        if type_name.endswith("[]") or type_name in ("int4range",):
            subject = text
        if type_name == "jsonb":
            subject = text
    if operator == "isdistinct":
        word = "is not distinct from" if negate else "is distinct from"
        answer = await _scalar(connection, f"select %s::{type_name} {word} %s::{type_name}", subject, wanted)
    else:
        symbol = "= any" if operator == "in" else _SYMBOLS[operator]
        cast = f"{type_name}[]" if operator == "in" else type_name
        answer = await _scalar(connection, f"select %s::{type_name} {symbol} (%s::{cast})", subject, wanted)
        answer = None if answer is None else bool(answer) is not negate
    return answer is True


@given(data=st.data())
@relaxed
async def test_values_are_rendered_as_to_jsonb_does(session_dsn: str, data: st.DataObject) -> None:
    type_name = data.draw(st.sampled_from(sorted(TYPES)))
    values = data.draw(st.lists(TYPES[type_name], min_size=1, max_size=6))
    async with _session(session_dsn) as connection:
        type_oid = int(str(await _scalar(connection, "select %s::regtype::oid", type_name)))
        renderer = Renderer()
        for text in await _forms(connection, type_name, list(values)):
            assert text is not None
            expected = await _scalar(connection, f"select to_jsonb(%s::{type_name})::text", text)
            if type_name in ("numeric", "double precision") and text in ("NaN", "Infinity", "-Infinity"):
                expected = "null"
            if type_name == "bytea":
                expected = json.dumps(text.removeprefix("\\x"))
            quick = plain(type_oid, text)
            assert quick in (None, expected)
            rendered = await renderer.render(connection, [(type_oid, text)])
            if expected != "null" and type_name != "bytea":
                assert rendered[type_oid, text] == expected


async def test_a_value_without_json_form_becomes_null_alone(session_dsn: str) -> None:
    values = [(114, '{"a": 1}'), (114, '{"bad": "\\u0000"}'), (114, "[2]")]
    async with _session(session_dsn) as connection:
        rendered = await Renderer().render(connection, values)
    assert [rendered[value] for value in values] == ['{"a": 1}', "null", "[2]"]


@pytest.mark.parametrize(
    ("type_name", "operator", "value", "message"),
    [
        ("integer", "like", "x", "operator like requires a text-compatible column type, got integer"),
        ("integer", "imatch", "x", "operator imatch requires a text-compatible column type, got integer"),
        ("text", "match", "(", "invalid regular expression for match filter: "),
        ("integer", "is", "true", "is true filter requires a boolean column, got integer"),
        ("boolean", "is", "maybe", "invalid value for is filter: must be null, true, false, or unknown"),
        ("integer", "in", "{1,x}", 'invalid input syntax for type integer: "x"'),
        ("point", "lt", "(1,2)", "operator does not exist: point < point"),
    ],
)
async def test_filters_that_cannot_work_are_refused(
    session_dsn: str, type_name: str, operator: str, value: str, message: str
) -> None:
    async with _session(session_dsn) as connection:
        type_oid = int(str(await _scalar(connection, "select %s::regtype::oid", type_name)))
        column = TableColumn("c", type_oid, "any", False, frozenset({"r"}))
        factory = SubscriptionFactory(Renderer())
        with pytest.raises((FitError, psycopg.Error)) as caught:
            await factory.fit(connection, ParsedFilter("c", operator, value, False), column, type_name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("operator", "value", "negate", "matching"),
    [
        ("like", "x%", False, ["xa"]),
        ("ilike", "x%", False, ["xa", "XA"]),
        ("like", "x%", True, ["XA", "b"]),
        ("match", "^[xb]", False, ["xa", "b"]),
        ("imatch", "^x", False, ["xa", "XA"]),
        ("is", "null", False, [None]),
        ("is", "null", True, ["xa", "XA", "b"]),
        ("isdistinct", "b", False, ["xa", "XA", None]),
        ("isdistinct", "b", True, ["b"]),
        ("eq", "b", True, ["xa", "XA"]),
    ],
)
async def test_text_filters(
    session_dsn: str, operator: str, value: str, negate: bool, matching: list[str | None]
) -> None:
    values = ["xa", "XA", "b", None]
    column = TableColumn("c", 25, "text", False, frozenset({"r"}))
    async with _session(session_dsn) as connection:
        condition = await SubscriptionFactory(Renderer()).fit(
            connection, ParsedFilter("c", operator, value, negate), column, "text"
        )
        answers = await _ours(connection, condition, values)
    assert [one for one, passes in zip(values, answers, strict=True) if passes] == matching


@pytest.mark.parametrize(
    ("value", "negate", "matching"),
    [
        ("true", False, ["t"]),
        ("false", False, ["f"]),
        ("unknown", False, [None]),
        ("true", True, ["f", None]),
        ("unknown", True, ["t", "f"]),
    ],
)
def test_is_filters_on_booleans(value: str, negate: bool, matching: list[str | None]) -> None:
    condition = Filter("c", 16, "boolean", "is", value, negate)
    assert [one for one in ("t", "f", None) if condition.decide(one) is True] == matching
