"""The query string of a REST request, as a value. Pure: no SQL here, and nothing is known of the database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote_plus

from reactive_worker.local.rest.errors import ApiError, bad_range, parse_error, unsupported
from reactive_worker.local.rest.query import (
    COMPARISONS,
    Field,
    Filter,
    JsonStep,
    Logic,
    OrderTerm,
    Query,
    Selected,
)
from reactive_worker.local.rest.scanner import Scanner

_QUANTIFIABLE = frozenset({"eq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch"})
_FULL_TEXT = frozenset({"fts", "plfts", "phfts", "wfts"})
_IS_VALUES = {
    "null": "is null",
    "not_null": "is not null",
    "true": "is true",
    "false": "is false",
    "unknown": "is unknown",
}
_RESERVED = frozenset({"select", "columns", "on_conflict", "order", "limit", "offset"})
_LOGIC = frozenset({"and", "or", "not.and", "not.or"})
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
_AGGREGATE = re.compile(r"\.(?:avg|count|max|min|sum)\(\)")
#: Characters of a query string that is remembered together with what it means.
_LONGEST_REMEMBERED = 2048
#: PostgreSQL takes 1,664 columns in one SELECT, those it sorts by included.
_MOST_ITEMS = 800
#: Steps into a JSON value, and levels of and(...) and or(...): PostgreSQL's own limit is its stack.
_DEEPEST = 100


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
        ``PGRST100``: not understood; ``PGRST127``: understood, but not supported; ``PGRST103``: range.
    """
    # Long ones hardly ever come twice, and remembering them would fill the memory.
    parse = _remembered if len(text) <= _LONGEST_REMEMBERED else _parse
    return parse(text, rpc_arguments)


