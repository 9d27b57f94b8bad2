"""Columns in a query string: ``select=`` with the tables it embeds, and ``order=``."""

from __future__ import annotations

from typing import Literal

from reactive_worker.local.rest.query import AGGREGATES, Embedded, Field, JsonStep, OrderTerm, Selected
from reactive_worker.local.rest.scanner import Scanner

#: PostgreSQL takes 1,664 columns in one SELECT, those it sorts by included.
MOST_ITEMS = 800
#: Steps into a JSON value, and levels of and(...) and or(...): PostgreSQL's own limit is its stack.
DEEPEST = 100
#: Levels and number of embedded tables: each is a subquery, and planning them takes its time.
DEEPEST_EMBEDS, MOST_EMBEDS = 12, 60


def read_field(scanner: Scanner) -> Field:
    """A column, with a path into it where one follows."""
    name = scanner.name()
    steps: list[JsonStep] = []
    while scanner.peek(2) == "->":
        as_text = scanner.take("->>")
        if not as_text:
            scanner.expect("->")
        steps.append(JsonStep(scanner.json_key(), as_text))
        if len(steps) > DEEPEST:
            raise scanner.error(f"at most {DEEPEST} steps into a JSON value are possible")
        if as_text and scanner.peek(2) == "->":
            raise scanner.error("->> ends the path, as its result is text")
    return Field(name, tuple(steps))


# -- select ----------------------------------------------------------------------------------------


def parse_select(text: str) -> tuple[Selected | Embedded, ...]:
    """What ``select=`` says; nothing at all selects everything."""
    return _Select(Scanner(text, "select parameter")).whole() or (Selected(Field("*")),)


class _Select:
    """Reads one ``select=``, and counts what it asks for."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._items = 0
        self._embeds = 0

    def whole(self) -> tuple[Selected | Embedded, ...]:
        self._scanner.spaces()
        if self._scanner.at_end():
            return ()
        items = self._list(depth=0)
        if not self._scanner.at_end():
            self._scanner.expect(",")
        return items

    def _list(self, depth: int) -> tuple[Selected | Embedded, ...]:
        scanner = self._scanner
        items: list[Selected | Embedded] = []
        while True:
            scanner.spaces()
            items.append(self._item(depth))
            self._items += 1
            if self._items > MOST_ITEMS:
                raise scanner.error(f"at most {MOST_ITEMS} columns can be selected")
            scanner.spaces()
            if not scanner.take(","):
                return tuple(items)

    def _item(self, depth: int) -> Selected | Embedded:
        scanner = self._scanner
        if scanner.take("..."):
            return self._embedded(scanner.name(), None, depth, spread=True)
        if scanner.take("*"):
            return Selected(Field("*"))
        alias = None
        field = self._column()
        if scanner.peek(2) != "::" and scanner.take(":"):
            if field.path:
                raise scanner.error("an alias is a plain name")
            alias, field = field.name, self._column()
        if not field.path and (scanner.peek() == "!" or self._opens(field)):
            return self._embedded(field.name, alias, depth)
        return self._selected(field, alias)

    def _column(self) -> Field:
        # "count()" stands alone, for the number of rows.
        return Field("*") if self._scanner.peek(7) == "count()" else read_field(self._scanner)

    def _opens(self, field: Field) -> bool:
        return field.name != "*" and self._scanner.peek() == "("

    def _selected(self, field: Field, alias: str | None) -> Selected:
        scanner = self._scanner
        if field.name == "*" and scanner.take("count()"):
            return Selected(field, alias, aggregate="count", aggregate_cast=self._cast())
        cast = self._cast()
        if not scanner.take("."):
            return Selected(field, alias, cast)
        aggregate = scanner.word()
        if aggregate not in AGGREGATES:
            raise scanner.error(f"expecting {', '.join(AGGREGATES)}", back=len(aggregate))
        scanner.expect("()")
        return Selected(field, alias, cast, aggregate, self._cast())

    def _cast(self) -> str | None:
        return self._scanner.type_name() if self._scanner.take("::") else None

    def _embedded(self, name: str, alias: str | None, depth: int, *, spread: bool = False) -> Embedded:
        scanner = self._scanner
        hint, inner = None, None
        for _ in range(2):
            if not scanner.take("!"):
                break
            word = scanner.name()
            if word in ("inner", "left") and inner is None:
                inner = word == "inner"
            elif hint is None:
                hint = word
        scanner.expect("(")
        self._embeds += 1
        if depth >= DEEPEST_EMBEDS or self._embeds > MOST_EMBEDS:
            raise scanner.error(
                f"at most {MOST_EMBEDS} tables can be embedded, {DEEPEST_EMBEDS} levels deep at most"
            )
        scanner.spaces()
        select = () if scanner.peek() == ")" else self._list(depth + 1)
        scanner.expect(")")
        return Embedded(name, select, alias, hint, bool(inner), spread)


# -- order -----------------------------------------------------------------------------------------


def parse_order(text: str) -> tuple[OrderTerm, ...]:
    """What ``order=`` says."""
    scanner = Scanner(text, "order")
    terms: list[OrderTerm] = []
    while True:
        scanner.spaces()
        terms.append(_order_term(scanner))
        if len(terms) > MOST_ITEMS:
            raise scanner.error(f"at most {MOST_ITEMS} columns can be sorted by")
        scanner.spaces()
        if scanner.at_end():
            return tuple(terms)
        if scanner.peek() != ",":
            raise scanner.error("expecting asc, desc, nullsfirst, nullslast or a comma")
        scanner.expect(",")


def _order_term(scanner: Scanner) -> OrderTerm:
    field, relation = read_field(scanner), None
    if not field.path and scanner.take("("):
        relation, field = field.name, read_field(scanner)
        scanner.expect(")")
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
    return OrderTerm(field, direction, nulls, relation)
