"""Bindings checked against the database: tables published, columns readable, filters fitting."""

from __future__ import annotations

import json
from collections.abc import Iterable

import psycopg
from psycopg import sql

from reactive_worker.local.realtime.bindings import Binding, BindingError
from reactive_worker.local.realtime.catalog import Table, TableColumn, load_tables, matching_tables
from reactive_worker.local.realtime.database import AnyConnection
from reactive_worker.local.realtime.filters import (
    IS_WORDS,
    MOST_VALUES,
    Filter,
    ParsedFilter,
    compares_by_text,
)
from reactive_worker.local.realtime.render import Renderer, type_sql
from reactive_worker.local.realtime.subscriptions import Subscriber, Subscription
from reactive_worker.local.realtime.tokens import Token


def _raised(text: str) -> str:
    return f"ERROR P0001 (raise_exception) {text}"


def _database_error(error: psycopg.Error) -> str:
    name = type(error).__name__
    words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
    severity = error.diag.severity_nonlocalized or "ERROR"
    return f"{severity} {error.sqlstate} ({words}) {error.diag.message_primary or error}"


class FitError(Exception):
    """A binding does not fit its table; the text is what PostgreSQL would have raised."""


async def _pattern_problem(connection: AnyConnection, column: TableColumn, condition: ParsedFilter) -> bool:
    """Whether the column's type lacks the operator of a pattern filter."""
    symbol = {"like": "~~", "ilike": "~~", "match": "~", "imatch": "~*"}[condition.operator]
    cursor = await connection.execute(
        "select exists(select 1 from pg_operator where oprname = %s and oprleft = %s"
        " and (oprname = '~~' or (oprright = oprleft and oprresult = 'boolean'::regtype)))",
        (symbol, column.type_oid),
    )
    row = await cursor.fetchone()
    return row is None or not row[0]


class SubscriptionFactory:
    """Checks bindings against the database."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    async def create(
        self, connection: AnyConnection, bindings: Iterable[Binding], token: Token, subscriber: Subscriber
    ) -> list[Subscription]:
        """Make the subscriptions of one channel.

        Raises
        ------
        BindingError
            One binding names no published table, or does not fit it; then none is in force.
        psycopg.OperationalError
            The database is down.
        """
        made: list[Subscription] = []
        claims = json.dumps(token.claims, ensure_ascii=False)
        for binding in bindings:
            prefix = "Unable to subscribe to changes with given parameters."
            oids = await matching_tables(connection, binding.schema, binding.table)
            if not oids:
                raise BindingError(
                    f"{prefix} Please check Realtime is enabled for the given connect parameters:"
                    f" [{binding.describe()}]"
                )
            try:
                await self._check_role(connection, token.role)
                tables = await load_tables(connection, oids, [token.role])
                for table in tables.values():
                    filters = await self._compile(connection, table, token.role, binding)
                    selected = None if binding.selected is None else frozenset(binding.selected)
                    made.append(
                        Subscription(
                            subscriber,
                            binding.id,
                            table.oid,
                            binding.event,
                            filters,
                            selected,
                            token.role,
                            claims,
                        )
                    )
            except (FitError, psycopg.DataError, psycopg.ProgrammingError) as error:
                reason = str(error) if isinstance(error, FitError) else _database_error(error)
                raise BindingError(
                    f"{prefix} An exception happened so please check your connect parameters:"
                    f" [{binding.describe()}]. Exception: {reason}"
                ) from error
        return made

    async def _check_role(self, connection: AnyConnection, role: str) -> None:
        cursor = await connection.execute(
            "select pg_has_role('authenticator', oid, 'MEMBER') and rolname <> 'authenticator'"
            " from pg_roles where rolname = %s",
            (role,),
        )
        row = await cursor.fetchone()
        if row is None:
            raise FitError(f'ERROR 42704 (undefined_object) role "{role}" does not exist')
        if not row[0]:
            # The connection is a superuser's and could be anybody; a token may be what REST lets it be.
            raise FitError(f'ERROR 42501 (insufficient_privilege) permission denied to set role "{role}"')

    async def _compile(
        self, connection: AnyConnection, table: Table, role: str, binding: Binding
    ) -> tuple[Filter, ...]:
        readable = {column.name: column for column in table.readable(role)}
        compiled: list[Filter] = []
        for condition in binding.filters:
            column = readable.get(condition.column)
            if column is None:
                raise FitError(_raised(f"invalid column for filter {condition.column}"))
            names = await self._renderer.type_names(connection, [column.type_oid])
            compiled.append(await self.fit(connection, condition, column, names[column.type_oid]))
        for name in binding.selected or ():
            if name not in readable:
                raise FitError(_raised(f"invalid column for select {name}"))
        return tuple(compiled)

    async def fit(
        self, connection: AnyConnection, condition: ParsedFilter, column: TableColumn, type_name: str
    ) -> Filter:
        operator, value = condition.operator, condition.value
        made = Filter(column.name, column.type_oid, type_name, operator, value, condition.negate)
        if operator == "is":
            if value not in IS_WORDS:
                raise FitError(_raised("invalid value for is filter: must be null, true, false, or unknown"))
            if value != "null" and type_name != "boolean":
                raise FitError(_raised(f"is {value} filter requires a boolean column, got {type_name}"))
            return made
        if operator in ("like", "ilike", "match", "imatch") and await _pattern_problem(
            connection, column, condition
        ):
            raise FitError(
                _raised(f"operator {operator} requires a text-compatible column type, got {type_name}")
            )
        if operator in ("match", "imatch"):
            await self._check_pattern(connection, condition)
        # What the type prints, as in the log, is what format gives; a cast to text may differ (boolean).
        listed = sql.SQL("%s::{}[]" if operator == "in" else "array[%s::{}]").format(type_sql(type_name))
        query = sql.SQL(
            "select array(select case when x is not null then format('%%s', x) end from unnest({}) as x)"
        )
        cursor = await connection.execute(query.format(listed), (value,))
        row = await cursor.fetchone()
        texts: list[str | None] = row[0] if row is not None else []
        if len(texts) > MOST_VALUES:
            raise FitError(_raised(f"too many values for `in` filter. Maximum {MOST_VALUES}"))
        if compares_by_text(column.type_oid, operator):
            return Filter(
                made.column, made.type_oid, type_name, operator, value, made.negate, texts=frozenset(texts)
            )
        # Tried once, so that a type without this operator or a bad pattern is refused here and not met later.
        await connection.execute(
            sql.SQL("select {} from (select null::text as v) as nothing").format(made.expression()), (value,)
        )
        return made

    async def _check_pattern(self, connection: AnyConnection, condition: ParsedFilter) -> None:
        try:
            await connection.execute("select '' ~ %s", (condition.value,))
        except psycopg.DataError as error:
            problem = error.diag.message_primary or str(error)
            raise FitError(
                _raised(f"invalid regular expression for {condition.operator} filter: {problem}")
            ) from error