def _parse(text: str, rpc_arguments: bool) -> Query:
    single: dict[str, str] = {}
    conditions: list[Filter | Logic] = []
    arguments: list[tuple[str, str]] = []
    for key, value in _pairs(text):
        if key in _RESERVED:
            single[key] = value
        elif key in _LOGIC:
            conditions.append(_logic_parameter(key, value))
        elif key == "apikey":
            # The gateway in front of PostgREST takes a key from here and removes it.
            continue
        elif rpc_arguments and not _starts_with_operator(value):
            arguments.append((key, value))
        else:
            conditions.append(_column_filter(key, value))
    return Query(
        select=_select(single["select"]) if "select" in single else Query.select,
        conditions=tuple(conditions),
        order=_order(single["order"]) if "order" in single else (),
        limit=_number("limit", single["limit"]) if "limit" in single else None,
        offset=_number("offset", single["offset"]) if "offset" in single else 0,
        columns=_names("columns", single["columns"]) if "columns" in single else None,
        on_conflict=_names("on_conflict", single["on_conflict"]) if "on_conflict" in single else None,
        arguments=tuple(arguments),
        selects=bool(single.get("select", "").strip()),
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


# -- select and order ------------------------------------------------------------------------------


def _select(text: str) -> tuple[Selected, ...]:
    scanner = Scanner(text, "select parameter")
    if _AGGREGATE.search(text):
        raise ApiError(400, "PGRST123", "Use of aggregate functions is not allowed")
    items: list[Selected] = []
    scanner.spaces()
    # `select=` without anything selects everything, as no select does.
    if scanner.at_end():
        return Query.select
    while True:
        items.append(_select_item(scanner))
        if len(items) > _MOST_ITEMS:
            raise scanner.error(f"at most {_MOST_ITEMS} columns can be selected")
        scanner.spaces()
        if scanner.at_end():
            return tuple(items)
        scanner.expect(",")
        scanner.spaces()


def _select_item(scanner: Scanner) -> Selected:
    if scanner.take("..."):
        raise unsupported("embedding (spread) of related tables")
    if scanner.take("*"):
        return Selected(Field("*"))
    if scanner.peek(7) == "count()":
        raise ApiError(400, "PGRST123", "Use of aggregate functions is not allowed")
    field = _field(scanner)
    alias = None
    if scanner.peek(2) != "::" and scanner.take(":"):
        if field.path:
            raise scanner.error("an alias is a plain name")
        alias, field = field.name, _field(scanner)
    if scanner.peek() in ("(", "!"):
        raise unsupported(f"embedding of related tables ({field.name})")
    if scanner.peek() == ".":
        raise unsupported("aggregates in select")
    cast = None
    if scanner.take("::"):
        cast = scanner.type_name()
        if scanner.peek() == ".":
            raise unsupported("aggregates in select")
    return Selected(field, alias, cast)


def _field(scanner: Scanner) -> Field:
    name = scanner.name()
    steps: list[JsonStep] = []
    while scanner.peek(2) == "->":
        as_text = scanner.take("->>")
        if not as_text:
            scanner.expect("->")
        steps.append(JsonStep(scanner.json_key(), as_text))
        if len(steps) > _DEEPEST:
            raise scanner.error(f"at most {_DEEPEST} steps into a JSON value are possible")
        if as_text and scanner.peek(2) == "->":
            raise scanner.error("->> ends the path, as its result is text")
    return Field(name, tuple(steps))


def _order(text: str) -> tuple[OrderTerm, ...]:
    scanner = Scanner(text, "order")
    terms: list[OrderTerm] = []
    while True:
        scanner.spaces()
        field = _field(scanner)
        if scanner.peek() == "(":
            raise unsupported("ordering by related tables")
        direction: Literal["asc", "desc"] | None = None
        nulls: Literal["first", "last"] | None = None
        if scanner.take(".asc"):
            direction = "asc"
        elif scanner.take(".desc"):
            direction = "desc"
        if scanner.take(".nullsfirst"):
            nulls = "first"
        elif scanner.take(".nullslast"):
            nulls = "last"
        terms.append(OrderTerm(field, direction, nulls))
        if len(terms) > _MOST_ITEMS:
            raise scanner.error(f"at most {_MOST_ITEMS} columns can be sorted by")
        scanner.spaces()
        if scanner.at_end():
            return tuple(terms)
        if scanner.peek() != ",":
            raise scanner.error("expecting asc, desc, nullsfirst, nullslast or a comma")
        scanner.expect(",")


# -- filters ---------------------------------------------------------------------------------------


def _column_filter(key: str, value: str) -> Filter:
    name = Scanner(key, "filter")
    field = _field(name)
    if name.peek() == ".":
        raise unsupported(f"filtering by related tables ({key})")
    if not name.at_end():
        raise name.error("a column name is expected")
    scanner = Scanner(value, "filter")
    found = _operation(scanner, field, inside_logic=False)
    if not scanner.at_end():
        raise scanner.error("nothing more is expected")
    return found


def _starts_with_operator(value: str) -> bool:
    word, dot, rest = value.partition(".")
    if not dot:
        return False
    if word == "not":
        return _starts_with_operator(rest)
    word = word.removesuffix("(any)").removesuffix("(all)")
    return word in COMPARISONS or word in ("in", "is") or word in _FULL_TEXT


def _operation(scanner: Scanner, field: Field, *, inside_logic: bool) -> Filter:
    negated = scanner.take("not.")
    operator = scanner.word()
    if operator in _FULL_TEXT:
        raise unsupported(f"full text search ({operator})")
    if operator not in COMPARISONS and operator not in ("in", "is"):
        raise scanner.error(
            f'unexpected "{operator}" expecting an operator (eq, gt, in, is, like, ...)', back=len(operator)
        )
    quantifier: Literal["any", "all"] | None = None
    if scanner.take("(any)"):
        quantifier = "any"
    elif scanner.take("(all)"):
        quantifier = "all"
    if quantifier is not None and operator not in _QUANTIFIABLE:
        raise scanner.error(f"{operator} cannot be combined with ({quantifier})")
    scanner.expect(".")
    if operator == "in":
        return Filter(field, operator, _list(scanner), negated)
    value = scanner.logic_value() if inside_logic else scanner.remainder()
    if operator == "is":
        if value.lower() not in _IS_VALUES:
            raise scanner.error("expecting null, not_null, true, false or unknown", back=len(value))
        return Filter(field, operator, _IS_VALUES[value.lower()], negated)
    return Filter(field, operator, value, negated, quantifier)


def _list(scanner: Scanner) -> tuple[str, ...]:
    scanner.expect("(")
    if scanner.take(")"):
        return ()
    items: list[str] = []
    while True:
        items.append(scanner.list_item())
        if scanner.take(")"):
            return tuple(items)
        scanner.expect(",")


def _logic_parameter(key: str, value: str) -> Logic:
    scanner = Scanner(value, "logic tree")
    tree = _logic(scanner, key.removeprefix("not."), negated=key.startswith("not."))
    if not scanner.at_end():
        raise scanner.error("nothing more is expected")
    return tree


def _logic(scanner: Scanner, joiner: str, *, negated: bool, depth: int = 1) -> Logic:
    if depth > _DEEPEST:
        raise scanner.error(f"conditions can be nested {_DEEPEST} levels deep at most")
    scanner.expect("(")
    children: list[Filter | Logic] = []
    while True:
        scanner.spaces()
        children.append(_logic_item(scanner, depth))
        scanner.spaces()
        if scanner.take(")"):
            return Logic("and" if joiner == "and" else "or", tuple(children), negated)
        scanner.expect(",")


def _logic_item(scanner: Scanner, depth: int) -> Filter | Logic:
    for prefix in ("and", "or", "not.and", "not.or"):
        if scanner.peek(len(prefix) + 1) == f"{prefix}(":
            scanner.take(prefix)
            joiner, negated = prefix.removeprefix("not."), prefix.startswith("not.")
            return _logic(scanner, joiner, negated=negated, depth=depth + 1)
    field = _field(scanner)
    scanner.expect(".")
    return _operation(scanner, field, inside_logic=True)
