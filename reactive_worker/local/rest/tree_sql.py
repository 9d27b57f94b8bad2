# ruff: noqa: S608 - building SQL is what this file is for: values are parameters, names are quoted
"""A tree of tables as one SELECT: embedded tables are lateral subqueries that give JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from reactive_worker.local.rest.query import Embedded, Filter, Logic, Selected
from reactive_worker.local.rest.sql import (
    Parameters,
    Scope,
    aggregate_sql,
    default_alias,
    field_sql,
    limit_sql,
    order_by,
    order_sql,
    quote,
    selected_sql,
    where_sql,
)
from reactive_worker.local.rest.tree import Child, Node


@dataclass(frozen=True)
class _Exported:
    """A column that a spread table gives to the table it is spread into."""

    name: str
    #: Applied where it arrives.
    aggregate: str | None = None
    cast: str | None = None


def tree_sql(
    node: Node,
    parameters: Parameters,
    *,
    max_rows: int | None,
    spread: bool = False,
    more: Sequence[str] = (),
) -> str:
    """The SELECT of a node and all below it.

    Parameters
    ----------
    max_rows:
        Most rows of any table; None: no limit, not even the request's own.
    spread:
        Whether its columns become those of the table it is embedded in: aggregates are applied there.
    more:
        More columns, as SQL.
    """
    scope = _scope(node)
    columns = [_column(node, item, parameters, spread=spread) for item in node.select]
    joins: list[str] = []
    for child in node.children:
        joins.append(_join(child, parameters, max_rows))
        columns += _columns_of(child, spread=spread)
    where = where_sql(scope, node.clauses.conditions, parameters, node.joins)
    group = "" if spread else _group_sql(node, parameters)
    order = order_sql(scope, node.clauses.order, parameters)
    limit = ""
    if max_rows is not None:
        limit = limit_sql(node.clauses.limit, node.clauses.offset, max_rows, parameters)
    selected = ", ".join((*columns, *more))
    return f"select {selected} from {_from(node)}{''.join(joins)}{where}{group}{order}{limit}"


def count_sql(node: Node, parameters: Parameters) -> str:
    """A SELECT of as many rows as the tree has at its root, whatever limits say."""
    inner = [f"exists ({count_sql(child.node, parameters)})" for child in node.children if child.item.inner]
    asked = {item.field.name for item in _filters(node.clauses.conditions)}
    embedded: dict[str, tuple[str, str]] = {}
    for child in node.children:
        if child.item.shown in asked:
            there = f"exists ({count_sql(child.node, parameters)})"
            embedded[child.item.shown] = (f"not {there}", there)
    where = where_sql(
        Scope(node.ref, node.types, embedded), node.clauses.conditions, parameters, (*node.joins, *inner)
    )
    return f"select 1 from {_from(node)}{where}"


def _filters(conditions: Sequence[Filter | Logic]) -> Iterator[Filter]:
    for item in conditions:
        if isinstance(item, Filter):
            yield item
        else:
            yield from _filters(item.children)


def _from(node: Node) -> str:
    source = f"{node.source} as {node.alias}" if node.alias else node.source
    return f"{source}, {node.junction}" if node.junction else source


def _scope(node: Node) -> Scope:
    embedded: dict[str, tuple[str, str]] = {}
    for child in node.children:
        rows = child.name if child.to_one else f"{child.name}.{child.name}"
        embedded[child.item.shown] = (f"{rows} is not distinct from null", f"{rows} is distinct from null")
    names = {child.item.shown: child.name for child in node.children}
    return Scope(node.ref, node.types, embedded, names.__getitem__)


# -- columns -----------------------------------------------------------------------------------------------


def _column(node: Node, item: Selected, parameters: Parameters, *, spread: bool) -> str:
    if not spread or item.aggregate is None:
        return selected_sql(node.ref, item, parameters)
    name = _exported_name(item)
    if item.field.name == "*":
        # The whole row, for count() to count where it arrives.
        return f"{node.ref} as {quote(name)}"
    return selected_sql(node.ref, replace(item, alias=name, aggregate=None, aggregate_cast=None), parameters)


def _exported_name(item: Selected) -> str:
    return item.alias or item.aggregate or default_alias(item) or item.field.name


def _exported(child: Child) -> Iterator[_Exported]:
    """The columns a spread table has for the table it is spread into."""
    for item in child.node.select:
        yield _Exported(_exported_name(item), item.aggregate, item.aggregate_cast)
    for grandchild in child.node.children:
        if grandchild.item.spread:
            yield from _exported(grandchild)
        elif not _empty(grandchild.item):
            yield _Exported(grandchild.item.shown)


def _empty(item: Embedded) -> bool:
    """Whether nothing of an embedded table is selected: it is there to be joined only."""
    return all(isinstance(each, Embedded) and _empty(each) for each in item.select)


def _columns_of(child: Child, *, spread: bool) -> Iterator[str]:
    """What an embedded table adds to the columns of the table it is embedded in."""
    shown = quote(child.item.shown)
    if child.item.spread:
        for column in _exported(child):
            sql = f"{child.name}.{'*' if column.name == '*' else quote(column.name)}"
            if column.aggregate is not None and not spread:
                sql = f"{aggregate_sql(column.aggregate, column.cast, sql)} as {quote(column.name)}"
            yield sql
    elif not _empty(child.item):
        if child.to_one:
            yield f"pg_catalog.row_to_json({child.name}.*)::jsonb as {shown}"
        else:
            yield f"coalesce({child.name}.{child.name}, '[]') as {shown}"


def _group_sql(node: Node, parameters: Parameters) -> str:
    spreads = [(child, list(_exported(child))) for child in node.children if child.item.spread]
    arriving = any(column.aggregate for _, columns in spreads for column in columns)
    if not node.aggregates and not arriving:
        return ""
    terms: list[str] = []
    for item in node.select:
        if item.aggregate is None:
            alias = item.alias or (default_alias(item) if item.field.path else None)
            terms.append(quote(alias) if alias else field_sql(node.ref, item.field, parameters))
    terms += [
        quote(child.item.shown) for child in node.children if not child.item.spread and not _empty(child.item)
    ]
    terms += [
        f"{child.name}.{quote(column.name)}"
        for child, columns in spreads
        for column in columns
        if column.aggregate is None
    ]
    return f" group by {', '.join(terms)}" if terms else ""


# -- joins -------------------------------------------------------------------------------------------------


def _join(child: Child, parameters: Parameters, max_rows: int | None) -> str:
    spread, name = child.item.spread, child.name
    kind = "inner" if child.item.inner else "left"
    if child.to_one:
        rows = tree_sql(child.node, parameters, max_rows=max_rows, spread=spread)
        return f" {kind} join lateral ({rows}) as {name} on true"
    sorted_by: list[str] = []
    more: list[str] = []
    if spread:
        scope = _scope(child.node)
        for number, term in enumerate(child.node.clauses.order, start=1):
            # Sorted where the values are gathered, so they have to be there.
            label = quote(f"{name}_{number}")
            ref = scope.related(term.relation) if term.relation and scope.related else scope.ref
            more.append(f"{field_sql(ref, term.field, parameters)} as {label}")
            sorted_by.append(order_by(f"{name}.{label}", term))
    rows = tree_sql(child.node, parameters, max_rows=max_rows, more=more)
    columns = [f"pg_catalog.json_agg({name})::jsonb as {name}"]
    if spread:
        order = f" order by {', '.join(sorted_by)}" if sorted_by else ""
        columns += [
            f"coalesce(pg_catalog.json_agg({name}.{quote(column.name)}{order}), '[]')::jsonb"
            f" as {quote(column.name)}"
            for column in _exported(child)
        ]
    condition = f"{name}.{name} is not null" if child.item.inner else "true"
    gathered = f"select {', '.join(columns)} from ({rows}) as {name}"
    return f" {kind} join lateral ({gathered}) as {name} on {condition}"
