"""Streaming and waiting against a scripted table: each event once, whatever Realtime says or does not say."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from reactive_worker.access.credentials import Credentials
from reactive_worker.client.completion import CompletionWatch
from reactive_worker.client.follow import follow_events
from reactive_worker.client.tail import tail_events
from reactive_worker.errors import TaskNotFoundError, UnreachableError
from reactive_worker.models import Todo, TodoEvent, TodoStatus
from reactive_worker.store.push.changes import Change

ID = str(uuid.uuid4())
STARTED, PROGRESS, COMPLETED, FAILED = "task_started", "task_progress", "task_completed", "task_failed"


def todo_row(id: str = ID, status: str = "in_progress") -> dict[str, Any]:
    return {
        "id": id,
        "agent_type": "t",
        "prompt": "p",
        "agent_status": status,
        "created_at": "2030-01-01T00:00:00+00:00",
    }


def event_row(seq: int, kind: str = PROGRESS, task: str = ID) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid5(uuid.UUID(task), str(seq))),
        "todolist_id": task,
        "attempt": 1,
        "event_type": kind,
        "event_data": {},
        "seq": seq,
        "created_at": f"2030-01-01T00:00:{seq:02}+00:00",
    }


class Table:
    """Rows and events in memory, with the reads of TodoStore and Connection."""

    url, credentials = "http://127.0.0.1:9", Credentials("key")

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {ID: todo_row()}
        self.written: list[dict[str, Any]] = []
        self.outage = False
        self.requests = 0
        self.read = asyncio.Event()

    @property
    def connection(self) -> Table:
        return self

    def _request(self) -> None:
        self.requests += 1
        self.read.set()
        if self.outage:
            raise UnreachableError("gone")

    async def until_read(self, times: int = 2) -> None:
        """Wait until the reader has looked again, so often."""
        for _ in range(times):
            self.read.clear()
            await asyncio.wait_for(self.read.wait(), 10)

    async def get(self, id: str) -> Todo:
        self._request()
        if id not in self.rows:
            raise TaskNotFoundError(f"no task {id}")
        return Todo.from_row(self.rows[id])

    async def events(self, id: str, after: int = 0, limit: int = 500) -> list[TodoEvent]:
        self._request()
        return [TodoEvent.from_row(row) for row in self.written if row["seq"] > after][:limit]

    async def recent_events(self, limit: int) -> list[TodoEvent]:
        self._request()
        return [TodoEvent.from_row(row) for row in reversed(self.written)][:limit]

    async def select(self, table: str, columns: str = "*", **query: Any) -> list[dict[str, Any]]:
        self._request()
        if table == "events":
            start = query.get("offset") or 0
            return self.written[start : start + query["limit"]]
        ids = query["filters"][0][2].strip("()").split(",")
        return [self.rows[id] for id in ids if id in self.rows]


class Link:
    """A RealtimeLink driven by the test."""

    made: list[Link]

    def __init__(
        self,
        url: str,
        key: Credentials,
        topic: str,
        bindings: Any,
        *,
        on_change: Callable[[Change], None],
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self.hear = lambda row: on_change(Change("events", "INSERT", row))
        self.started = self.stopped = False
        self.on_ready = on_ready
        self.made.append(self)

    async def start(self) -> None:
        self.started = True

    async def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def links() -> list[Link]:
    Link.made = []
    return Link.made


def follow(table: Table, **options: Any) -> AsyncGenerator[TodoEvent]:
    return follow_events(table, ID, link_type=Link, **options)  # type: ignore[arg-type,return-value]


async def seqs(stream: AsyncGenerator[TodoEvent], wanted: int | None = None) -> list[int]:
    found: list[int] = []
    async with aclosing(stream):
        async for event in stream:
            found.append(event.seq or 0)
            if len(found) == wanted:
                break
    return found


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


# -- waiting ------------------------------------------------------------------------------------------

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


# -- everybody's events ----------------------------------------------------------------------------------


async def test_tail_shows_the_newest_then_each_new_one_once(links: list[Link]) -> None:
    table = Table()
    table.written = [event_row(1, STARTED), event_row(2), event_row(3)]
    reading = asyncio.create_task(seqs(tail_events(table, 2, link_type=Link), wanted=4))  # type: ignore[arg-type]
    await table.until_read()
    # One of another task, committed late: its created_at lies before the newest one seen.
    late = {**event_row(1, STARTED, str(uuid.uuid4())), "seq": 77, "created_at": "2030-01-01T00:00:02+00:00"}
    table.written += [late, event_row(4, COMPLETED)]
    links[0].hear(late)
    assert await asyncio.wait_for(reading, 10) == [2, 3, 77, 4]
