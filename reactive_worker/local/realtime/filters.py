"""Binding filters: ``agent_type=eq.mail,priority=gt.5`` read, checked against the table, and evaluated.

Values are compared with the semantics of their PostgreSQL type: by PostgreSQL itself, many values in one
statement, except where equality of the type is equality of its text form.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import sql

from reactive_worker.local.realtime.database import AnyConnection
from reactive_worker.local.realtime.decode import UNCHANGED, Value
from reactive_worker.local.realtime.render import type_sql
from reactive_worker.local.realtime.wording import inspect

log = logging.getLogger(__name__)

#: Most values of an `in` filter.
MOST_VALUES = 100

_SYMBOLS = {
    "eq": "=",
    "neq": "<>",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "in": "= any",
    "like": "like",
    "ilike": "ilike",
    "match": "~",
    "imatch": "~*",
    "isdistinct": "is distinct from",
}
OPERATORS = frozenset(_SYMBOLS) | {"is"}
IS_WORDS = frozenset({"null", "true", "false", "unknown"})

_BYTEA = 17
_FLOATS = frozenset({700, 701, 1700})
#: Types with one text form a value, so that equal means equal text: bool, integers, text, varchar, uuid,
#: date, timestamp, timestamptz.
_TEXT_EQUALITY = frozenset({16, 20, 21, 23, 25, 1043, 2950, 1082, 1114, 1184})


class FilterSyntaxError(ValueError):
    """A filter string that cannot be read; the text is the real server's."""


@dataclass(frozen=True, slots=True)
class ParsedFilter:
    """One condition, as written."""

    column: str
    operator: str
    value: str
    negate: bool

    def parts(self) -> tuple[str, str, str, bool]:
        """Column, operator, value, negate: what error texts show."""
        return self.column, self.operator, self.value, self.negate


def _split(text: str) -> list[str]:
    """Split at commas that are neither in parentheses nor in double quotes."""
    segments: list[str] = []
    current: list[str] = []
    depth, quoted, escaped, previous = 0, False, False, ""
    for letter in text:
        if quoted:
            if escaped:
                escaped = False
            elif letter == "\\":
                escaped = True
            elif letter == '"':
                quoted = False
        elif letter == '"' and previous in (".", "(", ","):
            # Elsewhere a quote is an ordinary letter of the value.
            quoted = True
        elif letter == "(":
            depth += 1
        elif letter == ")":
            depth = max(0, depth - 1)
        elif letter == "," and depth == 0:
            segments.append("".join(current))
            current, previous = [], ""
            continue
        current.append(letter)
        previous = letter
    segments.append("".join(current))
    return segments


def _unquote(value: str) -> str:
    """Take a value out of its double quotes; one that is not quoted as a whole stays as it is."""
    if not value.startswith('"'):
        return value
    taken: list[str] = []
    letters = iter(enumerate(value[1:], start=1))
    for index, letter in letters:
        if letter == "\\":
            following = next(letters, None)
            if following is None:
                return value
            taken.append(following[1])
        elif letter == '"':
            return "".join(taken) if index == len(value) - 1 else value
        else:
            taken.append(letter)
    return value


def _condition(segment: str) -> ParsedFilter:
    if not segment:
        raise FilterSyntaxError("filter must not contain empty segments (check for extra commas)")
    column, equals, rest = segment.partition("=")
    if not equals:
        raise FilterSyntaxError(inspect([segment]))
    negate = rest.startswith("not.")
    operation = rest.removeprefix("not.") if negate else rest
    operator, dot, value = operation.partition(".")
    if not dot:
        raise FilterSyntaxError(inspect([operation]))
    if operator not in OPERATORS:
        raise FilterSyntaxError(inspect([operator, value]))
    if operator != "in":
        return ParsedFilter(column, operator, _unquote(value), negate)
    if len(value) < 2 or not (value.startswith("(") and value.endswith(")")):
        raise FilterSyntaxError("`in` filter value must be wrapped by parentheses")
    # The list becomes an array literal: quoting inside it is the same.
    return ParsedFilter(column, operator, "{" + value[1:-1] + "}", negate)


