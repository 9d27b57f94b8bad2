"""The SQL connection of the embedded Realtime: whenever its user gives up, somebody closes it."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from reactive_worker.local.realtime.database import Database


class Connection:
    closed = False

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("turns", range(8))
async def test_a_connection_made_in_the_moment_its_user_gives_up_is_closed(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Connection] = []
    answered = asyncio.Event()

    async def connect(*_: Any, **__: Any) -> Any:
        await answered.wait()
        made.append(Connection())
        return made[-1]

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", connect)
    database = Database("", name="test")

    async def use() -> None:
        async with database.connection():
            await asyncio.Event().wait()

    user = asyncio.create_task(use())
    for _ in range(4):
        await asyncio.sleep(0)
    answered.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    user.cancel()
    await asyncio.wait([user])
    await database.close()
    assert [one.closed for one in made] == [True]
