# ruff: noqa: S608 - building SQL is what this file is for: values are parameters, names are quoted
"""INSERT, upsert, UPDATE and DELETE as SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from reactive_worker.local.json_text import read_json
from reactive_worker.local.rest.catalog import Column, Table
from reactive_worker.local.rest.errors import ApiError, bad_body, unknown_column, unsupported
from reactive_worker.local.rest.query import Query
from reactive_worker.local.rest.sql import (
    Built,
    Parameters,
    Shape,
    body_sql,
    quote,
    result_sql,
    select_sql,
    table_name,
    where_sql,
)

Resolution = Literal["merge-duplicates", "ignore-duplicates"]

# Counts what an upsert inserts: up with every row that is tried, down with every row that is merged instead.
_INSERTED = "pg_catalog.current_setting('pgrst.inserted', true)"
_COUNT = (
    f"pg_catalog.set_config('pgrst.inserted', (coalesce(nullif({_INSERTED}, ''), '0')::int {{}})::text, true)"
)
_ONE_MORE = f"{_COUNT.format('+ 1')} <> '0'"
_ONE_LESS = f"{_COUNT.format('- 1')} <> '-1'"


@dataclass(frozen=True)
class Body:
    """A JSON body: its text, for PostgreSQL, and what has to be known of it here."""

    text: str
    #: True if it is an array; else it is one object.
    many: bool
    objects: tuple[dict[str, Any], ...]


def parse_json(raw: bytes) -> tuple[str, Any]:
    """Decode a JSON body; returns its text and its value."""
    try:
        text = raw.decode("utf-8")
        return text, read_json(text)
    except ValueError:
        raise bad_body("Empty or invalid json") from None


def parse_rows(raw: bytes) -> Body:
    """Decode a body of one row or of an array of rows."""
    text, value = parse_json(raw)
    items = cast("list[Any]", value if isinstance(value, list) else [value])
    if not all(isinstance(item, dict) for item in items):
        raise bad_body("Request body must be a JSON object or an array of JSON objects")
    many = isinstance(value, list)
    return Body(text if many else f"[{text}]", many, tuple(items))


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


def _returning(table: Table, query: Query, shape: Shape, parameters: Parameters) -> str:
    # Without a body nothing is read, so that a role that may only write can.
    return (
        "returning 1"
        if shape.empty
        else f"returning {select_sql(table_name(table), query.select, parameters)}"
    )


def _finish(change: str, shape: Shape, parameters: Parameters, *, extra: str = "null::text") -> Built:
    sql = f"with pgrst_source as ({change}) " + result_sql("pgrst_source", body=body_sql(shape), extra=extra)
    return Built(sql, tuple(parameters.values))


def _refuse_paging(query: Query) -> None:
    if query.limit is not None or query.offset or query.order:
        raise unsupported("order, limit and offset on a write")


def build_insert(
    table: Table, query: Query, body: Body, shape: Shape, *, resolution: Resolution | None, defaults: bool
) -> Built:
    """INSERT, or an upsert when `resolution` is given.

    Parameters
    ----------
    resolution:
        What to do with rows that are there already; None: refuse.
    defaults:
        Whether a column missing in a row gets its default instead of null.
    """
    _refuse_paging(query)
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
    return _finish(f"{change} {_returning(table, query, shape, parameters)}", shape, parameters, extra=extra)


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


def build_update(table: Table, query: Query, body: Body, shape: Shape, *, defaults: bool) -> Built:
    """UPDATE of the rows that match the filters."""
    _refuse_paging(query)
    if len(body.objects) != 1:
        raise bad_body("An update needs exactly one JSON object")
    columns = _columns(table, query, body)
    parameters = Parameters()
    name = table_name(table)
    if not columns:
        # Nothing to set: PostgREST answers as if no row had matched.
        columns_sql = "1" if shape.empty else select_sql(name, query.select, parameters)
        return _finish(f"select {columns_sql} from {name} where false", shape, parameters)
    _need_filters(query, "UPDATE")
    rows = _rows_sql(columns, body, parameters, defaults=defaults)
    assignments = ", ".join(f"{quote(column.name)} = pgrst_body.{quote(column.name)}" for column in columns)
    where = where_sql(name, query.conditions, parameters)
    change = f"update {name} set {assignments} from {rows}{where}"
    return _finish(f"{change} {_returning(table, query, shape, parameters)}", shape, parameters)


def build_delete(table: Table, query: Query, shape: Shape) -> Built:
    """DELETE of the rows that match the filters."""
    _refuse_paging(query)
    _need_filters(query, "DELETE")
    parameters = Parameters()
    name = table_name(table)
    change = f"delete from {name}{where_sql(name, query.conditions, parameters)}"
    return _finish(f"{change} {_returning(table, query, shape, parameters)}", shape, parameters)


def _need_filters(query: Query, what: str) -> None:
    # On Supabase the extension safeupdate refuses this inside PostgreSQL; it does not come with the wheel.
    if not query.conditions:
        raise ApiError(400, "21000", f"{what} requires a WHERE clause")
