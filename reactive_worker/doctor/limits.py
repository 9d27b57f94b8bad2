"""Judging limits that cut off what a worker asks for: statement_timeout and max_rows. Pure."""

from __future__ import annotations

from typing import Any

from reactive_worker.doctor.facts import ROWS_ASKED, WORKING_ROLES, Facts
from reactive_worker.doctor.findings import Finding

#: Fewer rows than this make lists short and every longer log many requests.
FEW_ROWS = 100
#: Seconds. A claim takes milliseconds, a batch of 200 large events a second or two.
SHORT_TIMEOUT, TINY_TIMEOUT = 3.0, 1.0


def judge_timeouts(database: dict[str, Any]) -> list[Finding]:
    """How long the statements of the API's roles may take."""
    roles: dict[str, Any] = database["roles"]
    default = roles.get("authenticator", {}).get("settings", {}).get("statement_timeout")
    short: dict[str, float] = {}
    for role in (*WORKING_ROLES, "authenticated"):
        own = roles.get(role, {}).get("settings", {}).get("statement_timeout")
        seconds = _seconds(own if own is not None else default)
        if seconds is not None and seconds < SHORT_TIMEOUT:
            # Where it is set is where it is mended.
            short[role if own is not None else "authenticator"] = seconds
    if not short:
        return [Finding("statement_timeout", "ok", "long enough for every batch")]
    told = ", ".join(f"{role}: {seconds:g} s" for role, seconds in short.items())
    sql = "\n".join(_longer(role, database) for role in short)
    return [
        Finding(
            "statement_timeout",
            "fail" if min(short.values()) < TINY_TIMEOUT else "warn",
            f"so short that batches may be cut off ({told})",
            f"{sql}\nnotify pgrst, 'reload config';",
            "sql",
        )
    ]


def _longer(role: str, database: dict[str, Any]) -> str:
    # What is set for one database wins over what is set for all.
    here = "statement_timeout" in database["roles"][role]["settings_here"]
    name = str(database["database"]).replace('"', '""')
    where = f' in database "{name}"' if here else ""
    return f"alter role {role}{where} set statement_timeout = '8s';"


_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


def _seconds(setting: str | None) -> float | None:
    """A time as PostgreSQL writes it; None when there is no limit.

    >>> _seconds("250ms"), _seconds("8s"), _seconds("0"), _seconds("3000")
    (0.25, 8.0, None, 3.0)
    """
    text = (setting or "0").strip().lower()
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = text[len(number) :].strip() or "ms"
    try:
        seconds = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        return None  # PostgreSQL would not have taken it
    return seconds or None


def judge_rows(facts: Facts) -> list[Finding]:
    """Where the API cuts answers off."""
    if facts.rows is None:
        return []
    if facts.rows >= FEW_ROWS:
        most = "1,000 or more" if facts.rows >= ROWS_ASKED else str(facts.rows)
        return [Finding("max_rows", "ok", f"the API returns up to {most} rows")]
    own = (facts.database or {}).get("roles", {}).get("authenticator", {}).get("settings", {})
    sql = "alter role authenticator set pgrst.db_max_rows = '1000';\nnotify pgrst, 'reload config';"
    in_database = "pgrst.db_max_rows" in own
    return [
        Finding(
            "max_rows",
            "warn",
            f"the API returns at most {facts.rows} rows: lists are cut short, logs take many requests",
            sql
            if in_database
            else "max_rows = 1000 under [api] in supabase/config.toml, then `supabase config push`"
            " (in the dashboard: project settings, API, Max rows)",
            "sql" if in_database else "setting",
        )
    ]
