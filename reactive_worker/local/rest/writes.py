# ruff: noqa: S608 - building SQL is what this file is for: values are parameters, names are quoted
"""INSERT, upsert, UPDATE and DELETE as SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reactive_worker.local.rest.catalog import Column, Table
from reactive_worker.local.rest.errors import ApiError, bad_body, unknown_column
from reactive_worker.local.rest.payload import Body
from reactive_worker.local.rest.query import Filter, Query
from reactive_worker.local.rest.sql import (
    SOURCE,
    Built,
    Parameters,
    Scope,
    Shape,
    body_sql,
    quote,
    result_sql,
    table_name,
    where_sql,
)
from reactive_worker.local.rest.tree import Node, needed_columns
from reactive_worker.local.rest.tree_sql import tree_sql

Resolution = Literal["merge-duplicates", "ignore-duplicates"]

# Counts what an upsert inserts: up with every row that is tried, down with every row that is merged instead.
_INSERTED = "pg_catalog.current_setting('pgrst.inserted', true)"
_COUNT = (
    f"pg_catalog.set_config('pgrst.inserted', (coalesce(nullif({_INSERTED}, ''), '0')::int {{}})::text, true)"
)
_ONE_MORE = f"{_COUNT.format('+ 1')} <> '0'"
_ONE_LESS = f"{_COUNT.format('- 1')} <> '-1'"


def _columns(table: Table, query: Query, body: Body) -> list[Column]:
    """The columns a body writes, checked against the table."""
    if query.columns is not None:
        names: Sequence[str] = list(dict.fromkeys(query.columns))
    else:
        names = list(body.objects[0]) if body.objects else []
        if any(row.keys() != body.objects[0].keys() for row in body.objects[1:]):
            raise bad_body("All object keys must match")
    for name in names:
        if name not in table.columns:
            raise unknown_column(table.name, name)
    return [table.columns[name] for name in names]


def _rows_sql(columns: Sequence[Column], body: Body, parameters: Parameters, *, defaults: bool) -> str:
    """The body as a set of rows with the table's types."""
    place = parameters.add(body.text)
    definition = ", ".join(f"{quote(column.name)} {column.type}" for column in columns)
    if not defaults:
        return f"pg_catalog.json_to_recordset({place}::json) as pgrst_body({definition})"
    values = ", ".join(
        f"{parameters.add(column.name)}::text, {column.default or 'null::text'}" for column in columns
    )
    filled = (
        f"select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object({values}) || element), '[]') "
        f"from pg_catalog.jsonb_array_elements({place}::jsonb) as element"
    )
    return f"pg_catalog.jsonb_to_recordset(({filled})) as pgrst_body({definition})"


@dataclass(frozen=True)
class Shown:
    """What the answer to a write says.

    Attributes
    ----------
    node:
        What is shown of the rows that were written; None: nothing.
    shape:
        Of the body.
    """

    node: Node | None
    shape: Shape


def _returning(table: Table, shown: Shown) -> str:
    # Without a body nothing is read, so that a role that may only write can.
    if shown.node is None:
        return "returning 1"
    name = table_name(table)
    names = needed_columns(shown.node, table.primary_key)
    return "returning " + ", ".join(f"{name}.{'*' if each == '*' else quote(each)}" for each in names)


def _finish(change: str, shown: Shown, parameters: Parameters, *, extra: str = "null::text") -> Built:
    rows = f"select * from {SOURCE}"
    if shown.node is not None:
        # Limits are not for writes, of whatever table.
        rows = tree_sql(shown.node, parameters, max_rows=None)
    sql = f"with {SOURCE} as ({change}) " + result_sql(rows, body=body_sql(shown.shape), extra=extra)
    return Built(sql, tuple(parameters.values))


def build_insert(
    table: Table, query: Query, body: Body, shown: Shown, *, resolution: Resolution | None, defaults: bool
) -> Built:
    """INSERT, or an upsert when `resolution` is given.

    Parameters
    ----------
    resolution:
        What to do with rows that are there already; None: refuse.
    defaults:
        Whether a column missing in a row gets its default instead of null.
    """
    columns = _columns(table, query, body)
    parameters = Parameters()
    name = table_name(table)
    extra = "null::text"
    if not columns:
        change = _insert_without_columns(name, body)
    else:
        names = ", ".join(quote(column.name) for column in columns)
        values = ", ".join(f"pgrst_body.{quote(column.name)}" for column in columns)
        rows = _rows_sql(columns, body, parameters, defaults=defaults)
        change = f"insert into {name} ({names}) select {values} from {rows}"
        target = query.on_conflict or table.primary_key
        if resolution is not None and target:
            if resolution == "merge-duplicates":
                change += f" where {_ONE_MORE}"
                extra = f"nullif({_INSERTED}, '')"
            change += _on_conflict(target, columns, resolution)
    return _finish(f"{change} {_returning(table, shown)}", shown, parameters, extra=extra)


