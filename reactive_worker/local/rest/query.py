"""What a query string says, as values: the result of parsing it, the input of making SQL of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Operators that compare with one value, and the SQL they become.
COMPARISONS = {
    "eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=",
    "like": "like", "ilike": "ilike", "match": "~", "imatch": "~*", "isdistinct": "is distinct from",
    "cs": "@>", "cd": "<@", "ov": "&&", "sl": "<<", "sr": ">>", "nxr": "&<", "nxl": "&>", "adj": "-|-",
}  # fmt: skip


@dataclass(frozen=True)
class JsonStep:
    """One step into a JSON value: ``->key``, ``->3``, or with `as_text` ``->>key``."""

    key: str | int
    as_text: bool


@dataclass(frozen=True)
class Field:
    """A column, or something inside a JSON column."""

    name: str
    path: tuple[JsonStep, ...] = ()


@dataclass(frozen=True)
class Selected:
    """One item of ``select=``; a field of name ``*`` means all columns."""

    field: Field
    alias: str | None = None
    cast: str | None = None


@dataclass(frozen=True)
class Filter:
    """One condition. `operator` is a key of `COMPARISONS`, ``in`` or ``is``."""

    field: Field
    operator: str
    #: The text to compare with; for ``in`` the list, for ``is`` the SQL words.
    value: str | tuple[str, ...]
    negated: bool = False
    quantifier: Literal["any", "all"] | None = None


@dataclass(frozen=True)
class Logic:
    """Conditions joined by ``and`` or ``or``."""

    joiner: Literal["and", "or"]
    children: tuple[Filter | Logic, ...]
    negated: bool = False


@dataclass(frozen=True)
class OrderTerm:
    """One item of ``order=``."""

    field: Field
    direction: Literal["asc", "desc"] | None = None
    nulls: Literal["first", "last"] | None = None


@dataclass(frozen=True)
class Query:
    """Everything a query string says."""

    select: tuple[Selected, ...] = (Selected(Field("*")),)
    conditions: tuple[Filter | Logic, ...] = ()
    order: tuple[OrderTerm, ...] = ()
    limit: int | None = None
    offset: int = 0
    columns: tuple[str, ...] | None = None
    on_conflict: tuple[str, ...] | None = None
    #: Arguments of an rpc by GET, in the order of the query string.
    arguments: tuple[tuple[str, str], ...] = ()
    #: Whether ``select`` says anything.
    selects: bool = False
