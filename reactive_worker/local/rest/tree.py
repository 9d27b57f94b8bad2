"""A request's tables as a tree: the table it is about, and those embedded in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reactive_worker.local.rest.catalog import Catalog
from reactive_worker.local.rest.embed_errors import (
    aggregates_refused,
    ambiguous_embed,
    no_relationship,
    not_embedded,
    not_sortable,
)
from reactive_worker.local.rest.errors import unsupported
from reactive_worker.local.rest.hints import closest
from reactive_worker.local.rest.query import Clauses, Embedded, Field, OrderTerm, Path, Query, Selected
from reactive_worker.local.rest.relations import Name, Relations, Relationship, matching
from reactive_worker.local.rest.sql import SOURCE, is_star, quote


@dataclass
class Node:
    """A table, as one level of a request sees it."""

    table: Name
    #: What its rows come from, as SQL, and the name they go by; None: the source's own.
    source: str
    alias: str | None
    select: list[Selected]
    clauses: Clauses
    #: Types of its columns, by name, where they are known.
    types: Mapping[str, str] = field(default_factory=dict[str, str])
    children: list[Child] = field(default_factory=list["Child"])
    #: How its rows belong to the row it is embedded in, as SQL.
    joins: list[str] = field(default_factory=list[str])
    #: The table between the two.
    junction: str | None = None

    @property
    def ref(self) -> str:
        """SQL by which its columns are qualified."""
        return self.alias or self.source

    @property
    def aggregates(self) -> bool:
        """Whether it counts, sums and so on."""
        return any(item.aggregate is not None for item in self.select)


@dataclass
class Child:
    """An embedded table and what makes it one."""

    item: Embedded
    relationship: Relationship
    node: Node
    #: Of its rows in the statement, as SQL.
    name: str

    @property
    def to_one(self) -> bool:
        """Whether it is an object in the answer, and no list."""
        return self.relationship.to_one

    def called(self, name: str) -> bool:
        """Whether a clause for `name` is meant for it."""
        return name in (self.item.name, self.item.alias)


@dataclass(frozen=True)
class Root:
    """The table a request is about.

    Parameters
    ----------
    table:
        Schema and name.
    types:
        Types of its columns.
    written:
        False: its rows are read; True: they are what a write or a call gives.
    """

    table: Name
    types: Mapping[str, str]
    written: bool = False


class Trees:
    """Makes trees with what the catalog knows.

    Parameters
    ----------
    catalog:
        Tables and relationships.
    schemas:
        Those that are exposed.
    """

    def __init__(self, catalog: Catalog, schemas: Sequence[str]) -> None:
        self._catalog = catalog
        self._schemas = schemas

    async def of(self, root: Root, query: Query, *, aggregates: bool, conditions: bool = True) -> Node:
        """The tree of a request.

        Parameters
        ----------
        aggregates:
            Whether aggregate functions may be used.
        conditions:
            Whether the request's own conditions are about what is shown; those of a write are not.

        Raises
        ------
        ApiError
            A table cannot be embedded, or is not embedded and spoken of all the same.
        """
        schema, name = root.table
        own = query.conditions if conditions else ()
        node = Node(
            root.table,
            SOURCE if root.written else f"{quote(schema)}.{quote(name)}",
            quote(name) if root.written else None,
            [],
            Clauses(own, query.order, query.limit, query.offset),
            root.types,
        )
        relations: Relations | None = None
        if any(isinstance(item, Embedded) for item in query.select):
            relations = await self._catalog.relations()
        await _Grower(self._catalog, self._schemas, relations).grow(node, query.select)
        for path, clauses in query.embedded.items():
            _give(node, path, clauses)
        _check(node, aggregates=aggregates, expand=False)
        return node


class _Grower:
    """Embeds tables in one tree."""

    def __init__(self, catalog: Catalog, schemas: Sequence[str], relations: Relations | None) -> None:
        self._catalog = catalog
        self._schemas = schemas
        self._relations = relations
        self._embedded = 0

    async def grow(self, node: Node, select: Sequence[Selected | Embedded]) -> None:
        """Give a node its columns and children."""
        for item in select:
            if isinstance(item, Selected):
                node.select.append(item)
            else:
                node.children.append(await self._child(node, item))
        if not node.select and not node.children:
            node.select.append(Selected(Field("*")))

    async def _child(self, parent: Node, item: Embedded) -> Child:
        relationship = self._relationship(parent, item)
        self._embedded += 1
        schema, name = relationship.other
        alias = quote(f"{name}_{self._embedded}")
        source = f"{quote(schema)}.{quote(name)}"
        joins: list[str] = []
        junction = None
        if relationship.function is not None:
            owner, function = (quote(part) for part in relationship.function)
            # Overloads are told apart by the row's type.
            row = parent.alias or quote(parent.table[1])
            row += f"::{'.'.join(quote(part) for part in relationship.table)}"
            source = f"{owner}.{function}({row})"
        elif relationship.junction is not None:
            between = relationship.junction
            link = quote(f"{between.table[1]}_{self._embedded}_link")
            junction = f"{quote(between.table[0])}.{quote(between.table[1])} as {link}"
            joins += _equal(link, alias, between.to_other)
            joins += _equal(link, parent.ref, between.to_table)
        else:
            joins += _equal(parent.ref, alias, relationship.columns)
        table = await self._catalog.table(schema, name)
        types = table.types if table else {}
        node = Node(relationship.other, source, alias, [], Clauses(), types, [], joins, junction)
        await self.grow(node, item.select)
        label = quote(f"{parent.table[1]}_{item.shown}_{self._embedded}")
        return Child(item, relationship, node, label)

    def _relationship(self, parent: Node, item: Embedded) -> Relationship:
        relations = self._relations
        schema, origin = parent.table
        known = [] if relations is None else relations.of(parent.table, (schema, *self._schemas))
        found = matching(known, item.name, item.hint)
        if len(found) == 1:
            return found[0]
        if found:
            raise ambiguous_embed(origin, item.name, found)
        alike = None
        if known:
            others = [each.other[1] for each in known]
            alike = (item.name, closest(item.name, others)) if item.name not in others else None
        elif relations is not None:
            alike = (origin, closest(origin, relations.tables(schema)))
        raise no_relationship(schema, origin, item.name, item.hint, alike)


def _equal(one: str, other: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{one}.{quote(own)} = {other}.{quote(theirs)}" for own, theirs in pairs]


def _give(node: Node, path: Path, clauses: Clauses) -> None:
    """Hand clauses to the embedded table they are meant for."""
    for step in path:
        child = next((each for each in node.children if each.called(step)), None)
        if child is None:
            raise not_embedded(step)
        node = child.node
    node.clauses = clauses


def _check(node: Node, *, aggregates: bool, expand: bool) -> None:
    """Refuse what cannot be, and name all columns where that is needed."""
    if node.aggregates and not aggregates:
        raise aggregates_refused()
    expand = expand or node.aggregates or any(_hoists(child) for child in node.children)
    if expand and node.types:
        node.select = [column for item in node.select for column in _expanded(item, node.types)]
    for term in node.clauses.order:
        _check_order(node, term)
    for child in node.children:
        many = child.item.spread and not child.to_one
        if many and (child.node.aggregates or any(_hoists(each) for each in child.node.children)):
            raise unsupported("aggregates in one-to-many and many-to-many spreads")
        _check(child.node, aggregates=aggregates, expand=expand or many)


def _expanded(item: Selected, types: Mapping[str, str]) -> Iterator[Selected]:
    if is_star(item):
        yield from (replace(item, field=Field(name)) for name in types)
    else:
        yield item


def _hoists(child: Child) -> bool:
    """Whether the aggregates of a spread table are those of the table it is spread into."""
    if not (child.item.spread and child.to_one):
        return False
    return child.node.aggregates or any(_hoists(each) for each in child.node.children)


def _check_order(node: Node, term: OrderTerm) -> None:
    if term.relation is None:
        return
    child = next((each for each in node.children if each.item.shown == term.relation), None)
    if child is None:
        raise not_embedded(term.relation)
    if not child.to_one:
        raise not_sortable(node.table[1], term.relation)


def needed_columns(node: Node, key: Sequence[str]) -> list[str]:
    """Columns of the root that what is selected needs: those, and those that join the embedded tables.

    Parameters
    ----------
    key:
        The primary key: a write gives it in any case.

    Returns
    -------
    list[str]
        ``["*"]`` for all.
    """
    names = [item.field.name for item in node.select]
    computed = any(child.relationship.function is not None for child in node.children)
    if "*" in names or computed:
        return ["*"]
    for child in node.children:
        relationship = child.relationship
        pairs = relationship.junction.to_table if relationship.junction else relationship.columns
        names += [theirs if relationship.junction else own for own, theirs in pairs]
    return list(dict.fromkeys((*names, *key)))
