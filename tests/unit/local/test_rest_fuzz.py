"""Thousands of query strings and headers that nobody wrote: understood or refused, and never SQL."""

from __future__ import annotations

import re
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reactive_worker.local.rest.catalog import Column, Function, Parameter, Table
from reactive_worker.local.rest.errors import ApiError
from reactive_worker.local.rest.parse import parse_query
from reactive_worker.local.rest.payload import parse_rows, read_arguments
from reactive_worker.local.rest.preferences import narrowed, parse_accept, parse_preferences, parse_range
from reactive_worker.local.rest.query import Query
from reactive_worker.local.rest.reads import build_read
from reactive_worker.local.rest.relations import Relations
from reactive_worker.local.rest.rpc import build_call, call_sql
from reactive_worker.local.rest.sql import Built, Parameters, Shape
from reactive_worker.local.rest.tree import Node, Root, Trees
from reactive_worker.local.rest.writes import Shown, build_delete, build_insert, build_put, build_update

TABLE = Table("public", "t", {name: Column(name, "text", None) for name in ("a", "b")}, ("a",))
FUNCTION = Function(
    *("public", "f", (Parameter("a", "text", False, False), Parameter("b", "int[]", False, True))),
    *("f(text, integer[])", "t", True, True, False, {}),
    rows_of=("public", "t"),
)
CODES = {"PGRST100", "PGRST102", "PGRST103", "PGRST105", "PGRST107", "PGRST108", "PGRST118", "PGRST122"}
CODES |= {"PGRST127", "PGRST200", "PGRST204"}
#: From the database: values that hold a zero byte, and writes without a filter.
STATES = {"22021", "21000"}

PIECES = [
    *("a", "b", "*", ",", ".", ":", "::", "->", "->>", "(", ")", "{", "}", "!", "=", "&", "%", "...", '"'),
    *("\\", "'", ";", "--", "/*", "$1", "$$", "not.", "and", "or", "not.and", "eq.", "in.", "is.", "like."),
    *(
        "cs.",
        "(any)",
        "(all)",
        "null",
        "true",
        "asc",
        "desc",
        "nullsfirst",
        "text",
        "int[]",
        "count()",
        "t(",
        "a.sum()",
        "g(a)",
        "!inner",
        "fts(x).",
    ),
    *("1", "-1", "99", "É", "\ud7ff", "😀", " ", "\0", "\n", "e" * 70),
]
KEYS = [
    "select",
    "order",
    "limit",
    "offset",
    "columns",
    "on_conflict",
    "and",
    "or",
    "not.or",
    "a",
    "b->c",
    "x",
    "t.order",
    "t.a",
    "t.t.or",
    "t.limit",
]


class Known:
    """A catalog of the one table, which belongs to itself."""

    async def table(self, schema: str, name: str) -> Table | None:
        return TABLE if (schema, name) == ("public", "t") else None

    async def relations(self) -> Relations:
        return Relations(
            {
                "relations": [
                    {
                        "oid": 1,
                        "schema": "public",
                        "name": "t",
                        "key": [1],
                        "definition": None,
                        "columns": {"1": "a", "2": "b"},
                    }
                ],
                "constraints": [
                    {"name": "k", "table": 1, "other": 1, "columns": [2], "others": [1], "unique": False}
                ],
                "functions": [{"schema": "public", "name": "g", "table": 1, "other": 1, "single": True}],
            }
        )


def tree(query: Query, *, written: bool = False) -> Node:
    """What needs no database is done without waiting for anything."""
    root = Root(("public", "t"), TABLE.types, written)
    growing = Trees(Known(), ("public",)).of(root, query, aggregates=True, conditions=not written)  # type: ignore[arg-type]
    try:
        growing.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=14).map("".join)


def fuzz(examples: int) -> settings:
    """So many inputs, the same in every run."""
    return settings(
        max_examples=examples,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def refused(error: ApiError) -> None:
    assert error.code in CODES | STATES, error.body
    assert 400 <= error.status < 500
    assert set(error.body) == {"code", "message", "details", "hint"}


def harmless(built: Built) -> None:
    """Nothing of a request is in the statement but quoted names, types to cast to, and parameters."""
    names_gone = re.sub(r'"(?:[^"\0]|"")*"', "N", built.sql)
    ours = re.sub(
        r"'(?:response\.headers|response\.status|pgrst\.inserted|\[\]|null|0|-1|)'", "C", names_gone
    )
    assert not re.search(r"['\";\\\0]|--|/\*|\$\$|\$[^0-9]", ours), ours
    assert ours.isascii(), ours
    assert len(built.parameters) == len(set(re.findall(r"\$\d+", ours))), ours


def tried(query_string: str, *, rpc: bool) -> None:
    try:
        query = parse_query(query_string, rpc_arguments=rpc)
        body = parse_rows(b'{"a": "1"}')
        read = build_read(tree(query), Shape(csv=rpc), count="estimated", max_rows=1000)
        harmless(read.built)
        if read.explain is not None:
            harmless(read.explain)
        shown = Shown(tree(query, written=True), Shape())
        parameters = Parameters()
        arguments = read_arguments(query_string.encode(errors="replace"), "text/plain", None)
        source = call_sql(FUNCTION, arguments, parameters)
        harmless(
            build_call(
                FUNCTION, source, tree(query, written=True), parameters, Shape(), count=True, max_rows=10
            )
        )
        harmless(build_insert(TABLE, query, body, shown, resolution="merge-duplicates", defaults=True))
        harmless(build_update(TABLE, query, body, shown, defaults=False))
        harmless(build_delete(TABLE, query, shown))
        harmless(build_put(TABLE, query, body, shown))
    except ApiError as error:
        refused(error)


# Each text is tried in every place, and each place twice: that makes 250 * 14 * 2 = 7,000 query strings.
@fuzz(250)
@given(texts, texts)
def test_query_strings(text: str, other: str) -> None:
    for key in (*KEYS, text, f"{other}->{text}"):
        tried(f"{key}={text}", rpc=True)
        tried(f"{quote(key, safe='')}={quote(text, safe='')}&or=({quote(other, safe='')})", rpc=False)


@fuzz(200)
@given(st.lists(texts, max_size=3), texts, texts)
def test_headers(prefer: list[str], accept: str, span: str) -> None:
    for read in (
        lambda: parse_preferences(prefer),
        lambda: parse_preferences([f"count=exact, handling=strict, max-affected={span}", *prefer]),
        lambda: parse_accept(accept),
        lambda: parse_accept(f"application/vnd.pgrst.object+json;{accept}"),
        lambda: parse_range(span),
        lambda: narrowed(parse_range(f"1-{span}") or (0, None), 3, 5),
    ):
        try:
            read()
        except ApiError as error:
            refused(error)


@fuzz(200)
@given(st.binary(max_size=40) | texts.map(lambda text: ('{"a":' + text).encode(errors="surrogatepass")))
def test_bodies(raw: bytes) -> None:
    try:
        body = parse_rows(raw)
        assert all(isinstance(row, dict) for row in body.objects)
    except ApiError as error:
        refused(error)
