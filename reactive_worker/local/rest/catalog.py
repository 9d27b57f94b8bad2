"""What the REST gateway knows of tables and functions: asked from the catalog once, until DDL comes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from reactive_worker.local.rest.relations import Relations
from reactive_worker.local.rest.server import ServerSettings
from reactive_worker.local.rest.session import Command, Row

Ask = Callable[[Sequence[Command]], Awaitable[list[Row]]]

# With an empty search path PostgreSQL writes every type's name with its schema.
_NO_PATH = Command("select set_config('search_path', '', true)")

# format_type's -1 keeps "char(n)" from becoming char(1); lengths are then checked by the assignment.
_TABLE = """
select pg_catalog.json_build_object(
  'columns', (
    select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
      'name', a.attname,
      'type', pg_catalog.format_type(a.atttypid, -1),
      'default', case
        when a.attidentity <> '' then pg_catalog.format('nextval(%L)',
          pg_catalog.pg_get_serial_sequence(pg_catalog.format('%I.%I', n.nspname, c.relname), a.attname))
        when a.attgenerated = '' then pg_catalog.pg_get_expr(d.adbin, d.adrelid)
      end
    ) order by a.attnum), '[]')
    from pg_catalog.pg_attribute a
    left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  ),
  'primary_key', (
    select coalesce(pg_catalog.json_agg(a.attname order by a.attnum), '[]')
    from pg_catalog.pg_index i
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
    where i.indrelid = c.oid and i.indisprimary
  ),
  'view', c.relkind in ('v', 'm')
)::text
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'v', 'm', 'f', 'p')
"""

_FUNCTIONS = """
select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
  'parameters', (
    select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
      'name', coalesce(p.proargnames[argument.place], ''),
      'type', pg_catalog.format_type(argument.type, -1),
      'required', argument.number <= p.pronargs - p.pronargdefaults,
      'variadic', argument.mode = 'v'
    ) order by argument.number), '[]')
    from (
      select every.place, every.type, coalesce(p.proargmodes[every.place], 'i') as mode,
        pg_catalog.row_number() over (order by every.place) as number
      from pg_catalog.unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]))
        with ordinality as every (type, place)
      where coalesce(p.proargmodes[every.place], 'i') in ('i', 'b', 'v')
    ) as argument
  ),
  'signature', p.oid::regprocedure::text,
  'returns', pg_catalog.format_type(coalesce(nullif(t.typbasetype, 0), t.oid), -1),
  'rows_of', (
    select pg_catalog.json_build_array(kn.nspname, k.relname)
    from pg_catalog.pg_class k
    join pg_catalog.pg_namespace kn on kn.oid = k.relnamespace
    where k.oid = coalesce(base.typrelid, t.typrelid)
  ),
  'set', p.proretset,
  'composite', t.typtype = 'c' or coalesce(base.typtype = 'c', false)
    or coalesce(p.proargmodes::text[] && '{t,b,o}', false),
  'volatile', p.provolatile = 'v',
  'settings', coalesce(p.proconfig, '{}')
)), '[]')::text
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
join pg_catalog.pg_type t on t.oid = p.prorettype
left join pg_catalog.pg_type base on base.oid = t.typbasetype
where n.nspname = $1 and p.proname = $2 and p.prokind = 'f' and t.typname <> 'trigger'
"""

_RELATIONS = Path(__file__).with_name("relations.sql")

# Settings of the API server that a project makes itself, for all databases and for this one.
_SERVER = """
select coalesce(pg_catalog.json_object_agg(
  pg_catalog.split_part(one.setting, '=', 1),
  pg_catalog.substr(one.setting, pg_catalog.strpos(one.setting, '=') + 1) order by s.setdatabase
), '{}')::text
from pg_catalog.pg_db_role_setting s
join pg_catalog.pg_roles r on r.oid = s.setrole
cross join pg_catalog.unnest(s.setconfig) as one (setting)
where r.rolname = 'authenticator' and one.setting like 'pgrst.%'
  and s.setdatabase in (0, (
    select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()
  ))
