"""Bindings: what a join asks to hear of, as clients send it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from reactive_worker.local.realtime import wording
from reactive_worker.local.realtime.filters import FilterSyntaxError, ParsedFilter, parse

_EVENTS = frozenset({"INSERT", "UPDATE", "DELETE"})


class BindingError(Exception):
    """A binding that cannot be subscribed to; the text is the `system` message's."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What a join asked for."""

    id: int
    event: str
    schema: str
    table: str
    filters: tuple[ParsedFilter, ...]
    selected: tuple[str, ...] | None

    def describe(self) -> str:
        """The binding as error texts show it."""
        parsed = wording.filters([condition.parts() for condition in self.filters])
        select = "nil" if self.selected is None else wording.inspect(self.selected)
        asked = f"event: {self.event}, schema: {self.schema}, table: {self.table}"
        return f"{asked}, filters: {parsed}, select: {select}"


def binding_id(parameters: Mapping[str, Any]) -> int:
    """A stable id for a binding: equal parameters, equal id; never 0, which realtime-py takes for none."""
    text = json.dumps(parameters, sort_keys=True, ensure_ascii=False)
    return (zlib.crc32(text.encode()) & 0x7FFFFFF) or 1


def echo(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A binding as the join's reply repeats it: every key as sent, and the id."""
    return {**parameters, "id": binding_id(parameters)}


def _selected(parameters: Mapping[str, Any]) -> tuple[str, ...] | None:
    select: Any = parameters.get("select")
    if isinstance(select, str):
        raise BindingError(
            "Error parsing `select` params: expected a list of column name strings,"
            ' e.g. select: ["col1", "col2"]'
        )
    if not isinstance(select, list):
        return None
    return tuple(name for name in cast("list[Any]", select) if isinstance(name, str)) or None


def read_binding(parameters: Mapping[str, Any]) -> Binding:
    """Read one binding of a join.

    Raises
    ------
    BindingError
        It cannot be read.
    """
    selected = _selected(parameters)
    event: Any = parameters.get("event")
    schema: Any = parameters.get("schema", "public" if "table" in parameters else None)
    table: Any = parameters.get("table", "*")
    filter_text: Any = parameters.get("filter", "")
    readable = isinstance(schema, str) and isinstance(table, str) and isinstance(filter_text, str)
    if not readable or ("filter" in parameters and not {"schema", "table"} <= parameters.keys()):
        shown = (
            "<redacted>" if {"user_token", "auth_token"} & parameters.keys() else wording.inspect(parameters)
        )
        raise BindingError(
            "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: "
            + shown
        )
    try:
        filters = parse(filter_text)
    except FilterSyntaxError as error:
        raise BindingError(f"Error parsing `filter` params: {error}") from error
    if selected is not None and "*" in (schema, table):
        raise BindingError(
            "Column selection is not supported for wildcard subscriptions."
            " Provide an explicit schema and table name."
        )
    kind = event.upper() if isinstance(event, str) else "*"
    return Binding(binding_id(parameters), kind if kind in _EVENTS else "*", schema, table, filters, selected)
