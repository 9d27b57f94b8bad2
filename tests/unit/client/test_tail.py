"""Everybody's events against a scripted table: each once, in the order of each task."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from reactive_worker.client.tail import in_order, tail_events
from reactive_worker.models import TodoEvent
from tests.unit.client.scripted import COMPLETED, ID, STARTED, Clock, Link, Table, event_row, running, seqs

OTHER = str(uuid.UUID(int=1))


def tail(table: Table, limit: int, clock: Clock | None = None) -> AsyncGenerator[TodoEvent]:
    return tail_events(table, limit, link_type=Link, clock=clock)  # type: ignore[arg-type]


async def test_the_newest_come_first_then_each_new_one_once(links: list[Link]) -> None:
    table, clock = Table(), Clock()
    table.written = [event_row(1, STARTED), event_row(2), event_row(3)]
    async with running(seqs(tail(table, 2, clock), wanted=4)) as reading:
        await clock.resting()
        # Of another task, committed late: its transaction began long before the newest one seen.
        late = {**event_row(77, STARTED, OTHER), "created_at": "2029-01-01T00:00:00+00:00"}
        table.written += [late, event_row(4, COMPLETED)]
        links[0].hear(late)
        assert await asyncio.wait_for(reading, 10) == [2, 3, 77, 4]


async def test_none_of_the_past_is_shown_to_those_who_want_none(links: list[Link]) -> None:
    table, clock = Table(), Clock()
    table.written = [event_row(1), event_row(2)]
    async with running(seqs(tail(table, 0, clock), wanted=1)) as reading:
        await clock.resting()
        table.written.append(event_row(3))
        await clock.move(1)
        assert await asyncio.wait_for(reading, 10) == [3]


async def test_an_outage_loses_nothing_even_between_two_pages(
    links: list[Link], caplog: pytest.LogCaptureFixture
) -> None:
    table, clock = Table(), Clock()
    table.page = 2
    read = table.tail

    async def away_after_a_page(*args: Any, **options: Any) -> Any:
        table.outage = options.get("after") is not None and not caplog.records
        return await read(*args, **options)

    table.tail = away_after_a_page  # type: ignore[method-assign]
    async with running(seqs(tail(table, 1, clock), wanted=7)) as reading:
        await clock.resting()
        table.written = [event_row(n) for n in range(1, 8)]
        await clock.move(1)
        # Written after this look began: not before its last page.
        table.written.append(event_row(8))
        await clock.move(1)
        assert await asyncio.wait_for(reading, 10) == [1, 2, 3, 4, 5, 6, 7]
    assert caplog.text.count("still watching all tasks") == 1


def test_the_order_of_a_task_outweighs_that_of_the_clock() -> None:
    def at(second: int, seq: int, task: str) -> TodoEvent:
        return TodoEvent.from_row(
            {**event_row(seq, task=task), "created_at": f"2030-01-01T00:00:{second:02}+00:00"}
        )

    # Its second event was written by a transaction that had begun before that of the first.
    events = [at(5, 1, ID), at(3, 2, ID), at(4, 1, OTHER)]
    assert [(event.todolist_id, event.seq) for event in in_order(events)] == [(ID, 1), (OTHER, 1), (ID, 2)]
