"""Judging who may do what: row level security, policies, grants, functions, roles. Pure.

Too little fails: somebody's work is refused. Too much is worth a warning (it may be meant: see
supabase/optional), unless it is open to PUBLIC, which nothing here ever is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from reactive_worker.access.tokens import WORKER_ROLE
from reactive_worker.doctor.findings import Finding, Level
from reactive_worker.doctor.wanted import EVERYTHING, Wanted

_WATCHED = ("PUBLIC", "anon", "authenticated", WORKER_ROLE)
_POLICY_HEAD = re.compile(r"\sfor (\w+) to (\w+)")
#: Schemas each role must be able to look into.
_USAGE = {
    "authenticated": ("public", "reactive_worker_private"),
    "service_role": ("public", "reactive_worker_private"),
    WORKER_ROLE: ("public",),
}


def judge_rights(database: dict[str, Any], wanted: Wanted) -> list[Finding]:
    """What `reactive_worker_diagnose` told, against what the migrations make."""
    covered = [table for table in wanted.tables if table in database["covers"]["tables"]]
    gone = [table for table in covered if table not in database["tables"]]
    found: list[Finding] = []
    if gone:
        found.append(
            Finding(
                "tables",
                "fail",
                f"missing: {', '.join(gone)}",
                "Restore them from a backup (dashboard, Database, Backups); without one, begin anew: "
                "`supabase db reset --linked`, which deletes every row",
                "setting",
            )
        )
    else:
        found.append(Finding("tables", "ok", ", ".join(covered)))
    for check in (_roles, _rls, _policies, _grants, _functions):
        found += check(database, wanted)
    return found


class _Complaints:
    """Collects what is wrong with one thing, so that each level becomes one finding."""

    def __init__(self, name: str, fine: str) -> None:
        self._name, self._fine = name, fine
        self._told: dict[Level, list[tuple[str, str]]] = {"fail": [], "warn": []}

    def add(self, level: Level, what: str, sql: str) -> None:
        self._told[level].append((what, sql))

    def findings(self) -> list[Finding]:
        found: list[Finding] = []
        for level, told in self._told.items():
            if told:
                # One statement may mend two things.
                sql = "\n".join(dict.fromkeys(sql for _, sql in told))
                found.append(Finding(self._name, level, "; ".join(what for what, _ in told), sql, "sql"))
        return found or [Finding(self._name, "ok", self._fine)]


def _roles(database: dict[str, Any], wanted: Wanted) -> list[Finding]:
    told, roles = _Complaints("roles", "the worker's role can be reached"), database["roles"]
    if WORKER_ROLE not in roles:
        grants = f"grant {WORKER_ROLE} to authenticator;\ngrant anon to {WORKER_ROLE};"
        told.add("fail", f"there is no role {WORKER_ROLE}", f"create role {WORKER_ROLE} nologin;\n{grants}")
        return told.findings()
    if "authenticator" in roles and WORKER_ROLE not in roles["authenticator"]["member_of"]:
        what = f"the API cannot switch to {WORKER_ROLE}: workers' tokens are refused"
        told.add("fail", what, f"grant {WORKER_ROLE} to authenticator;")
    if "anon" not in roles[WORKER_ROLE]["member_of"]:
        what = f"{WORKER_ROLE} is no member of anon: its workers hear no broadcasts"
        told.add("warn", what, f"grant anon to {WORKER_ROLE};")
    for role, schemas in _USAGE.items():
        for schema in schemas:
            if role in roles and schema not in roles[role]["schemas"]:
                told.add(
                    "fail",
                    f"{role} may not use the schema {schema}",
                    f"grant usage on schema {schema} to {role};",
                )
    return told.findings()


def _rls(database: dict[str, Any], wanted: Wanted) -> list[Finding]:
    told = _Complaints("rls", "row level security is on for every table")
    for table in sorted(wanted.rls):
        if table in database["tables"] and not database["tables"][table]["rls"]:
            what = f"row level security is off for {table}: whoever may read it reads everybody's rows"
            told.add("fail", what, f"alter table public.{table} enable row level security;")
    return told.findings()


def _policies(database: dict[str, Any], wanted: Wanted) -> list[Finding]:
    told = _Complaints("policies", "all are there")
    for (table, name), create in wanted.policies.items():
        if table == "realtime.messages":
            if database["realtime"]["messages"] and not database["realtime"]["hints_policy"]:
                what = f"the policy {name!r} on {table} is missing: {WORKER_ROLE} hears no broadcasts"
                told.add("warn", what, create)
            continue
        if table not in database["tables"]:
            continue
        there, head = database["tables"][table]["policies"].get(name), _POLICY_HEAD.search(create)
        if there is None:
            told.add("fail", f"the policy {name!r} on {table} is missing", create)
        elif head and (there["command"], there["roles"]) != (head[1], [head[2]]):
            drop = f'drop policy "{name}" on public.{table};\n'
            told.add("fail", f"the policy {name!r} on {table} is for others than it should be", drop + create)
    return told.findings()


def _grants(database: dict[str, Any], wanted: Wanted) -> list[Finding]:
    told = _Complaints("grants", "each role has what it needs, and no more")
    for table, facts in database["tables"].items():
        grants = {role: set(rights) & EVERYTHING for role, rights in facts["grants"].items()}
        columns: dict[str, dict[str, list[str]]] = facts["column_grants"]
        for (where, role), rights in wanted.grants.items():
            if where == table and (lacks := rights - grants.get(role, set())):
                words = ", ".join(sorted(lacks))
                told.add(
                    "fail",
                    f"{role} may not {words} {table}",
                    f"grant {words} on table public.{table} to {role};",
                )
        for (where, role, right), names in wanted.column_grants.items():
            has = set(columns.get(role, {}).get(right, []))
            if where == table and right not in grants.get(role, set()) and (lacks := names - has):
                words = f"{right} ({', '.join(sorted(lacks))})"
                told.add(
                    "fail",
                    f"{role} may not {words} of {table}",
                    f"grant {words} on table public.{table} to {role};",
                )
        for role in _WATCHED:
            level: Level = "fail" if role == "PUBLIC" else "warn"
            if more := grants.get(role, set()) - wanted.grants.get((table, role), set()):
                words = ", ".join(sorted(more))
                sql = f"revoke {words} on table public.{table} from {role};"
                told.add(level, _open(role, f"{words} {table}"), sql + _regrant(wanted, table, role, more))
            for right, names in columns.get(role, {}).items():
                asked = wanted.column_grants.get((table, role, right), set())
                if right in EVERYTHING and (extra := set(names) - asked):
                    words = f"{right} ({', '.join(sorted(extra))})"
                    sql = f"revoke {words} on table public.{table} from {role};"
                    told.add(level, _open(role, f"{words} of {table}"), sql)
    return told.findings()


def _regrant(wanted: Wanted, table: str, role: str, revoked: Iterable[str]) -> str:
    """Revoking a right on a table takes away the same right on its columns, too."""
    return "".join(
        f"\ngrant {right} ({', '.join(sorted(names))}) on table public.{table} to {role};"
        for right in sorted(revoked)
        if (names := wanted.column_grants.get((table, role, right)))
    )


def _open(role: str, what: str) -> str:
    meant = " (as supabase/optional/anon_demo.sql does)" if role == "anon" else ""
    return f"{'everybody' if role == 'PUBLIC' else role} may {what}{meant}"


def _functions(database: dict[str, Any], wanted: Wanted) -> list[Finding]:
    told = _Complaints("functions", "all are there, for the right roles only")
    there: dict[str, Any] = database["functions"]
    for signature, function in wanted.functions.items():
        schema, _, rest = signature.partition(".")
        name = rest.partition("(")[0]
        if schema == "public" and name not in database["covers"]["functions"]:
            continue
        facts = there.get(signature)
        if facts is None:
            told.add("fail", f"{signature} is missing", _restore(signature, wanted))
            continue
        if facts["search_path"] != '""':
            what = f"{signature} has no pinned search_path: whoever may create objects may hijack it"
            told.add("fail", what, f"alter function {signature} set search_path = '';")
        if facts["security_definer"] != function.security_definer:
            rights = "definer" if function.security_definer else "invoker"
            what = f"{signature} does not run with the rights of its {rights}"
            told.add("fail", what, f"alter function {signature} security {rights};")
        _execute(told.add, signature, set(facts["execute"]), function.roles)
    return told.findings()


def _execute(
    tell: Callable[[Level, str, str], None], signature: str, may: set[str], wanted: set[str]
) -> None:
    # What PUBLIC may, everybody may; but it is not what was granted, and goes with the hole.
    if lacks := wanted - may:
        names = ", ".join(sorted(lacks))
        tell(
            "fail", f"{names} may not call {signature}", f"grant execute on function {signature} to {names};"
        )
    if "PUBLIC" in may:
        tell(
            "fail", f"everybody may call {signature}", f"revoke execute on function {signature} from public;"
        )
    for role in _WATCHED[1:]:
        if role in may - wanted:
            tell(
                "warn",
                _open(role, f"call {signature}"),
                f"revoke execute on function {signature} from {role};",
            )


def _restore(signature: str, wanted: Wanted) -> str:
    """Everything that makes a function what it was."""
    function = wanted.functions[signature]
    lines = [function.create]
    if function.security_definer:
        lines.append(f"alter function {signature} security definer;")
    # Older hosted projects grant EXECUTE on every new function to the API's roles.
    lines.append(
        f"revoke all on function {signature} from public, anon, authenticated, service_role, {WORKER_ROLE};"
    )
    roles = function.roles or {"service_role"}
    lines.append(f"grant execute on function {signature} to {', '.join(sorted(roles))};")
    lines.append("notify pgrst, 'reload schema';")
    return "\n".join(lines)
