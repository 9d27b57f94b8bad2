"""What a query string says, as values: the result of parsing it, the input of making SQL of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: Operators that compare with one value, and the SQL they become.
COMPARISONS = {
    "eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=",
    "like": "like", "ilike": "ilike", "match": "~", "imatch": "~*", "isdistinct": "is distinct from",
    "cs": "@>", "cd": "<@", "ov": "&&", "sl": "<<", "sr": ">>", "nxr": "&<", "nxl": "&>", "adj": "-|-",
}  # fmt: skip

#: Operators of full text search, and the function that reads their value.
FULL_TEXT = {
    "fts": "to_tsquery",
    "plfts": "plainto_tsquery",
    "phfts": "phraseto_tsquery",
    "wfts": "websearch_to_tsquery",
}

#: Aggregate functions of ``select=``.
AGGREGATES = ("avg", "count", "max", "min", "sum")

#: Names of embedded tables, from the outside in; empty for the table of the request itself.
Path = tuple[str, ...]


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
    """One column of ``select=``; a field of name ``*`` means all columns."""

    field: Field
    alias: str | None = None
    cast: str | None = None
    #: One of `AGGREGATES`; ``count`` of ``*`` counts rows.
    aggregate: str | None = None
    #: Of the aggregate's result; `cast` is of what goes into it.
    aggregate_cast: str | None = None


@dataclass(frozen=True)
class Embedded:
    """Another table inside ``select=``: ``alias:name!hint!inner(...)``, or with `spread` ``...name(...)``."""

    name: str
    select: tuple[Selected | Embedded, ...] = ()
    alias: str | None = None
    hint: str | None = None
    inner: bool = False
    spread: bool = False

    @property
    def shown(self) -> str:
        """Its key in the answer."""
        return self.alias or self.name


@dataclass(frozen=True)
class Filter:
    """One condition. `operator` is a key of `COMPARISONS` or `FULL_TEXT`, ``in`` or ``is``."""

    field: Field
    operator: str
    #: The text to compare with; for ``in`` the list, for ``is`` the SQL words.
    value: str | tuple[str, ...]
    negated: bool = False
    quantifier: Literal["any", "all"] | None = None
    #: Of a full text search: a text search configuration.
    language: str | None = None


@dataclass(frozen=True)
class Logic:
    """Conditions joined by ``and`` or ``or``."""

    joiner: Literal["and", "or"]
    children: tuple[Filter | Logic, ...]
    negated: bool = False


@dataclass(frozen=True)
class OrderTerm:
    """One item of ``order=``; with `relation` a column of that embedded table."""

    field: Field
    direction: Literal["asc", "desc"] | None = None
    nulls: Literal["first", "last"] | None = None
    relation: str | None = None


@dataclass(frozen=True)
class Clauses:
    """What is said about the rows of one table, the request's own or an embedded one."""

    conditions: tuple[Filter | Logic, ...] = ()
    order: tuple[OrderTerm, ...] = ()
    limit: int | None = None
    offset: int = 0


@dataclass(frozen=True)
class Query:
    """Everything a query string says."""

    select: tuple[Selected | Embedded, ...] = (Selected(Field("*")),)
    conditions: tuple[Filter | Logic, ...] = ()
    order: tuple[OrderTerm, ...] = ()
    limit: int | None = None
    offset: int = 0
    columns: tuple[str, ...] | None = None
    on_conflict: tuple[str, ...] | None = None
    #: Arguments of an rpc by GET, in the order of the query string.
    arguments: tuple[tuple[str, str], ...] = ()
    #: What is said about embedded tables.
    embedded: Mapping[Path, Clauses] = field(default_factory=dict[Path, Clauses])
