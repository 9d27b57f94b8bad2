# ruff: noqa: S608 - building SQL is what this file is for: values are parameters, names are quoted
"""From parsed requests to SQL. Values become parameters, names are quoted, nothing else gets in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from reactive_worker.local.rest.catalog import Table
from reactive_worker.local.rest.errors import ApiError
from reactive_worker.local.rest.query import COMPARISONS, FULL_TEXT, Field, Filter, Logic, OrderTerm, Selected

#: Rows of the result, for json_agg; a name no column should have.
ROW = "_postgrest_t"
#: The rows of a write or a call, before anything is selected of them; of a read those of the answer.
SOURCE = '"pgrst_source"'

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
    #: Lines of comma-separated values, the names first.
    csv: bool = False


@dataclass(frozen=True)
class Scope:
    """What a condition or an order may speak of.

    Parameters
    ----------
    ref:
        SQL by which the columns are qualified.
    types:
        Types of the columns, as far as they are known.
    embedded:
        SQL for "there is no such row", and for "there is one", by the names of embedded tables.
    related:
        SQL by which the columns of an embedded table are qualified; raises where they cannot be sorted by.
    """

    ref: str
    types: Mapping[str, str] = field(default_factory=dict[str, str])
    embedded: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    related: Callable[[str], str] | None = None


def quote(name: str) -> str:
    """A name as SQL."""
    if "\0" in name:
        raise ApiError(400, "22021", 'invalid byte sequence for encoding "UTF8": 0x00')
    return '"' + name.replace('"', '""') + '"'


def table_name(table: Table) -> str:
    """A table's name with its schema, as SQL."""
    return f"{quote(table.schema)}.{quote(table.name)}"


# -- columns -----------------------------------------------------------------------------------------------


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


def default_alias(item: Selected) -> str | None:
    """The key a selected column gets where none is given; None: that of the expression itself."""
    # A value inside JSON is named after the last key of its path.
    keys = [step.key for step in item.field.path if isinstance(step.key, str)]
    if keys and not item.aggregate:
        return keys[-1]
    return item.field.name if (item.field.path or item.cast) and not item.aggregate else None


def is_star(item: Selected) -> bool:
    """Whether all columns are selected by it."""
    return item.field.name == "*" and not item.field.path and item.aggregate is None


def selected_sql(source: str, item: Selected, parameters: Parameters) -> str:
    """One selected column, with its alias."""
    if is_star(item):
        return f"{source}.*"
    sql = "*" if item.field.name == "*" else field_sql(source, item.field, parameters)
    if item.cast is not None:
        sql = f"cast({sql} as {item.cast})"
    if item.aggregate is not None:
        sql = aggregate_sql(item.aggregate, item.aggregate_cast, sql)
    alias = item.alias or default_alias(item)
    return f"{sql} as {quote(alias)}" if alias else sql


def aggregate_sql(aggregate: str, cast: str | None, sql: str) -> str:
    """An aggregate of what `sql` says."""
    sql = f"pg_catalog.{aggregate}({sql})"
    return f"cast({sql} as {cast})" if cast is not None else sql


# -- conditions --------------------------------------------------------------------------------------------


def _array_literal(values: Sequence[str]) -> str:
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in escaped) + "}"


def _filter_sql(scope: Scope, item: Filter, parameters: Parameters) -> str:
    if item.value == "is null" and not item.field.path and item.field.name in scope.embedded:
        return scope.embedded[item.field.name][1 if item.negated else 0]
    left = field_sql(scope.ref, item.field, parameters)
    if isinstance(item.value, tuple):
        sql = f"{left} = any ({parameters.add(_array_literal(item.value))})"
    elif item.operator == "is":
        sql = f"{left} {item.value}"
    elif item.operator in FULL_TEXT:
        sql = _full_text_sql(scope, left, item, item.value, parameters)
    else:
        text = item.value.replace("*", "%") if item.operator in ("like", "ilike") else item.value
        place = parameters.add(text)
        right = f"{item.quantifier} ({place})" if item.quantifier else place
        sql = f"{left} {COMPARISONS[item.operator]} {right}"
    return f"not ({sql})" if item.negated else f"({sql})"


