"""Streaming against a scripted table: each event once, whatever Realtime says or does not say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from reactive_worker.client.follow import follow_events
from reactive_worker.errors import TaskNotFoundError
from reactive_worker.models import TodoEvent
from tests.unit.client.scripted import (
    COMPLETED,
    FAILED,
    ID,
    STARTED,
    Link,
    Table,
    event_row,
    seqs,
    todo_row,
)


def follow(table: Table, **options: Any) -> AsyncGenerator[TodoEvent]:
    return follow_events(table, ID, link_type=Link, **options)  # type: ignore[arg-type,return-value]


async def test_history_of_an_ended_task_needs_no_socket(links: list[Link]) -> None:
    table = Table()
    table.written = [event_row(1, STARTED), event_row(2), event_row(3, COMPLETED)]
    table.rows[ID] = todo_row(status="completed")
    assert await seqs(follow(table)) == [1, 2, 3]
    assert not links[0].started


async def test_it_resumes_after_a_number(links: list[Link]) -> None:
    table = Table()
    table.written = [event_row(1, STARTED), event_row(2), event_row(3, COMPLETED)]
    assert await seqs(follow(table, after=1)) == [2, 3]


async def test_nothing_is_left_to_tell_of_an_ended_task(links: list[Link]) -> None:
    table = Table()
    table.written = [event_row(1, COMPLETED)]
    table.rows[ID] = todo_row(status="completed")
    assert await seqs(follow(table, after=1)) == []
    assert await seqs(follow(table, after=99)) == []


async def test_a_row_ended_by_hand_without_an_event_ends_the_stream(links: list[Link]) -> None:
    table = Table()
    table.rows[ID] = todo_row(status="cancelled")
    assert await seqs(follow(table)) == []


async def test_an_unknown_task_is_an_error(links: list[Link]) -> None:
    table = Table()
    table.rows.clear()
    with pytest.raises(TaskNotFoundError):
        await seqs(follow(table))


async def test_changes_heard_are_told_without_asking_and_never_twice(links: list[Link]) -> None:
    table = Table()
    table.written = [event_row(1, STARTED)]
    reading = asyncio.create_task(seqs(follow(table)))
    await table.until_read()
    for row in (event_row(2), event_row(3), event_row(4, COMPLETED)):
        table.written.append(row)
        links[0].hear(row)
        links[0].hear(row)
    assert await asyncio.wait_for(reading, 10) == [1, 2, 3, 4]
    assert links[0].stopped


async def test_a_gap_in_what_is_heard_is_read_from_the_table(links: list[Link]) -> None:
    table = Table()
    table.written = [event_row(1, STARTED)]
    reading = asyncio.create_task(seqs(follow(table)))
    await table.until_read()
    table.written += [event_row(2), event_row(3), event_row(4, COMPLETED)]
    links[0].hear(event_row(4, COMPLETED))
    assert await asyncio.wait_for(reading, 10) == [1, 2, 3, 4]


async def test_a_change_that_lost_its_large_column_is_read_from_the_table(links: list[Link]) -> None:
    table = Table()
    table.written = [event_row(1, STARTED)]
    reading = asyncio.create_task(seqs(follow(table)))
    await table.until_read()
    table.written.append(event_row(2, COMPLETED))
    links[0].hear({name: value for name, value in event_row(2).items() if name != "event_data"})
    assert await asyncio.wait_for(reading, 10) == [1, 2]


async def test_polling_alone_tells_everything(links: list[Link]) -> None:
    table = Table()
    reading = asyncio.create_task(seqs(follow(table)))
    await table.until_read()
    table.written = [event_row(1, STARTED), event_row(2, COMPLETED)]
    assert await asyncio.wait_for(reading, 10) == [1, 2]


async def test_an_outage_is_waited_out(links: list[Link]) -> None:
    table = Table()
    table.written = [event_row(1, STARTED)]
    reading = asyncio.create_task(seqs(follow(table)))
    await table.until_read()
    table.outage = True
    await table.until_read()
    table.outage = False
    table.written.append(event_row(2, COMPLETED))
    assert await asyncio.wait_for(reading, 10) == [1, 2]


async def test_a_retry_in_the_past_is_no_end(links: list[Link]) -> None:
    table = Table()
    table.written = [event_row(1, FAILED), event_row(2, "task_retried"), event_row(3, COMPLETED)]
    assert await seqs(follow(table)) == [1, 2, 3]


async def test_follow_goes_on_after_the_end(links: list[Link]) -> None:
    table = Table()
    table.written = [event_row(1, FAILED)]
    reading = asyncio.create_task(seqs(follow(table, follow=True), wanted=2))
    await table.until_read()
    table.written.append(event_row(2, "task_retried"))
    links[0].hear(event_row(2, "task_retried"))
    assert await asyncio.wait_for(reading, 10) == [1, 2]
    assert links[0].stopped


async def test_history_longer_than_a_page_is_complete(links: list[Link]) -> None:
    table = Table()
    table.written = [{**event_row(1), "seq": seq} for seq in range(1, 1202)]
    table.written.append({**event_row(1, COMPLETED), "seq": 1202})
    assert await seqs(follow(table)) == list(range(1, 1203))
