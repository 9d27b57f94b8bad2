"""Waiting against a scripted table: nobody is told what did not happen to them."""

from __future__ import annotations

import asyncio
import threading
import uuid
from typing import Any

import pytest

from reactive_worker.client.completion import CompletionWatch
from reactive_worker.errors import ClientClosedError, TaskNotFoundError, UnreachableError
from reactive_worker.models import TodoStatus
from tests.unit.client.scripted import COMPLETED, ID, Clock, Link, Table, event_row, running, todo_row

ENDED = frozenset({TodoStatus.COMPLETED})


async def test_a_thousand_waiters_share_a_few_requests(links: list[Link]) -> None:
    table = Table()
    ids = [str(uuid.uuid4()) for _ in range(1000)]
    table.rows = {id: todo_row(id, "completed") for id in ids}
    watch = CompletionWatch(Link)  # type: ignore[arg-type]
    await asyncio.gather(*(watch.wait(table, id, ENDED) for id in ids))  # type: ignore[arg-type]
    assert table.requests == 10
    await watch.aclose()


async def test_a_waiter_hears_of_a_deleted_task(links: list[Link]) -> None:
    table = Table()
    watch = CompletionWatch(Link)  # type: ignore[arg-type]
    waiting = asyncio.create_task(watch.wait(table, ID, ENDED))  # type: ignore[arg-type]
    await table.until_read()
    table.rows.clear()
    with pytest.raises(TaskNotFoundError):
        await asyncio.wait_for(waiting, 10)


async def test_an_outage_does_not_end_a_wait(links: list[Link]) -> None:
    table = Table()
    watch = CompletionWatch(Link)  # type: ignore[arg-type]
    waiting = asyncio.create_task(watch.wait(table, ID, ENDED))  # type: ignore[arg-type]
    await table.until_read()
    table.outage = True
    await table.until_read()
    table.outage = False
    table.rows[ID] = todo_row(status="completed")
    await asyncio.wait_for(waiting, 10)


async def test_a_refusal_reaches_every_waiter(links: list[Link]) -> None:
    table = Table()

    async def refuse(*_: Any, **__: Any) -> Any:
        raise TaskNotFoundError("refused")

    table.select = refuse  # type: ignore[method-assign]
    watch = CompletionWatch(Link)  # type: ignore[arg-type]
    ends = await asyncio.gather(
        *(watch.wait(table, ID, ENDED) for _ in range(3)),  # type: ignore[arg-type]
        return_exceptions=True,
    )
    assert [str(end) for end in ends] == ["refused"] * 3


