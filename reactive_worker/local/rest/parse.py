"""The query string of a REST request, as a value. Pure: no SQL here, and nothing is known of the database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote_plus

from reactive_worker.local.rest.conditions import column_filter, logic_parameter, starts_with_operator
from reactive_worker.local.rest.errors import ApiError, bad_range, parse_error
from reactive_worker.local.rest.fields import parse_order, parse_select, read_field
from reactive_worker.local.rest.query import Clauses, Field, Filter, Logic, OrderTerm, Path, Query
from reactive_worker.local.rest.scanner import Scanner

_RESERVED = frozenset({"select", "columns", "on_conflict"})
#: The last word of a key that says something about a table, which the words before it name.
_CLAUSES = frozenset({"order", "limit", "offset", "and", "or"})
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
#: Characters of a query string that is remembered together with what it means.
_LONGEST_REMEMBERED = 2048


def parse_query(text: str, *, rpc_arguments: bool = False) -> Query:
    """Parse a query string.

    Parameters
    ----------
    text:
        The query string as sent, still percent-encoded.
    rpc_arguments:
        True for an rpc by GET: keys whose value does not start with an operator are arguments.

    Raises
    ------
    ApiError
        ``PGRST100``: not understood; ``PGRST103``: range.
    """
    # Long ones hardly ever come twice, and remembering them would fill the memory.
    parse = _remembered if len(text) <= _LONGEST_REMEMBERED else _parse
    return parse(text, rpc_arguments)


@dataclass
class _Clauses:
    """`Clauses` in the making."""

    conditions: list[Filter | Logic] = field(default_factory=list[Filter | Logic])
    order: tuple[OrderTerm, ...] = ()
    limit: int | None = None
    offset: int = 0

    def done(self) -> Clauses:
        return Clauses(tuple(self.conditions), self.order, self.limit, self.offset)


def _parse(text: str, rpc_arguments: bool) -> Query:
    single: dict[str, str] = {}
    tables: dict[Path, _Clauses] = {(): _Clauses()}
    arguments: list[tuple[str, str]] = []
    for key, value in _pairs(text):
        if key in _RESERVED:
            single[key] = value
        elif key == "apikey":
            # The gateway in front of PostgREST takes a key from here and removes it.
            continue
        elif key.rpartition(".")[2] in _CLAUSES:
            _clause(key, value, tables)
        elif rpc_arguments and not starts_with_operator(value):
            arguments.append((key, value))
        else:
            path, column = _column(key)
            tables.setdefault(path, _Clauses()).conditions.append(column_filter(column, value))
    root = tables.pop(())
    return Query(
        select=parse_select(single["select"]) if "select" in single else Query.select,
        conditions=tuple(root.conditions),
        order=root.order,
        limit=root.limit,
        offset=root.offset,
        columns=_names("columns", single["columns"]) if "columns" in single else None,
        on_conflict=_names("on_conflict", single["on_conflict"]) if "on_conflict" in single else None,
        arguments=tuple(arguments),
        embedded={path: clauses.done() for path, clauses in tables.items()},
    )


_remembered = lru_cache(maxsize=256)(_parse)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for part in text.split("&"):
        if not part:
            continue
        raw_key, _, raw_value = part.partition("=")
        try:
            key = unquote_plus(raw_key, errors="strict")
            value = unquote_plus(raw_value, errors="strict")
        except UnicodeDecodeError:
            raise ApiError(400, "PGRST100", "the query string is not UTF-8") from None
        yield key, value


def _clause(key: str, value: str, tables: dict[Path, _Clauses]) -> None:
    """``order``, ``limit``, ``offset``, ``and`` or ``or``, of the request's table or of an embedded one."""
    *path, word = _path(key)
    negated = word in ("and", "or") and "not" in path
    if negated:
        path = [name for name in path if name != "not"]
    clauses = tables.setdefault(tuple(path), _Clauses())
    if word == "order":
        clauses.order = parse_order(value)
    elif word == "limit":
        clauses.limit = _number("limit", value)
    elif word == "offset":
        clauses.offset = _number("offset", value)
    else:
        clauses.conditions.append(logic_parameter(value, "and" if word == "and" else "or", negated=negated))


def _path(key: str) -> list[str]:
    scanner = Scanner(key, "tree path")
    names = [scanner.name()]
    while scanner.take("."):
        names.append(scanner.name())
    if not scanner.at_end():
        raise scanner.error("a column name is expected")
    return names


def _column(key: str) -> tuple[Path, Field]:
    """The column a condition is about, and the table it belongs to."""
    scanner = Scanner(key, "tree path")
    path: list[str] = []
    while True:
        found = read_field(scanner)
        if scanner.at_end():
            return tuple(path), found
        if found.path or not scanner.take("."):
            raise scanner.error("a column name is expected")
        path.append(found.name)


def _number(name: str, text: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(text):
        raise parse_error(f"{name} parameter", text, 0, "a whole number is expected")
    if text.startswith("-"):
        raise bad_range(f"{name.capitalize()} should be greater than or equal to zero.")
    return int(text)


def _names(what: str, text: str) -> tuple[str, ...]:
    scanner = Scanner(text, f"{what} parameter")
    names: list[str] = []
    while True:
        names.append(scanner.quoted() if scanner.peek() == '"' else scanner.until(",").strip())
        if not names[-1]:
            raise scanner.error("a column name is expected")
        if scanner.at_end():
            return tuple(names)
        scanner.expect(",")
