"""What the database must be like: read from the migrations themselves, so that the two cannot disagree.

Only statements of our own migrations are read, which keep to one style; a test compares what is found here
with what PostgreSQL made of the same files. What mends something that is missing is then the very statement
that made it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from reactive_worker.errors import ConfigurationError

_FILE = re.compile(r"([0-9]+)_.*\.sql")
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)
_TABLE = re.compile(r"^create table (?:if not exists )?public\.(\w+)", re.MULTILINE)
_RLS = re.compile(r"^alter table public\.(\w+) enable row level security;", re.MULTILINE)
_POLICY = re.compile(r"^( *)create policy \"([^\"]+)\" on ([\w.]+)\s.*?;$", re.MULTILINE | re.DOTALL)
_TRIGGER = re.compile(r"^create trigger (\w+) [^;]*? on public\.(\w+)\s[^;]*;$", re.MULTILINE)
_FUNCTION = re.compile(
    r"^create (?:or replace )?function ([\w.]+)\(.*?^as \$\$.*?\$\$;$", re.MULTILINE | re.DOTALL
)
_GRANT = re.compile(r"^grant ([^;]+?)\s+on (table|function)\s+([^;]+?)\s+to ([^;]+);$", re.MULTILINE)
_DEFINER = re.compile(r"^alter function ([^;]+?\)) security definer;$", re.MULTILINE)
_SIGNATURE = re.compile(r"([\w.]+)\(([^)]*)\)")
_PUBLISHED = re.compile(r"foreach v_table in array array\[([^\]]+)\]")


#: What a role may do with a table; the rest of ALL (TRUNCATE and so on) is never asked for through the API.
EVERYTHING = frozenset({"select", "insert", "update", "delete"})


@dataclass
class Function:
    """A function: who may call it, and the statement that makes it."""

    create: str
    security_definer: bool
    roles: set[str] = field(default_factory=set[str])


@dataclass
class Wanted:
    """What the migrations make.

    Attributes
    ----------
    versions:
        Of the migrations, in order.
    tables:
        Names of the tables in the schema public.
    rls:
        Those with row level security.
    policies, triggers:
        ``{(table, name): statement}``; a table outside public has its schema in front.
    functions:
        By signature, for example ``public.retry_todo(uuid)``.
    grants:
        ``{(table, role): {privilege, ...}}``.
    column_grants:
        ``{(table, role, privilege): {column, ...}}``.
    published:
        Tables of the publication.
    """

    versions: list[str] = field(default_factory=list[str])
    tables: list[str] = field(default_factory=list[str])
    rls: set[str] = field(default_factory=set[str])
    policies: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    triggers: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    functions: dict[str, Function] = field(default_factory=dict[str, Function])
    grants: dict[tuple[str, str], set[str]] = field(default_factory=dict[tuple[str, str], set[str]])
    column_grants: dict[tuple[str, str, str], set[str]] = field(
        default_factory=dict[tuple[str, str, str], set[str]]
    )
    published: list[str] = field(default_factory=list[str])


def migrations_folder() -> Path:
    """The folder of the migrations that belong to this version: beside the checkout, or in the wheel.

    Raises
    ------
    ConfigurationError
        The installation lacks them.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (
        package.parent / "supabase" / "migrations",
        package / "_project" / "supabase" / "migrations",
    ):
        if folder.is_dir():
            return folder
    raise ConfigurationError("this installation has no supabase/ folder; install reactive-worker again")


@cache
def wanted() -> Wanted:
    """What the migrations of this version make; read once."""
    files = sorted(path for path in migrations_folder().glob("*.sql") if _FILE.fullmatch(path.name))
    return read([path.name.partition("_")[0] for path in files], [path.read_text("utf-8") for path in files])


def read(versions: Sequence[str], texts: Sequence[str]) -> Wanted:
    """What these migrations make.

    Parameters
    ----------
    versions, texts:
        Of each file, in the order in which they are applied.
    """
    found = Wanted(versions=list(versions))
    for text in texts:
        _read(found, text)
    return found


def _read(found: Wanted, text: str) -> None:
    found.tables += [name for name in _TABLE.findall(text) if name not in found.tables]
    found.rls.update(_RLS.findall(text))
    for match in _POLICY.finditer(text):
        statement = textwrap.dedent(match[0])
        found.policies[(match[3].removeprefix("public."), match[2])] = statement
    for match in _TRIGGER.finditer(text):
        found.triggers[(match[2], match[1])] = match[0]
    for match in _FUNCTION.finditer(text):
        head = match[0].partition("$$")[0]
        signature = f"{match[1]}({_types(head)})"
        found.functions[signature] = Function(match[0], " security definer" in head)
    bare = _COMMENT.sub("", text)
    for match in _DEFINER.finditer(bare):
        found.functions[match[1]].security_definer = True
    for match in _GRANT.finditer(bare):
        roles = [role.strip() for role in match[4].split(",")]
        if match[2] == "function":
            for name, arguments in _SIGNATURE.findall(match[3]):
                found.functions[f"{name}({arguments})"].roles.update(roles)
        else:
            _table_grant(found, " ".join(match[1].split()), match[3], roles)
    if match := _PUBLISHED.search(text):
        found.published = re.findall(r"'(\w+)'", match[1])


def _table_grant(found: Wanted, rights: str, tables: str, roles: Sequence[str]) -> None:
    privilege, _, columns = rights.partition(" (")
    for table in re.findall(r"public\.(\w+)", tables):
        for role in roles:
            if columns:
                names = {name.strip() for name in columns.rstrip(")").split(",")}
                found.column_grants.setdefault((table, role, privilege), set()).update(names)
            else:
                wide = EVERYTHING if privilege == "all" else set(privilege.split(", "))
                found.grants.setdefault((table, role), set()).update(wide)


def _types(head: str) -> str:
    """The types of a function's arguments, as PostgreSQL lists them."""
    # Defaults may hold commas.
    head = re.sub(r"'[^']*'", "''", head)
    arguments = re.search(r"\((.*?)\)\s+(?:returns|language)\s", head, re.DOTALL)
    words = (one.strip().partition(" default ")[0] for one in arguments[1].split(",")) if arguments else ()
    words = (word for word in words if not word.startswith("out "))
    # Each is "name type"; "timestamptz" is what everybody calls it but the catalog.
    types = (word.split(maxsplit=1)[1] for word in words if word)
    return ", ".join({"timestamptz": "timestamp with time zone"}.get(one, one) for one in types)
