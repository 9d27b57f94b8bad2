"""What a tail promises, on a real PostgreSQL: every committed event, once, whenever it was written."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import psycopg
import pytest

from reactive_worker.access.credentials import Credentials
from reactive_worker.client.tail import tail_events
from reactive_worker.models import TodoEvent
from reactive_worker.store.connection import Connection
from reactive_worker.store.store import TailPage, TodoStore
from tests.support import query

WRITE = """
insert into events (todolist_id, event_type, event_data, seq)
select %s, 'task_progress', jsonb_build_object('n', n, 'much', %s::text), n
from generate_series(%s::bigint, %s::bigint) n
"""


@pytest.fixture
async def store(local_supabase: Any) -> AsyncIterator[TodoStore]:
    connection = await Connection.open(local_supabase.api_url, local_supabase.service_role_key)
    yield TodoStore(connection)
    await connection.aclose()


async def task(db_url: str) -> str:
    id = str(uuid.uuid4())
    await query(
        db_url,
        "insert into todolist (id, agent_type, prompt, available_at) "
        "values (%s, 'nobody', 'p', now() + interval '1 day')",
        id,
    )
    return id


def write(connection: psycopg.Connection[Any], id: str, first: int, last: int, much: str = "") -> None:
    connection.execute(WRITE, (id, much, first, last))


async def all_of(store: TodoStore, since: str) -> tuple[list[tuple[str, int]], str]:
    """Every page of one look."""
    found: list[tuple[str, int]] = []
    page: TailPage = await store.tail(since, limit=3)
    while True:
        found += [(event.todolist_id, event.seq or 0) for event in page.events]
        if not page.more:
            return found, page.until
        page = await store.tail(since, limit=3, until=page.until, after=page.last)


async def test_transactions_are_told_when_they_commit_in_whatever_order(
    local_supabase: Any, store: TodoStore
) -> None:
    a, b, c = [await task(local_supabase.db_url) for _ in range(3)]
    since = (await store.tail()).until
    with (
        psycopg.connect(local_supabase.db_url) as early,
        psycopg.connect(local_supabase.db_url) as middle,
        psycopg.connect(local_supabase.db_url) as late,
    ):
        write(early, a, 1, 2)
        write(middle, b, 1, 2)
        write(late, c, 1, 2)
        assert (await all_of(store, since))[0] == []
        late.commit()
        told, since = await all_of(store, since)
        assert told == [(c, 1), (c, 2)]
        early.commit()
        told, since = await all_of(store, since)
        assert told == [(a, 1), (a, 2)]
        # Any number of looks later.
        for _ in range(3):
            told, since = await all_of(store, since)
            assert told == []
        middle.rollback()
        write(middle, b, 1, 7)
        with middle.transaction(), middle.transaction():
            write(middle, b, 8, 8)
        middle.commit()
        told, since = await all_of(store, since)
        assert told == [(b, seq) for seq in range(1, 9)]
        assert (await all_of(store, since))[0] == []


async def test_pages_of_a_look_show_one_moment(local_supabase: Any, store: TodoStore) -> None:
    id = await task(local_supabase.db_url)
    since = (await store.tail()).until
    with psycopg.connect(local_supabase.db_url, autocommit=True) as connection:
        write(connection, id, 1, 4)
        page = await store.tail(since, limit=3)
        assert ([event.seq for event in page.events], page.more) == ([1, 2, 3], True)
        write(connection, id, 5, 6)
        rest = await store.tail(since, limit=3, until=page.until, after=page.last)
        assert ([event.seq for event in rest.events], rest.more) == ([4], False)
        assert (await all_of(store, rest.until))[0] == [(id, 5), (id, 6)]


async def test_pages_are_bounded_by_bytes(local_supabase: Any, store: TodoStore) -> None:
    id = await task(local_supabase.db_url)
    since = (await store.tail()).until
    with psycopg.connect(local_supabase.db_url, autocommit=True) as connection:
        write(connection, id, 1, 2, "x" * 3_000_000)
        write(connection, id, 3, 3, "x" * 6_000_000)
    page = await store.tail(since)
    assert ([event.seq for event in page.events], page.more) == ([1], True)
    # The newest ones, too; one is always told, however large.
    assert [event.seq for event in (await store.tail()).events] == [3]
    assert (await all_of(store, since))[0] == [(id, 1), (id, 2), (id, 3)]


async def test_a_moment_of_another_database_is_noticed(local_supabase: Any, store: TodoStore) -> None:
    page = await store.tail("900000000:900000000:")
    assert (page.restarted, page.events) == (True, ())
    assert not (await store.tail(page.until)).restarted


async def test_rows_imported_from_another_database_are_no_news(local_supabase: Any, store: TodoStore) -> None:
    id = await task(local_supabase.db_url)
    since = (await store.tail()).until
    await query(
        local_supabase.db_url,
        "insert into events (todolist_id, event_type, event_data, seq, txid) "
        "values (%s, 'task_progress', '{}', 1, 900000000000)",
        id,
    )
    assert (await all_of(store, since))[0] == []


async def test_a_tail_misses_nothing_of_a_transaction_that_was_open_for_long(
    local_supabase: Any, store: TodoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it missed before: a transaction begun long before the newest event shown."""
    monkeypatch.setattr("reactive_worker.client.tail.POLL", 0.05)
    slow, quick = [await task(local_supabase.db_url) for _ in range(2)]
    with (
        psycopg.connect(local_supabase.db_url) as open_for_long,
        psycopg.connect(local_supabase.db_url, autocommit=True) as other,
    ):
        write(open_for_long, slow, 1, 1)
        # As if it had begun an hour ago; events carry the moment their transaction began.
        open_for_long.execute(
            "update events set created_at = now() - interval '1 hour' where todolist_id = %s", (slow,)
        )
        async with aclosing(cast("AsyncGenerator[TodoEvent]", tail_events(store, 1))) as events:
            write(other, quick, 1, 1)
            assert (await asyncio.wait_for(anext(events), 60)).todolist_id == quick
            write(other, quick, 2, 2)
            assert (await asyncio.wait_for(anext(events), 60)).seq == 2
            open_for_long.commit()
            assert (await asyncio.wait_for(anext(events), 60)).todolist_id == slow