def build_put(table: Table, query: Query, body: Body, shown: Shown) -> Built:
    """An upsert of one row, whose primary key the filters name as well.

    Raises
    ------
    ApiError
        ``PGRST105``: the filters are not the primary key's columns, each with ``eq``.
    """
    filters = [item for item in query.conditions if isinstance(item, Filter)]
    plain = all(
        each.operator == "eq" and not each.negated and each.quantifier is None and not each.field.path
        for each in filters
    )
    key = table.primary_key
    named = {each.field.name for each in filters}
    if not key or not plain or len(filters) != len(query.conditions) or named != set(key):
        text = "Filters must include all and only primary key columns with 'eq' operators"
        raise ApiError(405, "PGRST105", text)
    columns = _columns(table, query, body)
    parameters = Parameters()
    names = ", ".join(quote(column.name) for column in columns)
    values = ", ".join(f"pgrst_body.{quote(column.name)}" for column in columns)
    rows = _rows_sql(columns, body, parameters, defaults=False)
    where = where_sql(Scope("pgrst_body", table.types), query.conditions, parameters, (_ONE_MORE,))
    change = f"insert into {table_name(table)} ({names}) select {values} from {rows}{where}"
    change += _on_conflict(key, columns, "merge-duplicates")
    extra = f"nullif({_INSERTED}, '')"
    return _finish(f"{change} {_returning(table, shown)}", shown, parameters, extra=extra)


def _insert_without_columns(name: str, body: Body) -> str:
    # A SELECT without columns gives every column its default. `[]` inserts nothing, but rights are checked
    # and the answer has its usual form.
    return f"insert into {name} select from pg_catalog.generate_series(1, {len(body.objects)})"


def _on_conflict(target: Sequence[str], columns: Sequence[Column], resolution: Resolution) -> str:
    sql = f" on conflict ({', '.join(quote(name) for name in target)})"
    if resolution == "ignore-duplicates":
        return f"{sql} do nothing"
    assignments = ", ".join(f"{quote(column.name)} = excluded.{quote(column.name)}" for column in columns)
    return f"{sql} do update set {assignments} where {_ONE_LESS}"


def build_update(table: Table, query: Query, body: Body, shown: Shown, *, defaults: bool) -> Built:
    """UPDATE of the rows that match the filters."""
    if len(body.objects) != 1:
        raise bad_body("An update needs exactly one JSON object")
    columns = _columns(table, query, body)
    parameters = Parameters()
    name = table_name(table)
    if not columns:
        # Nothing to set: PostgREST answers as if no row had matched.
        nothing = _returning(table, shown).removeprefix("returning ")
        return _finish(f"select {nothing} from {name} where false", shown, parameters)
    _need_filters(query, "UPDATE")
    rows = _rows_sql(columns, body, parameters, defaults=defaults)
    assignments = ", ".join(f"{quote(column.name)} = pgrst_body.{quote(column.name)}" for column in columns)
    where = where_sql(Scope(name, table.types), query.conditions, parameters)
    change = f"update {name} set {assignments} from {rows}{where}"
    return _finish(f"{change} {_returning(table, shown)}", shown, parameters)


def build_delete(table: Table, query: Query, shown: Shown) -> Built:
    """DELETE of the rows that match the filters."""
    _need_filters(query, "DELETE")
    parameters = Parameters()
    name = table_name(table)
    change = f"delete from {name}{where_sql(Scope(name, table.types), query.conditions, parameters)}"
    return _finish(f"{change} {_returning(table, shown)}", shown, parameters)


def _need_filters(query: Query, what: str) -> None:
    # On Supabase the extension safeupdate refuses this inside PostgreSQL; it does not come with the wheel.
    if not query.conditions:
        raise ApiError(400, "21000", f"{what} requires a WHERE clause")
