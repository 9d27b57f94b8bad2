"""Filter strings: what they mean, and how the bad ones are refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_worker.local.realtime.bindings import BindingError, binding_id, echo, read_binding
from reactive_worker.local.realtime.filters import OPERATORS, FilterSyntaxError, ParsedFilter, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("   ", []),
        ("a=eq.1", [("a", "eq", "1", False)]),
        ("a=eq.", [("a", "eq", "", False)]),
        ("a=eq.1.5", [("a", "eq", "1.5", False)]),
        ("a=eq.x=y", [("a", "eq", "x=y", False)]),
        ("a=not.eq.1", [("a", "eq", "1", True)]),
        ("a=in.(1,2)", [("a", "in", "{1,2}", False)]),
        ("a=not.in.()", [("a", "in", "{}", True)]),
        ('a=in.("x,y",z)', [("a", "in", '{"x,y",z}', False)]),
        ("a=eq.x,b=gt.5", [("a", "eq", "x", False), ("b", "gt", "5", False)]),
        (" a=eq.x , b=gt.5 ", [("a", "eq", "x", False), ("b", "gt", "5", False)]),
        ('a=eq."x,y",b=lt.2', [("a", "eq", "x,y", False), ("b", "lt", "2", False)]),
        (r'a=eq."x\"y"', [("a", "eq", 'x"y', False)]),
        ('a=eq."x"y', [("a", "eq", '"x"y', False)]),
        ('a=eq.x"y', [("a", "eq", 'x"y', False)]),
        ("a=like.x%", [("a", "like", "x%", False)]),
        ("a=is.null", [("a", "is", "null", False)]),
        ("a=match.^(x,y)$", [("a", "match", "^(x,y)$", False)]),
    ],
)
def test_filters_are_read(text: str, expected: list[tuple[str, str, str, bool]]) -> None:
    assert [condition.parts() for condition in parse(text)] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", '["a"]'),
        ("a=foo.1", '["foo", "1"]'),
        ("a=eq", '["eq"]'),
        ("a=not.foo.1", '["foo", "1"]'),
        ("a=in.1,2", "`in` filter value must be wrapped by parentheses"),
        ("a=eq.1,", "filter must not contain empty segments (check for extra commas)"),
        ("a=eq.1,,b=eq.2", "filter must not contain empty segments (check for extra commas)"),
    ],
)
def test_bad_filters_are_refused_in_the_real_servers_words(text: str, message: str) -> None:
    with pytest.raises(FilterSyntaxError) as caught:
        parse(text)
    assert str(caught.value) == message


_values = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_conditions = st.builds(
    ParsedFilter,
    st.from_regex("[a-z_]{1,8}", fullmatch=True),
    st.sampled_from(sorted(OPERATORS - {"in"})),
    _values,
    st.booleans(),
)


def _written(condition: ParsedFilter) -> str:
    value = condition.value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{condition.column}={"not." if condition.negate else ""}{condition.operator}."{value}"'


@given(st.lists(_conditions, max_size=4))
def test_any_value_survives_in_double_quotes(conditions: list[ParsedFilter]) -> None:
    assert list(parse(",".join(map(_written, conditions)))) == conditions


@given(st.text(max_size=40))
def test_no_text_breaks_the_reader(text: str) -> None:
    with contextlib.suppress(FilterSyntaxError):
        parse(text)


@pytest.mark.parametrize(
    ("parameters", "event", "schema", "table"),
    [
        ({"event": "insert", "schema": "s", "table": "t"}, "INSERT", "s", "t"),
        ({"event": "FOO", "schema": "s", "table": "t"}, "*", "s", "t"),
        ({"schema": "s"}, "*", "s", "*"),
        ({"table": "t"}, "*", "public", "t"),
    ],
)
def test_a_binding_has_defaults(parameters: dict[str, str], event: str, schema: str, table: str) -> None:
    binding = read_binding(parameters)
    assert (binding.event, binding.schema, binding.table) == (event, schema, table)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"event": "*"},
        {"schema": "s", "table": "t", "filter": None},
        {"table": "t", "filter": "a=eq.1"},
        {"schema": 1, "table": "t"},
        {"schema": "s", "table": "t", "select": "a"},
        {"schema": "s", "table": "*", "select": ["a"]},
        {"schema": "s", "table": "t", "filter": "a"},
    ],
)
def test_a_binding_that_cannot_be_read_is_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(BindingError):
        read_binding(parameters)


def test_a_token_is_never_repeated_in_an_error() -> None:
    with pytest.raises(BindingError) as caught:
        read_binding({"schema": 1, "user_token": "secret"})
    assert "secret" not in str(caught.value)
    assert "<redacted>" in str(caught.value)


@given(st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=5)))
def test_binding_ids_are_stable_positive_and_fit(parameters: dict[str, object]) -> None:
    number = binding_id(parameters)
    assert 0 < number < 2**27
    assert number == binding_id(dict(reversed(parameters.items())))
    assert echo(parameters) == {**parameters, "id": number}
