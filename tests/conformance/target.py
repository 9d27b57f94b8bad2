"""The Supabase under test: the embedded one, or any other given by URL."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
import pytest

from reactive_worker.local.gateway import Gateway
from reactive_worker.local.keys import JWT_SECRET

ADA, BOB = "8a4f4cf5-5a5c-4b0e-8d6a-6d6b1f0f5f10", "0b0b0b0b-5a5c-4b0e-8d6a-6d6b1f0f5f10"

#: Where `supabase start` has its database.
CLI_DB_URL = "postgresql://postgres:postgres@127.0.0.1:54322/postgres"
_FOLDER = Path(__file__).parent
_LOCAL = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Target:
    """A Supabase, and the objects this run has made in it.

    Attributes
    ----------
    jwt_secret:
        Signs users' tokens; empty where it is not known, and then cases about users are skipped.
    embedded:
        The gateway with its fault switches; None for any other Supabase.
    """

    url: str
    service_key: str
    anon_key: str
    db_url: str
    jwt_secret: str
    connection: psycopg.Connection[Any] = field(repr=False)
    prefix: str
    embedded: Gateway | None = None

    def name(self, short: str) -> str:
        """The full name of a table or function of this run."""
        return f"{self.prefix}{short}"

    def user(self, user_id: str, *, expires_in: float = 3600, **claims: Any) -> str:
        """A signed-in user's token."""
        if not self.jwt_secret:
            pytest.skip("users' tokens need --supabase-jwt-secret")
        now = int(time.time())
        payload = {
            "sub": user_id,
            "role": "authenticated",
            "aud": "authenticated",
            "exp": int(now + expires_in),
        }
        return jwt.encode({**payload, **claims}, self.jwt_secret, "HS256")

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        """Run SQL past the API, as the owner; ``rwc_`` stands for the prefix."""
        cursor = self.connection.execute(text.replace("rwc_", self.prefix).encode())
        return cursor.fetchall() if cursor.description else []

    def refill(self) -> None:
        """Put the rows back that every case may count on."""
        self.sql((_FOLDER / "rows.sql").read_text())


@contextlib.contextmanager
def prepared(
    url: str, service_key: str, anon_key: str, db_url: str, jwt_secret: str, embedded: Gateway | None = None
) -> Generator[Target]:
    """Make this run's objects, and remove them afterwards."""
    with psycopg.connect(db_url, autocommit=True) as connection:
        prefix = f"rwc_{secrets.token_hex(3)}_"
        target = Target(url, service_key, anon_key, db_url, jwt_secret, connection, prefix, embedded)
        try:
            connection.execute("set search_path = public")
            target.sql((_FOLDER / "schema.sql").read_text())
            target.sql("insert into rwc_many select generate_series(1, 1100)")
            target.refill()
            _wait_for_api(target)
            yield target
        finally:
            target.sql((_FOLDER / "drop.sql").read_text())


def _wait_for_api(target: Target) -> None:
    """PostgREST learns of new tables a moment after they are made."""
    headers = {"apikey": target.service_key, "Authorization": f"Bearer {target.service_key}"}
    deadline = time.monotonic() + 30
    with httpx.Client(base_url=f"{target.url}/rest/v1", headers=headers) as client:
        while (answer := client.post(f"/rpc/{target.name('add')}", json={"a": 1})).status_code != 200:
            assert time.monotonic() < deadline, f"the API does not see the new objects: {answer.text}"


def given(config: pytest.Config) -> dict[str, str] | None:
    """What the options say, or None for the embedded Supabase; ends the run if something is missing."""
    url = config.getoption("supabase_url")
    if not url:
        return None
    local = httpx.URL(url).host in _LOCAL
    found = {
        "url": url.rstrip("/"),
        "service_key": config.getoption("supabase_service_key"),
        "anon_key": config.getoption("supabase_anon_key"),
        "db_url": config.getoption("db_url") or (CLI_DB_URL if local else ""),
        "jwt_secret": config.getoption("supabase_jwt_secret") or (JWT_SECRET if local else ""),
    }
    missing = [name for name, value in found.items() if not value and name != "jwt_secret"]
    if missing:
        needed = ", ".join(_OPTIONS[name] for name in missing)
        pytest.exit(f"--supabase-url needs {needed} as well", returncode=4)
    return found


_OPTIONS = {
    "service_key": "--supabase-service-key",
    "anon_key": "--supabase-anon-key",
    "db_url": "--db-url",
}