async def test_a_long_wait_opens_one_link_and_closes_it(
    links: list[Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactive_worker.client.completion.PUSH_AFTER", 0.0)
    # Polling would not look again within this test: only what is heard can end the wait.
    monkeypatch.setattr("reactive_worker.client.completion.POLL_FIRST", 3600.0)
    monkeypatch.setattr("reactive_worker.client.completion.POLL_MOST", 3600.0)
    table = Table()
    watch = CompletionWatch(Link)  # type: ignore[arg-type]
    waiting = [asyncio.create_task(watch.wait(table, ID, ENDED)) for _ in range(2)]  # type: ignore[arg-type]
    await table.until_read(1)
    table.rows[ID] = todo_row(status="completed")
    links[0].hear(event_row(1, COMPLETED))
    await asyncio.wait_for(asyncio.gather(*waiting), 10)
    await watch.aclose()
    assert len(links) == 1
    assert links[0].stopped


async def test_nothing_runs_when_nobody_waits(links: list[Link]) -> None:
    table = Table()
    watch = CompletionWatch(Link)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await watch.wait(table, ID, ENDED)  # type: ignore[arg-type]
    # The loop sees that its last waiter left, and ends without being told.
    for _ in range(10):
        await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


class SlowToStop(Link):
    """A link whose socket takes its time to close."""

    closing: asyncio.Event
    may_close: asyncio.Event

    async def stop(self) -> None:
        self.closing.set()
        await self.may_close.wait()
        await super().stop()


async def test_a_newcomer_while_the_last_waiter_leaves_waits_for_itself(links: list[Link]) -> None:
    SlowToStop.closing, SlowToStop.may_close = asyncio.Event(), asyncio.Event()
    table, watch = Table(), CompletionWatch(SlowToStop)  # type: ignore[arg-type]
    table.rows[ID] = todo_row(status="completed")
    await watch.wait(table, ID, ENDED)  # type: ignore[arg-type]
    table.rows[ID] = todo_row()
    await asyncio.wait_for(SlowToStop.closing.wait(), 10)
    async with running(watch.wait(table, ID, ENDED)) as newcomer:  # type: ignore[arg-type]
        await table.until_read()
        SlowToStop.may_close.set()
        # The loop before has ended by now, and took nobody along.
        await table.until_read()
        assert not newcomer.done()
        table.rows[ID] = todo_row(status="completed")
        await asyncio.wait_for(newcomer, 10)
    await watch.aclose()
    assert [link.stopped for link in links] == [True, True]


async def test_closing_ends_every_wait_with_an_error_of_ours(links: list[Link]) -> None:
    table, watch = Table(), CompletionWatch(Link)  # type: ignore[arg-type]
    waits = [asyncio.create_task(watch.wait(table, ID, ENDED)) for _ in range(3)]  # type: ignore[arg-type]
    await table.until_read()
    await watch.aclose()
    ends = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(end) for end in ends] == [ClientClosedError] * 3
    assert "the task goes on" in str(ends[0])
    table.rows[ID] = todo_row(status="completed")
    await watch.wait(table, ID, ENDED)  # type: ignore[arg-type]
    await watch.aclose()


async def test_a_loop_that_somebody_else_cancels_cancels_no_waiter(links: list[Link]) -> None:
    for early in (True, False):
        table, watch = Table(), CompletionWatch(Link)  # type: ignore[arg-type]
        waiting = asyncio.create_task(watch.wait(table, ID, ENDED))  # type: ignore[arg-type]
        # Before its first step, and in the middle of its work.
        await (asyncio.sleep(0) if early else table.until_read())
        for task in asyncio.all_tasks():
            if task.get_name() == "reactive-worker wait":
                task.cancel()
        with pytest.raises(ClientClosedError):
            await asyncio.wait_for(waiting, 10)


async def test_a_refusal_is_for_those_who_asked(links: list[Link]) -> None:
    table, clock = Table(), Clock()
    watch = CompletionWatch(Link, clock)  # type: ignore[arg-type]
    async with running(watch.wait(table, ID, ENDED)) as patient:  # type: ignore[arg-type]
        await clock.resting()
        table.refusal = TaskNotFoundError("refused")
        with pytest.raises(TaskNotFoundError, match="refused"):
            await watch.wait(table, str(uuid.uuid4()), ENDED)  # type: ignore[arg-type]
        table.refusal = None
        table.rows[ID] = todo_row(status="completed")
        await clock.move(1)
        await asyncio.wait_for(patient, 10)
    await watch.aclose()


async def test_an_outage_at_the_first_look_is_told_and_a_later_one_is_waited_out(
    links: list[Link], caplog: pytest.LogCaptureFixture
) -> None:
    table, clock = Table(), Clock()
    watch = CompletionWatch(Link, clock)  # type: ignore[arg-type]
    async with running(watch.wait(table, ID, ENDED)) as patient:  # type: ignore[arg-type]
        await clock.resting()
        table.outage = True
        with pytest.raises(UnreachableError):
            await watch.wait(table, ID, ENDED)  # type: ignore[arg-type]
        for _ in range(20):
            await clock.move(5)
        assert not patient.done()
        assert caplog.text.count("still waiting for tasks") == 1
        table.outage = False
        table.rows[ID] = todo_row(status="completed")
        await clock.move(5)
        await asyncio.wait_for(patient, 10)
    await watch.aclose()


async def test_a_look_is_at_most_a_tenth_late_and_at_most_five_seconds(links: list[Link]) -> None:
    table, clock = Table(), Clock()
    watch = CompletionWatch(Link, clock)  # type: ignore[arg-type]
    async with running(watch.wait(table, ID, ENDED)):  # type: ignore[arg-type]
        while clock.now < 1000:
            await clock.resting()
            pause = clock.pauses[-1]
            assert pause <= max(0.05, clock.now / 10) + 1e-6
            assert pause <= 5
            await clock.move(pause)
    assert table.requests < 300
    await watch.aclose()


async def test_what_is_heard_during_a_look_is_looked_at(links: list[Link]) -> None:
    table, clock = Table(), Clock()
    watch = CompletionWatch(Link, clock)  # type: ignore[arg-type]
    async with running(watch.wait(table, ID, ENDED)) as waiting:  # type: ignore[arg-type]
        await clock.resting()
        clock.now = 100.0
        read = table.select

        async def told_meanwhile(*args: Any, **query: Any) -> Any:
            rows = await read(*args, **query)
            # The end was committed after the answer was made, and is told before it arrives.
            table.rows[ID] = todo_row(status="completed")
            links[0].hear(event_row(1, COMPLETED))
            table.select = read  # type: ignore[method-assign]
            return rows

        table.select = told_meanwhile  # type: ignore[method-assign]
        links[0].hear(event_row(1))
        # The clock stands still: only what was heard can have ended it.
        await asyncio.wait_for(waiting, 10)
    await watch.aclose()


async def test_each_event_loop_has_a_wait_of_its_own(links: list[Link]) -> None:
    watch = CompletionWatch(Link)  # type: ignore[arg-type]
    ended: list[str] = []

    async def one(name: str) -> None:
        table = Table()
        waiting = asyncio.create_task(watch.wait(table, ID, ENDED))  # type: ignore[arg-type]
        await table.until_read()
        table.rows[ID] = todo_row(status="completed")
        await asyncio.wait_for(waiting, 10)
        ended.append(name)

    table = Table()
    async with running(watch.wait(table, ID, ENDED)) as waiting:  # type: ignore[arg-type]
        await table.until_read()
        for name in ("a", "b"):
            thread = threading.Thread(target=lambda name=name: asyncio.run(one(name)))
            thread.start()
            await asyncio.to_thread(thread.join)
        table.rows[ID] = todo_row(status="completed")
        await asyncio.wait_for(waiting, 10)
    assert ended == ["a", "b"]
    await watch.aclose()


async def test_closing_reaches_a_wait_in_another_thread(links: list[Link]) -> None:
    watch = CompletionWatch(Link)  # type: ignore[arg-type]
    begun, ends = threading.Event(), []

    async def elsewhere() -> None:
        table = Table()
        waiting = asyncio.create_task(watch.wait(table, ID, ENDED))  # type: ignore[arg-type]
        await table.until_read()
        begun.set()
        [end] = await asyncio.gather(waiting, return_exceptions=True)
        ends.append(end)

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    await asyncio.to_thread(begun.wait, 10)
    await watch.aclose()
    await asyncio.to_thread(thread.join, 10)
    assert [type(end) for end in ends] == [ClientClosedError]
