"""How tables, views and functions belong together, and which relationship a request means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from reactive_worker.local.rest.views import Column, base_columns, view_columns

#: Schema and name.
Name = tuple[str, str]
#: A column of the one and the column of the other that it equals.
Pairs = tuple[tuple[str, str], ...]
Kind = Literal["many-to-one", "one-to-many", "one-to-one", "many-to-many", "computed"]


@dataclass(frozen=True)
class Junction:
    """The table between two others, and the two foreign keys it consists of."""

    table: Name
    constraints: tuple[str, str]
    #: Columns of the junction and those of the table, and of the other table, they refer to.
    to_table: Pairs
    to_other: Pairs


@dataclass(frozen=True)
class Relationship:
    """From rows of a table to rows of another."""

    table: Name
    other: Name
    kind: Kind
    #: Name of the foreign key; of the function for a computed one.
    name: str
    columns: Pairs = ()
    other_is_view: bool = False
    table_is_view: bool = False
    junction: Junction | None = None
    #: The function of a computed relationship, and whether it gives one row at most.
    function: Name | None = None
    single: bool = False

    @property
    def to_one(self) -> bool:
        """Whether a row has one row of the other table at most."""
        return self.single if self.function else self.kind in ("many-to-one", "one-to-one")

    @property
    def to_itself(self) -> bool:
        """Whether both are the same table."""
        return self.table == self.other and self.function is None


class Relations:
    """All relationships of a database.

    Parameters
    ----------
    found:
        The object of ``relations.sql``.
    """

    def __init__(self, found: Mapping[str, Any]) -> None:
        relations: dict[int, Any] = {each["oid"]: each for each in found["relations"]}
        self._names: dict[int, Name] = {oid: (r["schema"], r["name"]) for oid, r in relations.items()}
        self._columns: dict[int, dict[int, str]] = {
            oid: {int(number): name for number, name in r["columns"].items()} for oid, r in relations.items()
        }
        self._shown = base_columns(
            {oid: view_columns(r["definition"]) for oid, r in relations.items() if r["definition"]}
        )
        #: Columns of the primary key; of a view those that show the keys of its tables.
        self.keys: dict[Name, tuple[str, ...]] = {}
        for oid, relation in relations.items():
            if oid not in self._shown and relation["key"]:
                self.keys[self._names[oid]] = tuple(self._columns[oid][n] for n in relation["key"])
        for view, shown in self._shown.items():
            self.keys[self._names[view]] = tuple(self._view_key(view, shown, relations))
        references = [each for key in found["constraints"] for each in self._references(key)]
        direct = [*references, *(_inverse(each) for each in references)]
        self._all: dict[Name, list[Relationship]] = {}
        for each in (*direct, *_through_junctions(references, self.keys)):
            self._all.setdefault(each.table, []).append(each)
        for function in found["functions"]:
            self._computed(function)

    # -- building ------------------------------------------------------------------------------------

    def _view_key(
        self, view: int, shown: Mapping[Column, Sequence[int]], relations: Mapping[int, Any]
    ) -> Iterator[str]:
        for table in dict.fromkeys(origin for origin, _ in shown):
            key: Sequence[int] = (relations[table]["key"] or ()) if table in relations else ()
            if all((table, number) in shown for number in key):
                yield from (self._columns[view][shown[table, number][0]] for number in key)

    def _references(self, key: Mapping[str, Any]) -> Iterator[Relationship]:
        """A foreign key between two tables, and between the views that show its columns."""
        kind: Kind = "one-to-one" if key["unique"] else "many-to-one"
        for table, columns in self._sides(key["table"], key["columns"]):
            for other, others in self._sides(key["other"], key["others"]):
                yield Relationship(
                    self._names[table],
                    self._names[other],
                    kind,
                    key["name"],
                    tuple(zip(columns, others, strict=True)),
                    other_is_view=other in self._shown,
                    table_is_view=table in self._shown,
                )

    def _sides(self, table: int, numbers: Sequence[int]) -> Iterator[tuple[int, tuple[str, ...]]]:
        """A table with some of its columns, and each view that shows all of them, in every way it does."""
        yield table, tuple(self._columns[table][number] for number in numbers)
        for view, shown in self._shown.items():
            ways = [shown.get((table, number), ()) for number in numbers]
            for way in product(*ways):
                yield view, tuple(self._columns[view][number] for number in way)

    def _computed(self, function: Mapping[str, Any]) -> None:
        table, name = self._names[function["table"]], (function["schema"], function["name"])
        known = self._all.setdefault(table, [])
        # It stands for the relationship that would be found by its name.
        known[:] = [each for each in known if each.function or each.other != name]
        known.append(
            Relationship(
                table,
                self._names[function["other"]],
                "computed",
                function["name"],
                function=name,
                single=function["single"],
            )
        )

    # -- asking --------------------------------------------------------------------------------------

    def of(self, table: Name, schemas: Iterable[str]) -> list[Relationship]:
        """The relationships of a table whose other side, and junction, can be seen.

        Parameters
        ----------
        schemas:
            Those that are exposed; the other side must be in the first.
        """
        first, *more = schemas
        exposed = {first, *more}
        return [
            each
            for each in self._all.get(table, ())
            if (each.function or each.other)[0] == first
            and (each.junction is None or each.junction.table[0] in exposed)
        ]

    def tables(self, schema: str) -> list[str]:
        """Names of the tables of a schema that have relationships, for hints."""
        return [name for of, name in self._all if of == schema]


def _inverse(reference: Relationship) -> Relationship:
    return replace(
        reference,
        table=reference.other,
        other=reference.table,
        kind="one-to-one" if reference.kind == "one-to-one" else "one-to-many",
        columns=tuple((other, own) for own, other in reference.columns),
        table_is_view=reference.other_is_view,
        other_is_view=reference.table_is_view,
    )


def _through_junctions(
    references: Sequence[Relationship], keys: Mapping[Name, Sequence[str]]
) -> Iterator[Relationship]:
    """A table with two foreign keys whose columns are part of its primary key joins many to many."""
    by_table: dict[Name, list[Relationship]] = {}
    for each in references:
        by_table.setdefault(each.table, []).append(each)
    for junction, there in by_table.items():
        key = set(keys.get(junction, ()))
        for one, two in product(there, there):
            if one.kind != "many-to-one" or two.kind != "many-to-one" or one.name == two.name:
                continue
            if not {own for own, _ in (*one.columns, *two.columns)} <= key:
                continue
            yield Relationship(
                one.other,
                two.other,
                "many-to-many",
                junction[1],
                other_is_view=two.other_is_view,
                table_is_view=one.other_is_view,
                junction=Junction(junction, (one.name, two.name), one.columns, two.columns),
            )


def matching(relationships: Iterable[Relationship], target: str, hint: str | None) -> list[Relationship]:
    """The relationships that ``target!hint(...)`` can mean.

    Parameters
    ----------
    relationships:
        Those of the table it is embedded in.
    target:
        Another table; or, where that is no view, the foreign key or its only column; or a function.
    hint:
        The foreign key, its only column on either side, or the table between the two.
    """
    return [each for each in relationships if _means(each, target, hint)]


def _means(each: Relationship, target: str, hint: str | None) -> bool:
    if each.function is not None:
        return target == each.function[1]
    named = target == each.other[1]
    own, other = each.columns[0] if len(each.columns) == 1 else ("", "")
    if each.to_itself:
        # One foreign key, seen from both ends: the table's name means its children, the column its parent.
        if hint is not None:
            return named and each.kind == "one-to-many" and other == hint
        return (named and each.kind == "one-to-many") or (each.kind == "many-to-one" and own == target)
    if hint is not None:
        junction = each.junction.table[1] if each.junction else None
        foreign_key = each.name if each.junction is None else None
        return named and hint in (foreign_key, own, other, junction)
    by_key = each.junction is None and target in (each.name, own)
    return named or (by_key and not each.other_is_view)
