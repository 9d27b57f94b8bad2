# ruff: noqa: S608 - building SQL is what this file is for: values are parameters, names are quoted
"""Choosing the function an rpc means, and its call as SQL."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from reactive_worker.local.rest.catalog import Function, Parameter
from reactive_worker.local.rest.errors import ambiguous_function, bad_body
from reactive_worker.local.rest.payload import Arguments
from reactive_worker.local.rest.query import Filter, Logic
from reactive_worker.local.rest.sql import (
    ROW,
    SOURCE,
    Built,
    Parameters,
    Shape,
    body_sql,
    quote,
    result_sql,
)
from reactive_worker.local.rest.tree import Node, needed_columns
from reactive_worker.local.rest.tree_sql import count_sql, tree_sql

_CALL = quote("pgrst_call")
_SCALAR = quote("pgrst_scalar")
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
    fitting = [function for function in functions if _fits(function, keys, media_type)]
    if not fitting and media_type is not None:
        fitting = [function for function in functions if takes_body(function, media_type)]
    if len(fitting) > 1:
        raise ambiguous_function([_described(function) for function in fitting])
    return fitting[0] if fitting else None


def _fits(function: Function, keys: Collection[str], media_type: str | None) -> bool:
    if not function.parameters:
        # A body as it is wants a function that takes it.
        return not keys and (media_type not in _UNNAMED or media_type == "application/json")
    required = {parameter.name for parameter in function.parameters if parameter.required}
    return required <= set(keys) <= {parameter.name for parameter in function.parameters}


def _described(function: Function) -> str:
    parameters = ", ".join(f"{each.name} => {each.type}" for each in function.parameters)
    return f"{function.schema}.{function.name}({parameters})"


def takes_body(function: Function, media_type: str) -> bool:
    """True for a function with one unnamed parameter that takes the whole body."""
    if len(function.parameters) != 1 or function.parameters[0].name:
        return False
    return function.parameters[0].type in _UNNAMED.get(media_type, ())


# -- the call ----------------------------------------------------------------------------------------------


def call_sql(function: Function, arguments: Arguments, parameters: Parameters) -> str:
    """FROM clause that calls a function."""
    if len(function.parameters) == 1 and not function.parameters[0].name:
        return _called(function, _whole_body(function.parameters[0], arguments, parameters))
    used = [each for each in function.parameters if each.name in arguments.names]
    if arguments.texts is not None:
        given = ", ".join(_from_texts(used, arguments.texts, parameters))
        return _called(function, given)
    if not used:
        return _called(function, "")
    definition = ", ".join(f"{quote(each.name)} {each.type}" for each in used)
    place = parameters.add(arguments.text)
    # Of several rows only the first is a call.
    many = arguments.text.lstrip()[:1] == "["
    rows = (
        f"(select * from pg_catalog.json_to_recordset({place}::json) as pgrst_rows({definition}) limit 1)"
        " as pgrst_args"
        if many
        else f"pg_catalog.json_to_record({place}::json) as pgrst_args({definition})"
    )
    given = ", ".join(_named(each, f"pgrst_args.{quote(each.name)}") for each in used)
    return f"{rows}, lateral {_called(function, given)}"


def _called(function: Function, arguments: str) -> str:
    call = f"{quote(function.schema)}.{quote(function.name)}({arguments})"
    return f"{call} as {_CALL}" if function.composite else f"(select {call} as {_SCALAR}) as {_CALL}"


def _named(parameter: Parameter, value: str) -> str:
    variadic = "variadic " if parameter.variadic else ""
    return f"{variadic}{quote(parameter.name)} := {value}"


def _whole_body(parameter: Parameter, arguments: Arguments, parameters: Parameters) -> str:
    if parameter.type == "bytea":
        text = "\\x" + arguments.raw.hex()
    else:
        try:
            text = arguments.text or arguments.raw.decode("utf-8")
        except UnicodeDecodeError:
            raise bad_body("the body is not UTF-8") from None
    return f"{parameters.add(text)}::{parameter.type}"


def _from_texts(
    used: Sequence[Parameter], texts: Sequence[tuple[str, str]], parameters: Parameters
) -> Iterator[str]:
    values: Mapping[str, list[str]] = {parameter.name: [] for parameter in used}
    for name, value in texts:
        if name in values:
            values[name].append(value)
    for parameter in used:
        given = values[parameter.name]
        text = given[-1]
        if parameter.variadic:
            # Each is one element, also one that looks like an array.
            items = (each.replace("\\", "\\\\").replace('"', '\\"') for each in given)
            text = "{" + ",".join(f'"{item}"' for item in items) + "}"
        yield _named(parameter, f"{parameters.add(text)}::{parameter.type}")


# -- the statement -----------------------------------------------------------------------------------------


def relation_of(function: Function) -> tuple[str, str]:
    """Schema and name by which requests speak of what a function returns."""
    if not function.composite:
        return function.schema, function.name
    return function.schema, function.rows_of[1] if function.rows_of else "record"


def build_call(
    function: Function,
    source: str,
    node: Node,
    parameters: Parameters,
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
    node:
        What is shown of its rows.
    count:
        Whether to count all rows, beyond limit and offset.
    """
    rows = tree_sql(node, parameters, max_rows=max_rows)
    total = "null::bigint"
    if count:
        total = f"(select pg_catalog.count(*) from ({count_sql(node, parameters)}) as pgrst_count)"
    result = result_sql(
        rows,
        body=_body(function, shape),
        total=total,
        count="pg_catalog.count(*)" if function.returns_set else "1",
    )
    sql = f"with {SOURCE} as (select {_columns(function, node)} from {source}) {result}"
    return Built(sql, tuple(parameters.values))


def _columns(function: Function, node: Node) -> str:
    """What of the rows is needed: like PostgREST's, no more than is selected, filtered or joined by."""
    if not function.composite:
        return f"{_CALL}.{_SCALAR}"
    names = needed_columns(node, ())
    if names == ["*"]:
        return f"{_CALL}.*"
    names += _filtered(node.clauses.conditions)
    return ", ".join(f"{_CALL}.{quote(name)}" for name in dict.fromkeys(names)) or f"{_CALL}.*"


def _filtered(conditions: Sequence[Filter | Logic]) -> list[str]:
    names: list[str] = []
    for item in conditions:
        names += [item.field.name] if isinstance(item, Filter) else _filtered(item.children)
    return names


def _body(function: Function, shape: Shape) -> str:
    if shape.csv or shape.empty or (function.composite and function.returns_set):
        return body_sql(shape)
    if function.composite:
        return body_sql(Shape(single=True, strip_nulls=shape.strip_nulls))
    value = f"{ROW}.{_SCALAR}"
    if not function.returns_set:
        # There is one row at most, and max() takes its value without building an array around it.
        return f"coalesce(pg_catalog.max({_scalar_text(function, value, shape)}), 'null')"
    return body_sql(shape, ROW if shape.single else value)


def _scalar_text(function: Function, value: str, shape: Shape) -> str:
    if function.void:
        # Named all the same: what nobody reads PostgreSQL need not compute.
        return f"{value}::text"
    if function.returns in ("json", "jsonb"):
        if shape.strip_nulls:
            return f"pg_catalog.json_strip_nulls({value}::json)::text"
        return f"{value}::text"
    return f"pg_catalog.to_json({value})::text"