"""

_TIMEZONES = "select pg_catalog.json_agg(z.name)::text from pg_catalog.pg_timezone_names z"

# Only what the role itself may change can be set for one transaction.
_ROLE = """
select coalesce(pg_catalog.json_object_agg(
  pg_catalog.split_part(one.setting, '=', 1),
  pg_catalog.substr(one.setting, pg_catalog.strpos(one.setting, '=') + 1)
), '{}')::text
from pg_catalog.pg_db_role_setting s
join pg_catalog.pg_roles r on r.oid = s.setrole
cross join pg_catalog.unnest(s.setconfig) as one (setting)
join pg_catalog.pg_settings known on known.name = pg_catalog.split_part(one.setting, '=', 1)
where r.rolname = $1 and s.setdatabase = 0 and known.context = 'user'
"""

_TABLE_NAMES = """
select pg_catalog.json_agg(c.relname)::text
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relkind in ('r', 'v', 'm', 'f', 'p')
"""

_FUNCTION_NAMES = """
select pg_catalog.json_agg(distinct p.proname)::text
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = $1 and p.prokind = 'f'
"""


@dataclass(frozen=True)
class Column:
    """A column; `type` and `default` are SQL written by PostgreSQL itself."""

    name: str
    type: str
    default: str | None


@dataclass(frozen=True)
class Table:
    """A table or view of an exposed schema."""

    schema: str
    name: str
    columns: dict[str, Column]
    #: Of a view: the columns that show the keys of its tables.
    primary_key: tuple[str, ...]

    @property
    def types(self) -> dict[str, str]:
        """Types of the columns, by name."""
        return {column.name: column.type for column in self.columns.values()}


@dataclass(frozen=True)
class Parameter:
    """An input parameter of a function; `name` is empty for one without a name."""

    name: str
    type: str
    required: bool
    variadic: bool


@dataclass(frozen=True)
class Function:
    """One function of an exposed schema; overloads are several of them."""

    schema: str
    name: str
    parameters: tuple[Parameter, ...]
    #: Name and types as PostgreSQL writes them, for messages.
    signature: str
    returns: str
    returns_set: bool
    #: True when rows have columns: a composite type, TABLE(...), or OUT parameters.
    composite: bool
    volatile: bool
    #: Settings attached to the function, by name.
    settings: dict[str, str]
    #: Schema and name of the table or composite type whose rows it returns.
    rows_of: tuple[str, str] | None = None

    @property
    def void(self) -> bool:
        """True when it returns nothing."""
        return self.returns == "void" and not self.composite and not self.returns_set


class Catalog:
    """Looks up and remembers.

    What is not found is never remembered, so a new object is seen at once; what is remembered is forgotten
    with `forget`, when PostgreSQL notifies of DDL or a statement fails because the catalog has moved on.

    Parameters
    ----------
    ask:
        Runs commands in one transaction and returns the rows of the last.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._tables: dict[tuple[str, str], Table] = {}
        self._functions: dict[tuple[str, str], tuple[Function, ...]] = {}
        self._roles: dict[str, dict[str, str]] = {}
        self._relations: Relations | None = None
        self._timezones: frozenset[str] | None = None
        self._server: ServerSettings | None = None
        self._generation = 0

    @property
    def generation(self) -> int:
        """Grows with every `forget`."""
        return self._generation

    def forget(self) -> None:
        """Forget everything."""
        self._generation += 1
        self._tables.clear()
        self._functions.clear()
        self._roles.clear()
        self._relations = None
        self._server = None

    async def table(self, schema: str, name: str) -> Table | None:
        """A table or view, or None."""
        known = self._tables.get((schema, name))
        if known is not None:
            return known
        generation = self._generation
        found = await self._json(_TABLE, schema, name)
        if found is None:
            return None
        columns = [Column(c["name"], c["type"], c["default"]) for c in found["columns"]]
        key = tuple(found["primary_key"])
        if found["view"]:
            key = (await self.relations()).keys.get((schema, name), ())
        table = Table(schema, name, {c.name: c for c in columns}, key)
        # Asked before a change and answered after it was notified: not to be remembered.
        if generation == self._generation:
            self._tables[schema, name] = table
        return table

    async def functions(self, schema: str, name: str) -> tuple[Function, ...]:
        """All functions of that name; empty if there is none."""
        known = self._functions.get((schema, name))
        if known is not None:
            return known
        generation = self._generation
        found = await self._json(_FUNCTIONS, schema, name)
        functions = tuple(_function(schema, name, each) for each in found or ())
        if functions and generation == self._generation:
            self._functions[schema, name] = functions
        return functions

    async def relations(self) -> Relations:
        """How tables, views and functions belong together."""
        known = self._relations
        if known is None:
            generation = self._generation
            known = Relations(await self._json(_RELATIONS.read_text(encoding="utf-8")))
            if generation == self._generation:
                self._relations = known
        return known

    async def server_settings(self) -> ServerSettings:
        """What ``alter role authenticator set pgrst....`` says."""
        known = self._server
        if known is None:
            generation = self._generation
            known = ServerSettings.of(dict(await self._json(_SERVER) or {}))
            if generation == self._generation:
                self._server = known
        return known

    async def timezones(self) -> frozenset[str]:
        """Names of the time zones PostgreSQL knows."""
        if self._timezones is None:
            self._timezones = frozenset(cast("list[str]", await self._json(_TIMEZONES)))
        return self._timezones

    async def role_settings(self, role: str) -> dict[str, str]:
        """Settings attached to a role, such as its statement_timeout."""
        known = self._roles.get(role)
        if known is not None:
            return known
        generation = self._generation
        settings: dict[str, str] = dict(await self._json(_ROLE, role) or {})
        # search_path is the request's business.
        settings.pop("search_path", None)
        if generation == self._generation:
            self._roles[role] = settings
        return settings

    async def table_names(self, schema: str) -> list[str]:
        """All tables and views of a schema, for hints."""
        return cast("list[str]", await self._json(_TABLE_NAMES, schema) or [])

    async def function_names(self, schema: str) -> list[str]:
        """All functions of a schema, for hints."""
        return cast("list[str]", await self._json(_FUNCTION_NAMES, schema) or [])

    async def _json(self, sql: str, *params: str) -> Any:
        rows = await self._ask([_NO_PATH, Command(sql, params)])
        return json.loads(rows[0][0]) if rows and rows[0][0] is not None else None


def _function(schema: str, name: str, found: dict[str, Any]) -> Function:
    settings: list[str] = found["settings"]
    return Function(
        schema=schema,
        name=name,
        parameters=tuple(
            Parameter(p["name"], p["type"], p["required"], p["variadic"]) for p in found["parameters"]
        ),
        signature=found["signature"],
        returns=found["returns"],
        returns_set=found["set"],
        composite=found["composite"],
        volatile=found["volatile"],
        settings={key: value for key, _, value in (setting.partition("=") for setting in settings)},
        rows_of=tuple(found["rows_of"]) if found["rows_of"] else None,
    )
