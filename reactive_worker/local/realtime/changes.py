"""From committed changes to what each subscriber gets: rendering, filters, rights and row level security.

Work is done for a whole batch at once, so that its cost in statements does not grow with its rows: the
catalog is read once, values are rendered by type, filters judged by filter, and visibility is checked once
for each role, claims and table.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

import psycopg
from psycopg import sql

from reactive_worker.local.realtime.catalog import Table, load_tables
from reactive_worker.local.realtime.database import AnyConnection, Database
from reactive_worker.local.realtime.decode import UNCHANGED, Value
from reactive_worker.local.realtime.filters import Filter, evaluate
from reactive_worker.local.realtime.payload import (
    NO_KEY,
    NO_RIGHTS,
    Change,
    View,
    change_data,
    problem_data,
)
from reactive_worker.local.realtime.render import Pending, Renderer, plain, type_sql
from reactive_worker.local.realtime.subscriptions import Registry, Subscriber, Subscription

log = logging.getLogger(__name__)

#: Table, role, selected columns.
ViewKey = tuple[int, str, frozenset[str] | None]


class ChangeProcessor:
    """Turns batches of changes into deliveries.

    Parameters
    ----------
    database:
        A superuser's connection, used for nothing else at the same time.
    registry:
        Who is subscribed.
    renderer:
        Shared, for what it remembers of types.
    """

    def __init__(self, database: Database, registry: Registry, renderer: Renderer) -> None:
        self._database = database
        self._registry = registry
        self._renderer = renderer

    async def deliver(self, changes: Sequence[Change]) -> int:
        """Give every subscriber what it wants and may see of a batch, in commit order.

        Returns
        -------
        How many changes somebody was subscribed to.

        Raises
        ------
        psycopg.OperationalError
            The database went away; nothing was delivered, the batch may be tried again.
        """
        wanted = [change for change in changes if self._registry.on(change.relation.oid)]
        if not wanted:
            return 0
        oids = {change.relation.oid for change in wanted}
        roles = {entry.role for oid in oids for entry in self._registry.on(oid)}
        for change in wanted:
            change.prepare()
        async with self._database.connection() as connection:
            tables = await load_tables(connection, oids, roles)
            await self._render(connection, wanted)
            matches = await self._match(connection, wanted)
            visible = await self._visible(connection, wanted, tables, matches)
        views: dict[ViewKey, View] = {}
        for index, change in enumerate(wanted):
            if table := tables.get(change.relation.oid):
                self._send(change, table, matches[index], visible, index, views)
        return len(wanted)

    async def _render(self, connection: AnyConnection, changes: Sequence[Change]) -> None:
        pending: set[Pending] = set()
        holes: list[tuple[dict[str, str], str, Pending]] = []
        for change in changes:
            types = {column.name: column.type_oid for column in change.relation.columns}
            for values, target in ((change.record, change.json), (change.identity, change.identity_json)):
                for name, value in values.items():
                    if value is None:
                        target[name] = "null"
                    elif isinstance(value, str):
                        text = plain(types[name], value)
                        if text is None:
                            holes.append((target, name, (types[name], value)))
                            pending.add((types[name], value))
                        else:
                            target[name] = text
        if pending:
            rendered = await self._renderer.render(connection, pending)
            for target, name, key in holes:
                target[name] = rendered[key]

    async def _match(
        self, connection: AnyConnection, changes: Sequence[Change]
    ) -> list[list[tuple[Subscription, bool]]]:
        """For each change: the subscriptions to its table and kind, and whether their filters let it pass."""
        questions: set[tuple[Filter, str]] = set()
        decided: list[list[tuple[Subscription, list[bool | tuple[Filter, str]]]]] = []
        for change in changes:
            entries: list[tuple[Subscription, list[bool | tuple[Filter, str]]]] = []
            for entry in self._registry.on(change.relation.oid):
                if not entry.wants(change.event):
                    continue
                verdicts: list[bool | tuple[Filter, str]] = []
                for condition in entry.filters:
                    answer = condition.decide(change.judged.get(condition.column, UNCHANGED))
                    verdict = answer if isinstance(answer, bool) else (condition, answer)
                    verdicts.append(verdict)
                    if verdict is False:
                        break
                questions.update(verdict for verdict in verdicts if not isinstance(verdict, bool))
                entries.append((entry, verdicts))
            decided.append(entries)
        answers = await evaluate(connection, questions) if questions else {}
        return [
            [
                (
                    entry,
                    all(verdict if isinstance(verdict, bool) else answers[verdict] for verdict in verdicts),
                )
                for entry, verdicts in entries
            ]
            for entries in decided
        ]

    async def _visible(
        self,
        connection: AnyConnection,
        changes: Sequence[Change],
        tables: dict[int, Table],
        matches: Sequence[Sequence[tuple[Subscription, bool]]],
    ) -> set[tuple[int, str, str]]:
        """Which (change, role, claims) pass row level security, asked as that role and now, not then."""
        groups: defaultdict[tuple[int, str, str], list[int]] = defaultdict(list)
        for index, change in enumerate(changes):
            table = tables.get(change.relation.oid)
            if table is None or not table.row_security or change.event == "DELETE":
                continue
            askers = {(entry.role, entry.claims) for entry, passes in matches[index] if passes}
            for role, claims in askers:
                if table.key and all(role in column.readers for column in table.key):
                    groups[table.oid, role, claims].append(index)
        seen: set[tuple[int, str, str]] = set()
        for (oid, role, claims), indexes in groups.items():
            rows = [
                [changes[index].record.get(column.name) for column in tables[oid].key] for index in indexes
            ]
            for position in await self._exist(connection, tables[oid], role, claims, rows):
                seen.add((indexes[position], role, claims))
        return seen

    async def _exist(
        self, connection: AnyConnection, table: Table, role: str, claims: str, rows: Sequence[Sequence[Value]]
    ) -> list[int]:
        """Positions of the keys whose row exists and may be seen."""
        names = await self._renderer.type_names(connection, [column.type_oid for column in table.key])
        aliases = [sql.Identifier(f"k{number}") for number in range(len(table.key))]
        # The limit keeps the planner from turning many lookups by key into one scan of a big table.
        query = sql.SQL(
            "select i from unnest({arrays}) with ordinality as k({names}, i)"
            " cross join lateral (select 1 from {table} as t where {same} limit 1) as seen"
        ).format(
            arrays=sql.SQL(", ").join(sql.SQL("%s::text[]") for _ in aliases),
            names=sql.SQL(", ").join(aliases),
            table=sql.Identifier(table.schema, table.name),
            same=sql.SQL(" and ").join(
                sql.SQL("t.{} = k.{}::{}").format(
                    sql.Identifier(column.name),
                    alias,
                    type_sql(names[column.type_oid]),
                )
                for column, alias in zip(table.key, aliases, strict=True)
            ),
        )
        arrays = [[row[number] for row in rows] for number in range(len(aliases))]
        try:
            async with connection.pipeline(), connection.transaction():
                await connection.execute(
                    "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)",
                    (role, claims),
                )
                cursor = await connection.execute(query, arrays)
                found = await cursor.fetchall()
        except (psycopg.DataError, psycopg.ProgrammingError, psycopg.InternalError) as error:
            log.warning(
                "the policies of %s.%s fail for role %s, nothing is visible: %s",
                table.schema,
                table.name,
                role,
                error,
            )
            return []
        return [int(position) - 1 for (position,) in found]

    def _send(
        self,
        change: Change,
        table: Table,
        matches: Sequence[tuple[Subscription, bool]],
        visible: set[tuple[int, str, str]],
        index: int,
        views: dict[ViewKey, View],
    ) -> None:
        groups: dict[tuple[str, frozenset[str] | None], list[tuple[Subscription, bool]]] = {}
        for entry, passes in matches:
            groups.setdefault((entry.role, entry.selected), []).append((entry, passes))
        for (role, selected), entries in groups.items():
            problem = _problem(change, table, role)
            receivers: dict[Subscriber, list[int]] = {}
            for entry, passes in entries:
                hidden = table.row_security and change.event != "DELETE"
                seen = passes and (not hidden or (index, role, entry.claims) in visible)
                # Where nobody may see anything, neither filters nor policies are asked.
                if seen or problem is not None:
                    receivers.setdefault(entry.subscriber, []).append(entry.binding_id)
            if not receivers:
                continue
            key = (table.oid, role, selected)
            view = views.get(key) or views.setdefault(key, View.of(table, role, selected))
            if problem is None:
                data = change_data(change, view, row_security=table.row_security)
            else:
                data = problem_data(change, view, problem)
            for subscriber, ids in receivers.items():
                subscriber.deliver(change.event, ids, data)


def _problem(change: Change, table: Table, role: str) -> str | None:
    if change.event == "DELETE":
        return None
    if not table.key:
        return NO_KEY
    return None if all(role in column.readers for column in table.key) else NO_RIGHTS
