# ruff: noqa: S608 - building SQL is what this file is for: values are parameters, names are quoted
"""Choosing the function an rpc means, and its call as SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from reactive_worker.local.rest.catalog import Function, Parameter
from reactive_worker.local.rest.errors import ambiguous_function, bad_body, unsupported
from reactive_worker.local.rest.query import Query
from reactive_worker.local.rest.sql import (
    ROW,
    Built,
    Parameters,
    Shape,
    body_sql,
    limit_sql,
    order_sql,
    quote,
    result_sql,
    select_sql,
    where_sql,
)
from reactive_worker.local.rest.writes import parse_json

_SOURCE = quote("pgrst_call")
#: Types of a single unnamed parameter, by the media type of the body it takes.
_UNNAMED = {
    "application/json": ("json", "jsonb"),
    "text/plain": ("text",),
    "text/xml": ("xml",),
    "application/octet-stream": ("bytea",),
}


def choose_function(
    functions: Sequence[Function], keys: Collection[str], *, media_type: str | None
) -> Function | None:
    """The function whose parameters these keys fill, or None.

    Parameters
    ----------
    functions:
        All functions of the name.
    keys:
        Names of the arguments.
    media_type:
        Of the body; None where there is none (GET).

    Raises
    ------
    ApiError
        ``PGRST203``: several fit.
    """
    fitting: list[Function] = []
    if media_type in (None, "application/json"):
        fitting = [function for function in functions if _fits(function, keys)]
    if not fitting and media_type is not None:
        fitting = [function for function in functions if takes_body(function, media_type)]
    if len(fitting) > 1:
        raise ambiguous_function([function.signature for function in fitting])
    return fitting[0] if fitting else None


def _fits(function: Function, keys: Collection[str]) -> bool:
    required = {parameter.name for parameter in function.parameters if parameter.required}
    return required <= set(keys) <= {parameter.name for parameter in function.parameters if parameter.name}


def takes_body(function: Function, media_type: str) -> bool:
    """True for a function with one unnamed parameter that takes the whole body."""
    if len(function.parameters) != 1 or function.parameters[0].name:
        return False
    return function.parameters[0].type in _UNNAMED.get(media_type, ())


def json_arguments(raw: bytes) -> tuple[str, dict[str, Any] | None]:
    """A JSON body of an rpc: its text, and its keys unless it is no object."""
    # supabase clients always send an object, but a POST without a body calls a function without arguments.
    text, value = parse_json(raw or b"{}")
    return text, cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _named(parameter: Parameter, value: str) -> str:
    variadic = "variadic " if parameter.variadic else ""
    return f"{variadic}{quote(parameter.name)} := {value}"


def _call(function: Function, arguments: str) -> str:
    return f"{quote(function.schema)}.{quote(function.name)}({arguments})"


def call_from_json(function: Function, text: str, keys: Collection[str], parameters: Parameters) -> str:
    """FROM clause that calls the function with the keys of a JSON object."""
    used = [parameter for parameter in function.parameters if parameter.name in keys]
    if not used:
        return f"{_call(function, '')} as {_SOURCE}"
    definition = ", ".join(f"{quote(parameter.name)} {parameter.type}" for parameter in used)
    arguments = ", ".join(_named(parameter, f"pgrst_args.{quote(parameter.name)}") for parameter in used)
    place = parameters.add(text)
    return (
        f"pg_catalog.json_to_record({place}::json) as pgrst_args({definition}), "
        f"lateral {_call(function, arguments)} as {_SOURCE}"
    )


def call_from_texts(function: Function, texts: Mapping[str, Sequence[str]], parameters: Parameters) -> str:
    """FROM clause that calls the function with texts from a query string."""
    arguments: list[str] = []
    for parameter in function.parameters:
        values = texts.get(parameter.name)
        if values is None:
            continue
        value = values[-1]
        if parameter.variadic and not value.startswith("{"):
            items = (text.replace("\\", "\\\\").replace('"', '\\"') for text in values)
            value = "{" + ",".join(f'"{item}"' for item in items) + "}"
        arguments.append(_named(parameter, f"{parameters.add(value)}::{parameter.type}"))
    return f"{_call(function, ', '.join(arguments))} as {_SOURCE}"


def call_with_body(function: Function, raw: bytes, media_type: str, parameters: Parameters) -> str:
    """FROM clause that gives the whole body to the single unnamed parameter."""
    if media_type == "application/octet-stream":
        text = "\\x" + raw.hex()
    else:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise bad_body("the body is not UTF-8") from None
    return f"{_call(function, f'{parameters.add(text)}::{function.parameters[0].type}')} as {_SOURCE}"


def build_call(
    function: Function,
    source: str,
    parameters: Parameters,
    query: Query,
    shape: Shape,
    *,
    count: bool,
    max_rows: int,
) -> Built:
    """The whole statement of an rpc.

    Parameters
    ----------
    source:
        FROM clause that calls the function.
    count:
        Whether to count all rows, beyond limit and offset.
    """
    if not function.composite:
        return _build_scalar(function, source, parameters, query, shape, count=count, max_rows=max_rows)
    call = f"with pgrst_call as (select {_SOURCE}.* from {source})"
    columns = select_sql(_SOURCE, query.select, parameters)
    where = where_sql(_SOURCE, query.conditions, parameters)
    order = order_sql(_SOURCE, query.order, parameters)
    limit = limit_sql(query, max_rows, parameters)
    # One row is an object; its null is no object either, but what PostgREST answers.
    shape = Shape(shape.single or not function.returns_set, shape.strip_nulls, shape.empty)
    total = f"(select pg_catalog.count(*) from {_SOURCE}{where})" if count else "null::bigint"
    page = f"pgrst_source as (select {columns} from {_SOURCE}{where}{order}{limit})"
    sql = f"{call}, {page} {result_sql('pgrst_source', body=body_sql(shape), total=total)}"
    return Built(sql, tuple(parameters.values))


def _build_scalar(
    function: Function,
    source: str,
    parameters: Parameters,
    query: Query,
    shape: Shape,
    *,
    count: bool,
    max_rows: int,
) -> Built:
    if query.selects or query.conditions or query.order:
        raise unsupported("select, filters or order on a function that returns no columns")
    call = f"with pgrst_call as (select {_SOURCE}.pgrst_scalar from {source}(pgrst_scalar))"
    value = f"{ROW}.pgrst_scalar"
    if not function.returns_set:
        as_text = _scalar_text(function, value, shape)
        # There is exactly one row, and max() takes its value without building an array around it.
        return Built(
            f"{call} {result_sql('pgrst_call', body=f'pg_catalog.max({as_text})')}", tuple(parameters.values)
        )
    limit = limit_sql(query, max_rows, parameters)
    total = f"(select pg_catalog.count(*) from {_SOURCE})" if count else "null::bigint"
    rows = f"pg_catalog.json_agg({value})"
    body = f"coalesce({rows} -> 0, 'null')::text" if shape.single else f"coalesce({rows}, '[]')::text"
    page = f"pgrst_source as (select * from {_SOURCE}{limit})"
    body = "''" if shape.empty else body
    sql = f"{call}, {page} {result_sql('pgrst_source', body=body, total=total)}"
    return Built(sql, tuple(parameters.values))


def _scalar_text(function: Function, value: str, shape: Shape) -> str:
    if function.void or shape.empty:
        # Named all the same: what nobody reads PostgreSQL need not compute.
        return f"{value}::text"
    if function.returns in ("json", "jsonb"):
        text = f"{value}::text"
        if shape.strip_nulls:
            text = f"pg_catalog.json_strip_nulls({value}::json)::text"
    else:
        text = f"pg_catalog.to_json({value})::text"
    return f"coalesce({text}, 'null')"