async def test_a_signed_in_user_is_told_of_their_own_tasks_only(local_supabase: Any) -> None:
    mine, theirs = [await task(local_supabase.db_url) for _ in range(2)]
    me = str(uuid.uuid4())
    await query(local_supabase.db_url, "update todolist set owner_id = %s where id = %s", me, mine)
    credentials = Credentials(local_supabase.publishable_key, local_supabase.keys.mint_user(me))
    connection = await Connection.open(local_supabase.api_url, credentials)
    store = TodoStore(connection)
    since = (await store.tail()).until
    with psycopg.connect(local_supabase.db_url, autocommit=True) as other:
        write(other, mine, 1, 1)
        write(other, theirs, 1, 1)
    assert (await all_of(store, since))[0] == [(mine, 1)]
    assert [event.todolist_id for event in (await store.tail()).events] == [mine]
    await connection.aclose()


async def test_a_look_costs_the_same_however_long_the_log_is(local_supabase: Any) -> None:
    """Counted in pages, never in seconds."""
    id = await task(local_supabase.db_url)
    with psycopg.connect(local_supabase.db_url, autocommit=True) as connection:

        def pages() -> int:
            [(since,)] = connection.execute("select pg_current_snapshot()::text").fetchall()
            [(last,)] = connection.execute("select max(seq) from events").fetchall()
            write(connection, id, last + 1, last + 3)
            counts: list[int] = []
            for _ in range(2):  # the first time counts reading the catalogs, too
                [(plan,)] = connection.execute(
                    "explain (analyze, buffers, timing off, format json) select tail_events(%s)", (since,)
                ).fetchall()
                node = plan[0]["Plan"]
                counts.append(node["Shared Hit Blocks"] + node["Shared Read Blocks"])
            return counts[-1]

        write(connection, id, 1, 100)
        connection.execute("vacuum (analyze) events")
        few = pages()
        write(connection, id, 1_000, 20_000)
        connection.execute("vacuum (analyze) events")
        assert pages() <= few * 2.5