def _full_text_sql(scope: Scope, left: str, item: Filter, value: str, parameters: Parameters) -> str:
    language = f"{parameters.add(item.language)}::regconfig, " if item.language is not None else ""
    if item.field.path or scope.types.get(item.field.name) != "tsvector":
        left = f"pg_catalog.to_tsvector({language}{left})"
    return f"{left} @@ pg_catalog.{FULL_TEXT[item.operator]}({language}{parameters.add(value)})"


def condition_sql(scope: Scope, item: Filter | Logic, parameters: Parameters) -> str:
    """A condition, or several that are joined."""
    if isinstance(item, Filter):
        return _filter_sql(scope, item, parameters)
    inner = f" {item.joiner} ".join(condition_sql(scope, child, parameters) for child in item.children)
    return f"not ({inner})" if item.negated else f"({inner})"


def where_sql(
    scope: Scope, conditions: Sequence[Filter | Logic], parameters: Parameters, also: Sequence[str] = ()
) -> str:
    """The WHERE clause, or nothing.

    Parameters
    ----------
    also:
        More conditions, as SQL.
    """
    every = [*(condition_sql(scope, item, parameters) for item in conditions), *also]
    return f" where {' and '.join(every)}" if every else ""


# -- order and limits --------------------------------------------------------------------------------------


def _order_term(scope: Scope, term: OrderTerm, parameters: Parameters) -> str:
    ref = scope.related(term.relation) if term.relation is not None and scope.related else scope.ref
    return order_by(field_sql(ref, term.field, parameters), term)


def order_by(sql: str, term: OrderTerm) -> str:
    """What is sorted by, with the direction."""
    if term.direction:
        sql += f" {term.direction}"
    return f"{sql} nulls {term.nulls}" if term.nulls else sql


def order_sql(scope: Scope, order: Sequence[OrderTerm], parameters: Parameters) -> str:
    """The ORDER BY clause, or nothing."""
    if not order:
        return ""
    return " order by " + ", ".join(_order_term(scope, term, parameters) for term in order)


def limit_sql(limit: int | None, offset: int, max_rows: int | None, parameters: Parameters) -> str:
    """LIMIT and OFFSET; `max_rows` cuts off silently, as it does in Supabase."""
    limits = [each for each in (limit, max_rows) if each is not None]
    sql = f" limit {parameters.add(str(min(limits)))}::bigint" if limits else ""
    return f"{sql} offset {parameters.add(str(offset))}::bigint" if offset else sql


# -- the answer --------------------------------------------------------------------------------------------


def body_sql(shape: Shape, value: str = ROW) -> str:
    """The expression that makes the answer's body out of all rows.

    Parameters
    ----------
    value:
        What of each row is shown.
    """
    if shape.empty:
        return "''"
    if shape.csv:
        return _csv_sql()
    rows = f"pg_catalog.json_agg({value})"
    if shape.single:
        rows = f"{rows} -> 0"
    if shape.strip_nulls:
        rows = f"pg_catalog.json_strip_nulls({rows})"
    return f"coalesce(({rows})::text, {'null' if shape.single else '[]'!r})"


def _csv_sql() -> str:
    # A row as text is its values in round brackets, with the quotes a line of CSV has.
    names = (
        "(select pg_catalog.string_agg(k, pg_catalog.chr(44)) from pg_catalog.json_object_keys("
        f"(pg_catalog.json_agg({ROW}) -> 0)) as k)"
    )
    line = f"pg_catalog.substr({ROW}::text, 2, pg_catalog.length({ROW}::text) - 2)"
    lines = f"pg_catalog.string_agg({line}, pg_catalog.chr(10))"
    return f"coalesce({names}, '') || pg_catalog.chr(10) || coalesce({lines}, '')"


def result_sql(
    rows: str,
    *,
    body: str,
    total: str = "null::bigint",
    count: str = "pg_catalog.count(*)",
    extra: str = "null::text",
) -> str:
    """The one row every request asks for: total, rows on this page, body, headers, status, extra.

    The two settings a function may use to change the answer come last: they are read when it has run.

    Parameters
    ----------
    rows:
        A SELECT.
    """
    return f"select {total}, {count}, {body}, {_RESPONSE_SETTINGS}, {extra} from ({rows}) as {ROW}"


@dataclass(frozen=True)
class Built:
    """A finished statement and its parameters."""

    sql: str
    parameters: tuple[str | None, ...]
