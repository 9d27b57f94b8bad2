"""The query grammar of the REST API."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_worker.local.rest.errors import ApiError
from reactive_worker.local.rest.parse import parse_query
from reactive_worker.local.rest.query import (
    Clauses,
    Embedded,
    Field,
    Filter,
    JsonStep,
    Logic,
    OrderTerm,
    Query,
    Selected,
)

A, B, C = Field("a"), Field("b"), Field("c")


def condition(text: str) -> Filter | Logic:
    (only,) = parse_query(text).conditions
    return only


def refusal(text: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse_query(text)
    return caught.value


def status(text: str) -> int:
    try:
        parse_query(text)
    except ApiError as error:
        return error.status
    return 200


def test_an_empty_query_selects_everything() -> None:
    assert parse_query("") == Query() == parse_query("select=")
    assert Query().select == (Selected(Field("*")),)


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("a", Selected(A)),
        ("*", Selected(Field("*"))),
        ("x:a", Selected(A, alias="x")),
        ("a::text", Selected(A, cast="text")),
        ("x:a::double precision", Selected(A, alias="x", cast="double precision")),
        ("a::int[]", Selected(A, cast="int[]")),
        ("a->b", Selected(Field("a", (JsonStep("b", False),)))),
        ("a->b->>c", Selected(Field("a", (JsonStep("b", False), JsonStep("c", True))))),
        ("a->0->-1", Selected(Field("a", (JsonStep(0, False), JsonStep(-1, False))))),
        ("first name", Selected(Field("first name"))),
        ("my-column", Selected(Field("my-column"))),
        ('"we.ird,(name)"', Selected(Field("we.ird,(name)"))),
        ('"a""', None),
        ("naïve", Selected(Field("naïve"))),
    ],
)
def test_select_items(text: str, selected: Selected | None) -> None:
    if selected is None:
        assert refusal(f"select={quote(text)}").code == "PGRST100"
    else:
        assert parse_query(f"select={quote(text)}").select == (selected,)


def test_select_takes_several_items() -> None:
    assert parse_query("select=a,x:b, c").select == (Selected(A), Selected(B, "x"), Selected(C))


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("a", OrderTerm(A)),
        ("a.asc", OrderTerm(A, "asc")),
        ("a.desc.nullsfirst", OrderTerm(A, "desc", "first")),
        ("a.nullslast", OrderTerm(A, None, "last")),
        ("a->>b.desc", OrderTerm(Field("a", (JsonStep("b", True),)), "desc")),
    ],
)
def test_order_terms(text: str, term: OrderTerm) -> None:
    assert parse_query(f"order={text}").order == (term,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=eq.x", Filter(A, "eq", "x")),
        ("a=eq.", Filter(A, "eq", "")),
        ('a=eq."x"', Filter(A, "eq", '"x"')),
        ("a=eq.x.y,(z)", Filter(A, "eq", "x.y,(z)")),
        ("a=not.gte.1", Filter(A, "gte", "1", negated=True)),
        ("a=in.(1,2)", Filter(A, "in", ("1", "2"))),
        ("a=in.()", Filter(A, "in", ())),
        ("a=not.in.(1)", Filter(A, "in", ("1",), negated=True)),
        ('a=in.("x,y","q\\"\\\\",z w)', Filter(A, "in", ("x,y", 'q"\\', "z w"))),
        ('a=in.(x"y,"z"w)', Filter(A, "in", ('x"y', '"z"w'))),
        ("a=is.NULL", Filter(A, "is", "is null")),
        ("a=is.not_null", Filter(A, "is", "is not null")),
        ("a=not.is.true", Filter(A, "is", "is true", negated=True)),
        ("a=like(any).{x*,y}", Filter(A, "like", "{x*,y}", quantifier="any")),
        ("a=cs.{1,2}", Filter(A, "cs", "{1,2}")),
        ("a->>b=eq.x", Filter(Field("a", (JsonStep("b", True),)), "eq", "x")),
    ],
)
def test_filters(text: str, expected: Filter) -> None:
    key, _, value = text.partition("=")
    assert condition(f"{quote(key)}={quote(value)}") == expected


def test_the_same_column_may_be_filtered_twice() -> None:
    assert parse_query("a=gt.1&a=lt.9").conditions == (Filter(A, "gt", "1"), Filter(A, "lt", "9"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("or=(a.eq.1,b.is.null)", Logic("or", (Filter(A, "eq", "1"), Filter(B, "is", "is null")))),
        ("not.and=(a.not.eq.1)", Logic("and", (Filter(A, "eq", "1", negated=True),), negated=True)),
        (
            "or=(a.in.(1,2),and(b.eq.x,not.or(c.cs.{1,2})))",
            Logic(
                "or",
                (
                    Filter(A, "in", ("1", "2")),
                    Logic("and", (Filter(B, "eq", "x"), Logic("or", (Filter(C, "cs", "{1,2}"),), True))),
                ),
            ),
        ),
        ('or=(a.eq."x,y)", b.eq.z)', Logic("or", (Filter(A, "eq", "x,y)"), Filter(B, "eq", "z")))),
    ],
)
def test_logic(text: str, expected: Logic) -> None:
    assert condition(text.replace('"', "%22").replace(" ", "%20")) == expected


def test_the_rest_of_the_reserved_keys() -> None:
    query = parse_query("limit=10&offset=5&columns=%22a%22,b&on_conflict=a,c&apikey=ignored")
    assert (query.limit, query.offset, query.columns, query.on_conflict) == (10, 5, ("a", "b"), ("a", "c"))
    assert query.conditions == ()


def test_arguments_of_an_rpc_are_what_is_no_filter() -> None:
    query = parse_query("a=1&b={1,2}&c=eq.3&d=not.is.null&e=eq", rpc_arguments=True)
    assert query.arguments == (("a", "1"), ("b", "{1,2}"), ("e", "eq"))
    assert query.conditions == (Filter(C, "eq", "3"), Filter(Field("d"), "is", "is null", negated=True))


@pytest.mark.parametrize(
    "text",
    [
        "a=1",
        "a=foo.1",
        "a=eq",
        "a=in.1",
        "a=in.(1",
        "a=is.5",
        "a=cs(any).{}",
        "select=a,,b",
        "select=a:",
        "select=a::",
        "select=a::int;drop",
        "select=a->>b->c",
        "order=a.up",
        "order=a.desc.asc",
        "limit=x",
        "limit=1e3",
        "or=a.eq.1",
        "or=(a.eq.1",
        "or=(a.eq.1))",
        "or=()",
        "columns=",
        "a=%ff",
        "=eq.1",
    ],
)
def test_what_cannot_be_parsed_is_a_400(text: str) -> None:
    error = refusal(text)
    assert (error.status, error.code) == (400, "PGRST100")


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("rel(b)", Embedded("rel", (Selected(B),))),
        ("rel()", Embedded("rel")),
        ("rel(*,x:in(b))", Embedded("rel", (Selected(Field("*")), Embedded("in", (Selected(B),), "x")))),
        ("x:rel!hint(b)", Embedded("rel", (Selected(B),), "x", "hint")),
        ("rel!inner(b)", Embedded("rel", (Selected(B),), inner=True)),
        ("rel!hint!inner(b)", Embedded("rel", (Selected(B),), hint="hint", inner=True)),
        ("rel!inner!hint(b)", Embedded("rel", (Selected(B),), hint="hint", inner=True)),
        ("rel!left(b)", Embedded("rel", (Selected(B),))),
        ("...rel(x:b)", Embedded("rel", (Selected(B, "x"),), spread=True)),
        ("count()", Selected(Field("*"), aggregate="count")),
        ("n:count()::text", Selected(Field("*"), "n", aggregate="count", aggregate_cast="text")),
        ("a.sum()", Selected(A, aggregate="sum")),
        ("n:a::int.avg()::text", Selected(A, "n", "int", "avg", "text")),
        ("a->>b.max()", Selected(Field("a", (JsonStep("b", True),)), aggregate="max")),
        ("count", Selected(Field("count"))),
    ],
)
def test_embedded_tables_and_aggregates(text: str, selected: Selected | Embedded) -> None:
    assert parse_query(f"select={text}").select == (selected,)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "rel(",
            "rel(b",
            "rel(b))",
            "...rel",
            "x:...rel(b)",
            "rel!(b)",
            "rel!a!b!c(d)",
            "a.mode()",
            "a.sum",
        ),
        *("a->b(c)", "*(a)", "a.sum().b"),
        "a(" * 30 + ")" * 30,
        ",".join(f"t{number}(a)" for number in range(100)),
    ],
)
def test_what_cannot_be_selected(text: str) -> None:
    assert refusal(f"select={text}").code == "PGRST100"


def test_clauses_of_embedded_tables() -> None:
    query = parse_query(
        "rel.a=eq.1&rel.order=b.desc&rel.limit=2&rel.offset=1&x.y.or=(a.eq.1)&x.not.and=(b.eq.2)&order=rel(a)"
    )
    assert query.embedded == {
        ("rel",): Clauses((Filter(A, "eq", "1"),), (OrderTerm(B, "desc"),), 2, 1),
        ("x", "y"): Clauses((Logic("or", (Filter(A, "eq", "1"),)),)),
        ("x",): Clauses((Logic("and", (Filter(B, "eq", "2"),), negated=True),)),
    }
    assert query.order == (OrderTerm(A, relation="rel"),)
    assert query.conditions == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=fts.x y", Filter(A, "fts", "x y")),
        ("a=not.wfts(english).cats", Filter(A, "wfts", "cats", negated=True, language="english")),
        ("or=(a.plfts(simple).x,b.phfts.y)", None),
    ],
)
def test_full_text(text: str, expected: Filter | None) -> None:
    if expected is None:
        terms = (Filter(A, "plfts", "x", language="simple"), Filter(B, "phfts", "y"))
        assert condition(text) == Logic("or", terms)
    else:
        assert condition(text) == expected


def test_a_negative_limit_is_a_range_that_cannot_be() -> None:
    assert (refusal("limit=-1").status, refusal("offset=-1").code) == (416, "PGRST103")


@given(st.lists(st.text(), min_size=1))
def test_any_text_survives_a_list_in_quotes(values: list[str]) -> None:
    quoted = ",".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    assert condition(f"a=in.({quote(quoted)})") == Filter(A, "in", tuple(values))


@given(st.text())
def test_any_text_survives_a_filter(value: str) -> None:
    assert condition(f"a=eq.{quote(value)}") == Filter(A, "eq", value)


@given(st.text())
def test_nonsense_is_refused_or_understood_but_never_breaks(text: str) -> None:
    for template in ("select={}", "order={}", "or=({})", "a={}", "{}=eq.1", "columns={}"):
        assert status(template.format(quote(text))) in (200, 400, 416)
