"""Conditions of a query string: ``column=op.value``, ``and=(...)``, ``or=(...)``."""

from __future__ import annotations

from typing import Literal

from reactive_worker.local.rest.fields import DEEPEST, read_field
from reactive_worker.local.rest.query import COMPARISONS, FULL_TEXT, Field, Filter, Logic
from reactive_worker.local.rest.scanner import Scanner

_QUANTIFIABLE = frozenset({"eq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch"})
_IS_VALUES = {
    "null": "is null",
    "not_null": "is not null",
    "true": "is true",
    "false": "is false",
    "unknown": "is unknown",
}


def column_filter(field: Field, value: str) -> Filter:
    """The condition ``value`` says about a column."""
    scanner = Scanner(value, "filter")
    found = _operation(scanner, field, inside_logic=False)
    if not scanner.at_end():
        raise scanner.error("nothing more is expected")
    return found


def starts_with_operator(value: str) -> bool:
    """Whether a value of an rpc by GET is a condition, and no argument."""
    word, dot, rest = value.partition(".")
    if not dot:
        return False
    if word == "not":
        return starts_with_operator(rest)
    head, bracket, _ = word.partition("(")
    return word in COMPARISONS or word in ("in", "is") or (head if bracket else word) in _CALLED


_CALLED = frozenset(FULL_TEXT) | _QUANTIFIABLE


def logic_parameter(value: str, joiner: Literal["and", "or"], *, negated: bool) -> Logic:
    """The tree in ``and=(...)`` or ``not.or=(...)``."""
    scanner = Scanner(value, "logic tree")
    tree = _logic(scanner, joiner, negated=negated)
    if not scanner.at_end():
        raise scanner.error("nothing more is expected")
    return tree


def _operation(scanner: Scanner, field: Field, *, inside_logic: bool) -> Filter:
    negated = scanner.take("not.")
    operator = scanner.word()
    if operator in FULL_TEXT:
        language = scanner.language() if scanner.peek() == "(" else None
        scanner.expect(".")
        value = scanner.logic_value() if inside_logic else scanner.remainder()
        return Filter(field, operator, value, negated, language=language)
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


def _logic(scanner: Scanner, joiner: Literal["and", "or"], *, negated: bool, depth: int = 1) -> Logic:
    if depth > DEEPEST:
        raise scanner.error(f"conditions can be nested {DEEPEST} levels deep at most")
    scanner.expect("(")
    children: list[Filter | Logic] = []
    while True:
        scanner.spaces()
        children.append(_logic_item(scanner, depth))
        scanner.spaces()
        if scanner.take(")"):
            return Logic(joiner, tuple(children), negated)
        scanner.expect(",")


def _logic_item(scanner: Scanner, depth: int) -> Filter | Logic:
    for prefix in ("and", "or", "not.and", "not.or"):
        if scanner.peek(len(prefix) + 1) == f"{prefix}(":
            scanner.take(prefix)
            joiner: Literal["and", "or"] = "and" if prefix.endswith("and") else "or"
            return _logic(scanner, joiner, negated=prefix.startswith("not."), depth=depth + 1)
    field = read_field(scanner)
    scanner.expect(".")
    return _operation(scanner, field, inside_logic=True)
