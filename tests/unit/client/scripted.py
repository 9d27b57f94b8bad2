"""A table, a Realtime and a clock that tests drive by hand."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from reactive_worker.access.credentials import Credentials
from reactive_worker.errors import TaskNotFoundError, UnreachableError
from reactive_worker.models import Todo, TodoEvent
from reactive_worker.store.push.changes import Change
from reactive_worker.store.store import TailPage

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
        self.refusal: Exception | None = None
        self.requests = 0
        self.page = 500
        self.read = asyncio.Event()

    @property
    def connection(self) -> Table:
        return self

    def _request(self) -> None:
        self.requests += 1
        self.read.set()
        if self.outage:
            raise UnreachableError("gone")
        if self.refusal is not None:
            raise self.refusal

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

    async def tail(
        self,
        since: str | None = None,
        *,
        limit: int = 500,
        until: str | None = None,
        after: tuple[str, int] | None = None,
    ) -> TailPage:
        """What was written since; a moment is the number of rows that were there."""
        self._request()
        now = until or str(len(self.written))
        if since is None:
            rows, page = self.written, self.written[-limit:]
        else:
            rows = sorted(
                self.written[int(since) : int(now)], key=lambda row: (row["todolist_id"], row["seq"])
            )
            rows = [row for row in rows if after is None or (row["todolist_id"], row["seq"]) > after]
            page = rows[: self.page]
        return TailPage(
            events=tuple(TodoEvent.from_row(row) for row in page),
            until=now,
            more=since is not None and len(rows) > len(page),
            last=(page[-1]["todolist_id"], page[-1]["seq"]) if page else None,
        )

    async def select(self, table: str, columns: str = "*", **query: Any) -> list[dict[str, Any]]:
        self._request()
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


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0
        #: Every pause that was begun, in seconds.
        self.pauses: list[float] = []
        self._sleepers: dict[asyncio.Future[None], float] = {}
        self._begun = asyncio.Event()

    def time(self) -> float:
        return self.now

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        if event.is_set():
            return
        self.pauses.append(seconds)
        over = asyncio.get_running_loop().create_future()
        self._sleepers[over] = self.now + seconds
        self._begun.set()
        heard = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait([over, heard], return_when=asyncio.FIRST_COMPLETED)
        finally:
            heard.cancel()
            del self._sleepers[over]

    async def resting(self) -> None:
        """Wait until somebody rests."""
        async with asyncio.timeout(10):
            while not self._sleepers:
                self._begun.clear()
                await self._begun.wait()

    async def move(self, seconds: float) -> None:
        """Wait until somebody rests, and let time pass for them."""
        await self.resting()
        self.now += seconds
        due = [over for over, until in self._sleepers.items() if until <= self.now]
        for over in due:
            if not over.done():
                over.set_result(None)
        while any(over in self._sleepers for over in due):
            await asyncio.sleep(0)


async def seqs(stream: AsyncGenerator[TodoEvent], wanted: int | None = None) -> list[int]:
    """The numbers a stream tells, all or so many of them."""
    found: list[int] = []
    async with aclosing(stream):
        async for event in stream:
            found.append(event.seq or 0)
            if len(found) == wanted:
                break
    return found


@contextlib.asynccontextmanager
async def running(coroutine: Any) -> AsyncGenerator[asyncio.Task[Any]]:
    """A task that does not outlive its test."""
    task = asyncio.create_task(coroutine)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