def parse(text: str) -> tuple[ParsedFilter, ...]:
    """Read a filter string. Commas mean AND; an empty string is no filter.

    Raises
    ------
    FilterSyntaxError
        With the part that cannot be read.

    Example
    -------
    >>> parse("state=in.(a,b),priority=not.lt.5")[1].parts()
    ('priority', 'lt', '5', True)
    """
    text = text.strip()
    return tuple(_condition(segment.strip()) for segment in _split(text)) if text else ()


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition that fits its column."""

    column: str
    type_oid: int
    #: The column's type as a cast spells it.
    type_name: str
    operator: str
    value: str
    negate: bool
    #: For comparisons by text: the values' canonical text forms.
    texts: frozenset[str | None] | None = None

    def decide(self, value: Value | Literal["missing"]) -> bool | str:
        """Judge one value, or return its text when PostgreSQL has to.

        Parameters
        ----------
        value:
            The column's text form, None for NULL, UNCHANGED when the log does not hold it.
        """
        if value is UNCHANGED:
            return False
        if value is not None and self.type_oid in _FLOATS and value in ("NaN", "Infinity", "-Infinity"):
            value = None  # what the log reader of the real server makes of them
        if self.operator == "is":
            return self._is(value) is not self.negate
        if value is None:
            # A comparison with NULL is neither true nor false, and so never a match, negated or not.
            return self.operator == "isdistinct" and not self.negate
        if self.texts is None:
            # Likewise: the hex digits without their prefix are what is compared.
            return value.removeprefix("\\x") if self.type_oid == _BYTEA else value
        equal = value in self.texts
        if not equal and None in self.texts:
            return False  # x = any (array with NULL): unknown unless found
        return (equal if self.operator in ("eq", "in") else not equal) is not self.negate

    def _is(self, value: str | None) -> bool:
        match self.value:
            case "null" | "unknown":
                return value is None
            case "true":
                return value == "t"
            case _:
                return value == "f"

    def expression(self) -> sql.Composed:
        """SQL that compares ``v`` (text) with one parameter (text)."""
        cast = type_sql(self.type_name)
        other = cast + sql.SQL("[]") if self.operator == "in" else cast
        query = sql.SQL("(v::{cast}) {symbol} (%s::{other})").format(
            cast=cast, symbol=type_sql(_SYMBOLS[self.operator]), other=other
        )
        return sql.SQL("not ({})").format(query) if self.negate else query


def compares_by_text(type_oid: int, operator: str) -> bool:
    """Whether equal text forms are what equality means for this type and operator."""
    return operator in ("eq", "neq", "in", "isdistinct") and type_oid in _TEXT_EQUALITY


async def evaluate(
    connection: AnyConnection, questions: Iterable[tuple[Filter, str]]
) -> dict[tuple[Filter, str], bool]:
    """Judge what `Filter.decide` would not, one statement a filter whatever the number of values."""
    by_filter: defaultdict[Filter, dict[str, None]] = defaultdict(dict)
    for condition, value in questions:
        by_filter[condition][value] = None
    answers: dict[tuple[Filter, str], bool] = {}
    for condition, values in by_filter.items():
        texts = list(values)
        query = sql.SQL(
            "select coalesce({}, false) from unnest(%s::text[]) with ordinality as u(v, i) order by i"
        ).format(condition.expression())
        try:
            cursor = await connection.execute(query, (condition.value, texts))
            rows = await cursor.fetchall()
        except psycopg.DataError as error:
            # Checked when the subscription was made, so the column's type must have changed since.
            log.warning(
                "filter on %s no longer fits its column, nothing matches: %s", condition.column, error
            )
            answers.update({(condition, text): False for text in texts})
            continue
        answers.update({(condition, text): match for text, (match,) in zip(texts, rows, strict=True)})
    return answers
