"""From committed changes to what each subscriber gets: rendering, filters, rights and row level security.

Work is done for a whole batch at once, so that its cost in statements does not grow with its rows: the
catalog is read once, values are rendered by type, filters judged by filter, and visibility is checked once
for each role, claims and table.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg import sql

from reactive_worker.local.realtime.catalog import Table, columns_json, load_tables
from reactive_worker.local.realtime.database import AnyConnection, Database
from reactive_worker.local.realtime.decode import UNCHANGED, Relation, Row, Value
from reactive_worker.local.realtime.filters import Filter, evaluate
from reactive_worker.local.realtime.render import Pending, Renderer, json_object, plain, type_sql
from reactive_worker.local.realtime.subscriptions import Registry, Subscriber, Subscription

log = logging.getLogger(__name__)

#: Largest change delivered whole, in bytes as the real server's log reader writes it.
LARGEST = 1024 * 1024
#: What remains of a larger one: values up to this many bytes.
_KEPT = 64
#: What the log reader writes around a value, besides names: an estimate, good for the limit above.
_OVERHEAD = 60

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

_PROBLEM_NO_KEY = '["Error 400: Bad Request, no primary key"]'
_PROBLEM_RIGHTS = '["Error 401: Unauthorized"]'
_PROBLEM_SIZE = '["Error 413: Payload Too Large"]'


@dataclass(slots=True)
class Change:
    """One row changed by a committed transaction."""

    relation: Relation
    event: str
    #: Microseconds since 2000-01-01.
    commit_time: int
    new: Row | None
    old: Row | None
    #: Values by column name, once prepared: of the new row, and of the replica identity.
    record: dict[str, Value] = field(default_factory=dict[str, Value])
    identity: dict[str, Value] = field(default_factory=dict[str, Value])
    json: dict[str, str] = field(default_factory=dict[str, str])
    identity_json: dict[str, str] = field(default_factory=dict[str, str])

    def prepare(self) -> None:
        """Name the values: the new row without what the log does not hold, and the row's identity."""
        columns = self.relation.columns
        if self.new is not None:
            named = zip(columns, self.new, strict=False)
            self.record = {column.name: value for column, value in named if value is not UNCHANGED}
        # An UPDATE that left the key alone carries no old row: its identity is in the new one.
        source = self.old if self.old is not None else self.new
        if self.event != "INSERT" and source is not None:
            self.identity = {
                column.name: value
                for column, value in zip(columns, source, strict=False)
                if column.identity and value is not UNCHANGED
            }

    @property
    def judged(self) -> dict[str, Value]:
        """What filters look at: the new row; for a DELETE, the old one's identity."""
        return self.identity if self.event == "DELETE" else self.record


def commit_timestamp(microseconds: int) -> str:
    """Time of a commit as subscribers see it: UTC, milliseconds (cut, not rounded), Z.

    Example
    -------
    >>> commit_timestamp(847_022_400_123_999)
    '2026-11-03T12:00:00.123Z'
    """
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _size(change: Change) -> int:
    values = list(change.json.items()) + list(change.identity_json.items())
    return sum(len(name) + len(text.encode()) + _OVERHEAD for name, text in values)


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
        for index, change in enumerate(wanted):
            if table := tables.get(change.relation.oid):
                self._send(change, table, matches[index], visible, index)
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
    ) -> None:
        groups: dict[tuple[str, frozenset[str] | None], list[tuple[Subscription, bool]]] = {}
        for entry, passes in matches:
            groups.setdefault((entry.role, entry.selected), []).append((entry, passes))
        for (role, selected), entries in groups.items():
            problem = self._problem(change, table, role)
            receivers: dict[Subscriber, list[int]] = {}
            for entry, passes in entries:
                hidden = table.row_security and change.event != "DELETE"
                seen = passes and (not hidden or (index, role, entry.claims) in visible)
                # Nobody's filters or policies are asked about a row that may not be read at all.
                if seen or problem is not None:
                    receivers.setdefault(entry.subscriber, []).append(entry.binding_id)
            if receivers:
                data = self._data(change, table, role, selected, problem)
                for subscriber, ids in receivers.items():
                    subscriber.deliver(change.event, ids, data)

    def _problem(self, change: Change, table: Table, role: str) -> str | None:
        if change.event == "DELETE":
            return None
        if not table.key:
            return _PROBLEM_NO_KEY
        return None if all(role in column.readers for column in table.key) else _PROBLEM_RIGHTS

    def _data(
        self, change: Change, table: Table, role: str, selected: frozenset[str] | None, problem: str | None
    ) -> str:
        if problem is not None:
            head, timestamp, errors, record, identity = "[]", "null", problem, "{}", "{}"
        else:
            columns = table.readable(role, selected)
            too_large = _size(change) > LARGEST
            head = columns_json(columns)
            timestamp = f'"{commit_timestamp(change.commit_time)}"'
            errors = _PROBLEM_SIZE if too_large else "null"
            names = {column.name for column in columns}
            # A column the log left out is taken from the old row, where that is known (identity FULL).
            merged = {**change.identity_json, **change.json}
            record = _object(merged, names, too_large)
            if change.event == "DELETE" and table.row_security:
                # Policies cannot be asked about a row that is gone: everybody gets its key, and no more.
                names &= {column.name for column in table.key}
            identity = _object(change.identity_json, names, too_large)
        parts = [f'"columns":{head}', f'"commit_timestamp":{timestamp}', f'"errors":{errors}']
        if change.event != "INSERT":
            parts.append(f'"old_record":{identity}')
        if change.event != "DELETE":
            parts.append(f'"record":{record}')
        names_json = json_object([("schema", _text(table.schema)), ("table", _text(table.name))])[1:-1]
        return "{" + ",".join(parts) + f',{names_json},"type":"{change.event}"' + "}"


def _text(value: str) -> str:
    return plain(25, value) or "null"


def _object(values: dict[str, str], names: set[str], too_large: bool) -> str:
    return json_object(
        (name, text)
        for name, text in values.items()
        # In a change that is too large, nulls go too: their size is unknown, as the real server has it.
        if name in names and not (too_large and (text == "null" or len(text.encode()) > _KEPT))
    )
