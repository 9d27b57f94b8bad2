"""Users, sessions and refresh tokens in PostgreSQL: each call is one transaction."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from reactive_worker.local.auth.errors import AuthError, user_exists
from reactive_worker.local.rest.errors import DatabaseError
from reactive_worker.local.rest.session import Command, SessionPool

_log = logging.getLogger(__name__)

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)

#: Name of a statement and its values.
Call = tuple[str, Sequence[str | None]]


@cache
def _statements() -> dict[str, str]:
    text = Path(__file__).with_name("queries.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return {name: sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}


class AuthDatabase:
    """What the auth server asks PostgreSQL, as the role supabase_auth_admin.

    Parameters
    ----------
    pool:
        Sessions of a role that may become it.
    """

    def __init__(self, pool: SessionPool) -> None:
        self._pool = pool

    async def one(self, name: str, *values: str | None) -> Any:
        """The value of the first row, or None."""
        rows = await self.all(name, *values)
        return rows[0] if rows else None

    async def all(self, name: str, *values: str | None) -> list[Any]:
        """The values of all rows."""
        return await self.run((name, values))

    async def run(self, *calls: Call) -> list[Any]:
        """Run statements as one transaction; returns the values of the last one's rows.

        Raises
        ------
        AuthError
            It was refused, by a trigger of the project for example, or the database is away.
        """
        statements = _statements()
        commands = [Command(statements["settings"])]
        commands += [Command(statements[name], tuple(values)) for name, values in calls]
        try:
            async with self._pool.session() as session:
                rows = await session.run(commands)
        except DatabaseError as error:
            raise _refused(error, calls[0][0]) from error
        return [json.loads(row[0]) for row in rows if row and row[0] is not None]


def _refused(error: DatabaseError, name: str) -> AuthError:
    if error.sqlstate == "23505" and "email" in error.message:
        return user_exists()
    _log.warning("auth: %s failed: %s (SQLSTATE %s)", name, error.message, error.sqlstate or "none")
    what = "saving new user" if name == "create_user" else "querying schema"
    return AuthError(500, "unexpected_failure", f"Database error {what}")
