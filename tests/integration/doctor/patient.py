"""A Supabase with something wrong, and the doctor who looks at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from reactive_worker.access.credentials import Credentials
from reactive_worker.doctor import Finding, examine
from reactive_worker.local.gateway import Gateway


def bad(findings: Sequence[Finding]) -> dict[str, str]:
    """What is not ok: {name: level}."""
    return {finding.name: finding.level for finding in findings if finding.level != "ok"}


class Patient:
    """One Supabase and its doctor, who looks with the service role key unless told otherwise."""

    def __init__(self, supabase: Gateway, admin_dsn: str = "") -> None:
        self.supabase = supabase
        self.admin_dsn = admin_dsn
        self.credentials = Credentials(supabase.secret_key)

    def recover(self) -> None:
        """Forget rows, keys and switches of the last test; what it did to the schema it must have mended."""
        self.supabase.faults.reset()
        self.credentials = Credentials(self.supabase.secret_key)
        self.sql("delete from public.todolist; delete from public.workers")

    def sql(self, statements: str) -> None:
        """As the owner of the project, in its SQL editor."""
        with psycopg.connect(self.supabase.db_url, autocommit=True) as connection:
            connection.execute(statements.encode())

    async def look(self, **options: Any) -> list[Finding]:
        """The findings; without a probe through Realtime unless asked for."""
        options = {"probe": False, **options}
        return await examine(self.supabase.api_url, self.credentials, **options)

    async def look_until(self, wanted: Callable[[dict[str, str]], bool], **options: Any) -> list[Finding]:
        """Look again until the API has read its schema anew."""
        deadline = asyncio.get_running_loop().time() + 20
        while not wanted(bad(findings := await self.look(**options))):
            assert asyncio.get_running_loop().time() < deadline, bad(findings)
        return findings
