"""What the catalog says about a table right now: columns, key, row level security, and who may read what."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from reactive_worker.local.realtime.database import AnyConnection

PUBLICATION = "supabase_realtime"


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column, in attribute order."""

    name: str
    type_oid: int
    #: ``pg_type`` name, as subscribers see it (`int4`, `_text`).
    type_name: str
    primary_key: bool
    #: Roles that may SELECT it.
    readers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Table:
    """A published table."""

    oid: int
    schema: str
    name: str
    row_security: bool
    columns: tuple[TableColumn, ...]

    @property
    def key(self) -> tuple[TableColumn, ...]:
        """The primary key's columns; empty when there is none."""
        return tuple(column for column in self.columns if column.primary_key)

    def readable(self, role: str, selected: Collection[str] | None = None) -> tuple[TableColumn, ...]:
        """Columns a role gets: those it may SELECT, of these the selected ones and the key."""
        return tuple(
            column
            for column in self.columns
            if role in column.readers and (selected is None or column.primary_key or column.name in selected)
        )


_TABLES = """
select c.oid, n.nspname, c.relname, c.relrowsecurity, a.attname, a.atttypid, t.typname,
       coalesce(a.attnum = any (k.conkey), false),
       array(select r.rolname::text from pg_roles r
             where r.rolname = any (%(roles)s) and has_column_privilege(r.oid, c.oid, a.attnum, 'SELECT'))
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_type t on t.oid = a.atttypid
left join pg_constraint k on k.conrelid = c.oid and k.contype = 'p'
where c.oid = any (%(oids)s::oid[])
order by c.oid, a.attnum
"""


async def load_tables(
    connection: AnyConnection, oids: Collection[int], roles: Collection[str]
) -> dict[int, Table]:
    """Read tables by oid, with the reading rights of some roles. Tables that are gone are left out."""
    cursor = await connection.execute(_TABLES, {"oids": list(oids), "roles": list(roles)}, prepare=True)
    found: dict[int, tuple[str, str, bool, list[TableColumn]]] = {}
    for oid, schema, name, security, column, type_oid, type_name, key, readers in await cursor.fetchall():
        entry = found.setdefault(int(oid), (schema, name, security, []))
        entry[3].append(TableColumn(column, int(type_oid), type_name, key, frozenset(readers)))
    return {
        oid: Table(oid, schema, name, security, tuple(columns))
        for oid, (schema, name, security, columns) in found.items()
    }


async def published_tables(connection: AnyConnection) -> frozenset[int]:
    """Oids of every table in the publication."""
    cursor = await connection.execute(
        "select c.oid from pg_publication_tables p"
        " join pg_namespace n on n.nspname = p.schemaname"
        " join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename"
        " where p.pubname = %s",
        (PUBLICATION,),
        prepare=True,
    )
    return frozenset(int(oid) for (oid,) in await cursor.fetchall())


async def matching_tables(connection: AnyConnection, schema: str, table: str) -> tuple[int, ...]:
    """Oids of the published tables a binding names.

    ``*`` stands for all. The real server compares with LIKE and no escape, so `_` in a name matches any
    character; subscribers may have come to rely on it.
    """
    cursor = await connection.execute(
        "select c.oid from pg_publication_tables p"
        " join pg_namespace n on n.nspname = p.schemaname"
        " join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename"
        " where p.pubname = %(publication)s"
        " and p.schemaname like (case %(schema)s when '*' then '%%' else %(schema)s end) escape ''"
        " and p.tablename like (case %(table)s when '*' then '%%' else %(table)s end) escape ''"
        " order by c.oid",
        {"publication": PUBLICATION, "schema": schema, "table": table},
        prepare=True,
    )
    return tuple(int(oid) for (oid,) in await cursor.fetchall())


def columns_json(columns: Iterable[TableColumn]) -> str:
    """The ``columns`` list of a change."""
    names: Sequence[dict[str, str]] = [{"name": column.name, "type": column.type_name} for column in columns]
    return json.dumps(names, ensure_ascii=False)
