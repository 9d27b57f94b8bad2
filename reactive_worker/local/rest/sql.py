# ruff: noqa: S608 - building SQL is what this file is for: values are parameters, names are quoted
"""From parsed requests to SQL. Values become parameters, names are quoted, nothing else gets in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reactive_worker.local.rest.catalog import Table
from reactive_worker.local.rest.errors import ApiError
from reactive_worker.local.rest.query import (
    COMPARISONS,
    Field,
    Filter,
    Logic,
    OrderTerm,
    Query,
    Selected,
)

#: Rows of the result, for json_agg; a name no column should have.
ROW = "_postgrest_t"

_RESPONSE_SETTINGS = (
    "nullif(pg_catalog.current_setting('response.headers', true), ''), "
    "nullif(pg_catalog.current_setting('response.status', true), '')"
)


class Parameters:
    """The parameters of one statement, in order."""

    def __init__(self) -> None:
        self.values: list[str | None] = []

    def add(self, value: str) -> str:
        """Take a value and return its place in the statement, such as ``$1``."""
        if "\0" in value:
            # It would end the text early, unnoticed.
            raise ApiError(400, "22021", 'invalid byte sequence for encoding "UTF8": 0x00')
        self.values.append(value)
        return f"${len(self.values)}"


@dataclass(frozen=True)
class Shape:
    """What the body of the answer looks like."""

    #: One bare object instead of an array of objects.
    single: bool = False
    #: Keys whose value is null are left out.
    strip_nulls: bool = False
    #: No body at all.
    empty: bool = False


def quote(name: str) -> str:
    """A name as SQL."""
    if "\0" in name:
        raise ApiError(400, "22021", 'invalid byte sequence for encoding "UTF8": 0x00')
    return '"' + name.replace('"', '""') + '"'


def table_name(table: Table) -> str:
    """A table's name with its schema, as SQL."""
    return f"{quote(table.schema)}.{quote(table.name)}"


def field_sql(source: str, field: Field, parameters: Parameters) -> str:
    """A column of `source`, or what lies inside it."""
    column = f"{source}.{quote(field.name)}"
    if not field.path:
        return column
    sql = f"pg_catalog.to_jsonb({column})"
    for step in field.path:
        arrow = "->>" if step.as_text else "->"
        key = str(step.key) if isinstance(step.key, int) else f"{parameters.add(step.key)}::text"
        sql += f" {arrow} {key}"
    return f"({sql})"


def _default_alias(field: Field) -> str | None:
    """A value inside JSON is named after the last key of its path."""
    keys = [step.key for step in field.path if isinstance(step.key, str)]
    return keys[-1] if keys else (field.name if field.path else None)


def select_sql(source: str, select: Sequence[Selected], parameters: Parameters) -> str:
    """The columns a request selects, from `source`."""
    columns: list[str] = []
    for item in select:
        if item.field.name == "*" and not item.field.path:
            columns.append(f"{source}.*")
            continue
        sql = field_sql(source, item.field, parameters)
        if item.cast is not None:
            sql = f"cast({sql} as {item.cast})"
        alias = item.alias or _default_alias(item.field) or (item.field.name if item.cast else None)
        columns.append(f"{sql} as {quote(alias)}" if alias else sql)
    return ", ".join(columns)


def _array_literal(values: Sequence[str]) -> str:
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in escaped) + "}"


def _filter_sql(source: str, item: Filter, parameters: Parameters) -> str:
    left = field_sql(source, item.field, parameters)
    if isinstance(item.value, tuple):
        sql = f"{left} = any ({parameters.add(_array_literal(item.value))})"
    elif item.operator == "is":
        sql = f"{left} {item.value}"
    else:
        text = item.value.replace("*", "%") if item.operator in ("like", "ilike") else item.value
        place = parameters.add(text)
        right = f"{item.quantifier} ({place})" if item.quantifier else place
        sql = f"{left} {COMPARISONS[item.operator]} {right}"
    return f"not ({sql})" if item.negated else f"({sql})"


def _condition_sql(source: str, item: Filter | Logic, parameters: Parameters) -> str:
    if isinstance(item, Filter):
        return _filter_sql(source, item, parameters)
    inner = f" {item.joiner} ".join(_condition_sql(source, child, parameters) for child in item.children)
    return f"not ({inner})" if item.negated else f"({inner})"


def where_sql(source: str, conditions: Sequence[Filter | Logic], parameters: Parameters) -> str:
    """The WHERE clause, or nothing."""
    if not conditions:
        return ""
    return " where " + " and ".join(_condition_sql(source, item, parameters) for item in conditions)


def _order_term(source: str, term: OrderTerm, parameters: Parameters) -> str:
    sql = field_sql(source, term.field, parameters)
    if term.direction:
        sql += f" {term.direction}"
    return f"{sql} nulls {term.nulls}" if term.nulls else sql


def order_sql(source: str, order: Sequence[OrderTerm], parameters: Parameters) -> str:
    """The ORDER BY clause, or nothing."""
    if not order:
        return ""
    return " order by " + ", ".join(_order_term(source, term, parameters) for term in order)


def limit_sql(query: Query, max_rows: int, parameters: Parameters) -> str:
    """LIMIT and OFFSET; `max_rows` cuts off silently, as it does in Supabase."""
    limit = max_rows if query.limit is None else min(query.limit, max_rows)
    sql = f" limit {parameters.add(str(limit))}::bigint"
    return f"{sql} offset {parameters.add(str(query.offset))}::bigint" if query.offset else sql


def body_sql(shape: Shape) -> str:
    """The expression that makes the answer's body out of all rows."""
    if shape.empty:
        return "''"
    rows = f"pg_catalog.json_agg({ROW})"
    if shape.strip_nulls:
        rows = f"pg_catalog.json_strip_nulls({rows})"
    if shape.single:
        return f"coalesce(({rows} -> 0)::text, 'null')"
    return f"coalesce({rows}, '[]')::text"


def result_sql(source: str, *, body: str, total: str = "null::bigint", extra: str = "null::text") -> str:
    """The one row every request asks for: total, rows on this page, body, headers, status, extra.

    The two settings a function may use to change the answer come last: they are read when it has run.
    """
    return (
        f"select {total}, pg_catalog.count(*), {body}, {_RESPONSE_SETTINGS}, {extra} "
        f"from (select * from {source}) as {ROW}"
    )


@dataclass(frozen=True)
class Built:
    """A finished statement and its parameters."""

    sql: str
    parameters: tuple[str | None, ...]


def build_read(table: Table, query: Query, shape: Shape, *, count: bool, max_rows: int) -> Built:
    """A SELECT from a table or view."""
    parameters = Parameters()
    name = table_name(table)
    columns = select_sql(name, query.select, parameters)
    where = where_sql(name, query.conditions, parameters)
    order = order_sql(name, query.order, parameters)
    limit = limit_sql(query, max_rows, parameters)
    total = f"(select pg_catalog.count(*) from {name}{where})" if count else "null::bigint"
    source = f"with pgrst_source as (select {columns} from {name}{where}{order}{limit}) "
    sql = source + result_sql("pgrst_source", body=body_sql(shape), total=total)
    return Built(sql, tuple(parameters.values))
