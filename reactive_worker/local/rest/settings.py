"""What is set for one transaction before a request's statement runs: role, claims, search path and so on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

from starlette.requests import Request

from reactive_worker.local.project import Project
from reactive_worker.local.rest.identity import KnownIdentity
from reactive_worker.local.rest.session import Command
from reactive_worker.local.rest.sql import quote


@lru_cache(maxsize=64)
def _statement(count: int) -> str:
    calls = (f"pg_catalog.set_config(${2 * i + 1}, ${2 * i + 2}, true)" for i in range(count))
    return f"select {', '.join(calls)}"


@lru_cache(maxsize=64)
def search_path(schema: str, extra: Sequence[str]) -> str:
    """The search path of a request to `schema`."""
    return ", ".join(quote(name) for name in (schema, *extra))


def request_settings(
    request: Request,
    path: str,
    known: KnownIdentity,
    schema: str,
    project: Project,
    *,
    role_settings: Mapping[str, str],
    function_settings: Mapping[str, str],
    read_only: bool,
    clock_offset: float,
    timezone: str | None = None,
) -> Command:
    """The statement that makes a transaction this request's.

    Parameters
    ----------
    path:
        As the API server sees it, without the gateway's prefix: ``/todolist``.
    role_settings:
        Attached to the role: switching roles does not apply them by itself.
    function_settings:
        Attached to the function that is called.
    read_only:
        Whether a write is to be refused.
    clock_offset:
        Seconds by which the task clock is ahead.
    timezone:
        The one the client prefers.
    """
    headers = {name: value for name, value in request.headers.items() if name != "cookie"}
    values = ["search_path", search_path(schema, project.extra_search_path)]
    for name, value in role_settings.items():
        values += (name, value)
    values += ("role", known.identity.role)
    values += ("request.jwt.claims", known.claims_text)
    values += ("request.method", request.method)
    values += ("request.path", path)
    values += ("request.headers", json.dumps(headers, separators=(",", ":")))
    values += ("request.cookies", json.dumps(request.cookies, separators=(",", ":")))
    if timezone is not None:
        values += ("timezone", timezone)
    # Set by the function itself it would come too late: the clock of the statement runs already.
    if "statement_timeout" in function_settings:
        values += ("statement_timeout", function_settings["statement_timeout"])
    if clock_offset:
        values += ("app.settings.reactive_worker_clock_offset", f"{clock_offset!r} seconds")
    if read_only:
        values += ("transaction_read_only", "on")
    return Command(_statement(len(values) // 2), tuple(values))
