"""Waiting for tasks to end: one poll serves every waiter of a client, and Realtime shortens the wait.

A thousand `wait_for_completion` calls at once must not become a thousand requests a second. All waiters of a
client share one loop, which asks for the status of everything that is due with one request for each hundred
tasks; each waiter's interval grows with the time it has waited already. Realtime is a hint only: a terminal
event heard there makes the waiter due at once, and nothing is lost when it is never heard.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, field

from reactive_worker.backoff import Backoff
from reactive_worker.errors import TaskNotFoundError, UnreachableError
from reactive_worker.models import EventType, TodoStatus
from reactive_worker.store.connection import Connection
from reactive_worker.store.push.changes import Binding, Change, RealtimeLink

logger = logging.getLogger(__name__)

#: Shortest and longest seconds between two looks at one task.
POLL_FIRST = 0.05
POLL_MOST = 5.0
#: Seconds between looks that fail.
OUTAGE = Backoff(0.2, POLL_MOST, jitter=0.0)
#: A look costs at most this share of what has been waited already, so a result is at most 10 % late.
POLL_SHARE = 0.1
#: Tasks ending sooner than this are not worth a socket.
PUSH_AFTER = 1.0
#: Ids in one request: 100 uuids keep the URL below 4 KiB, and the answer below any max_rows.
IDS_PER_REQUEST = 100

#: What ends a wait. Filtered on the server: a client hears one small event for each task that ends or parks.
_ENDINGS = (
    EventType.COMPLETED,
    EventType.FAILED,
    EventType.REJECTED,
    EventType.CANCELLED,
    EventType.INPUT_REQUIRED,
    EventType.AUTH_REQUIRED,
)
_BINDING = Binding("events", "INSERT", f"event_type=in.({','.join(_ENDINGS)})")


@dataclass(eq=False, slots=True)
class _Waiter:
    id: str
    until: Collection[TodoStatus]
    began: float
    due: float
    #: True once its row was read: from then on an outage is waited out instead of told.
    seen: bool = False
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class CompletionWatch:
    """Tells when tasks reach one of a set of states. Runs only while somebody waits."""

    def __init__(self, link_type: type[RealtimeLink] = RealtimeLink) -> None:
        self._link_type = link_type
        self._waiters: set[_Waiter] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def wait(self, connection: Connection, id: str, until: Collection[TodoStatus]) -> None:
        """Return when task `id` has one of the states `until`.

        Raises
        ------
        TaskNotFoundError
            The row is gone, or not ours to see.
        SupabaseError
            Supabase refused to say, or cannot be reached at the first look. Later outages are waited out.
        """
        now = asyncio.get_running_loop().time()
        waiter = _Waiter(id, until, now, now)
        self._waiters.add(waiter)
        if self._task is None or self._task.done():
            self._wake = asyncio.Event()
            self._task = asyncio.create_task(self._run(connection), name="reactive-worker wait")
            self._task.add_done_callback(self._ended)
        self._wake.set()
        try:
            await waiter.done
        finally:
            self._waiters.discard(waiter)
            self._wake.set()

    async def aclose(self) -> None:
        """End the loop; whoever still waits is cancelled."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        for waiter in self._waiters:
            if not waiter.done.done():
                if error is None:
                    waiter.done.cancel()
                else:
                    waiter.done.set_exception(error)

    async def _run(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        link: RealtimeLink | None = None
        outage = 0
        try:
            while pending := [waiter for waiter in self._waiters if not waiter.done.done()]:
                now = loop.time()
                if link is None and min(waiter.began for waiter in pending) + PUSH_AFTER <= now:
                    link = self._link_type(
                        connection.url,
                        connection.credentials,
                        "reactive-worker-wait",
                        [_BINDING],
                        on_change=self._heard,
                        # What ended before the subscription is told to nobody: look once more.
                        on_ready=self._look_now,
                    )
                    await link.start()
                if min(waiter.due for waiter in pending) <= now:
                    # Whoever is due soon comes along: few large requests instead of many small ones.
                    due = [waiter for waiter in pending if waiter.due <= now + POLL_FIRST / 2]
                    outage = await self._look(connection, due, outage)
                    continue
                self._wake.clear()
                try:
                    async with asyncio.timeout(min(waiter.due for waiter in pending) - now):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            if link is not None:
                await link.stop()

    async def _look(self, connection: Connection, due: list[_Waiter], outage: int) -> int:
        """Ask for the states of `due`; returns how many looks in a row have failed."""
        ids = sorted({waiter.id for waiter in due})
        found: dict[str, str] = {}
        try:
            for start in range(0, len(ids), IDS_PER_REQUEST):
                chunk = ids[start : start + IDS_PER_REQUEST]
                rows = await connection.select(
                    "todolist", "id,agent_status", filters=[("id", "in", f"({','.join(chunk)})")]
                )
                found.update((str(row["id"]), str(row["agent_status"])) for row in rows)
        except UnreachableError as error:
            # The tasks go on without us; so does the wait, until its caller's own time-out.
            if outage == 0 and any(waiter.seen for waiter in due):
                logger.warning("still waiting for %d task(s): %s", len(ids), error)
            now = asyncio.get_running_loop().time()
            for waiter in due:
                if not waiter.seen and not waiter.done.done():
                    waiter.done.set_exception(error)
                waiter.due = now + OUTAGE.delay(outage + 1)
            return outage + 1
        now = asyncio.get_running_loop().time()
        for waiter in due:
            waiter.seen = True
            state = found.get(waiter.id)
            if waiter.done.done():
                continue
            if state is None:
                waiter.done.set_exception(
                    TaskNotFoundError(f"no task {waiter.id}, or it belongs to somebody else")
                )
            elif state in waiter.until:
                waiter.done.set_result(None)
            else:
                waited = now - waiter.began
                waiter.due = now + min(POLL_MOST, max(POLL_FIRST, waited * POLL_SHARE))
        return 0

    def _look_now(self) -> None:
        for waiter in self._waiters:
            waiter.due = 0.0
        self._wake.set()

    def _heard(self, change: Change) -> None:
        id = change.record.get("todolist_id")
        for waiter in self._waiters:
            if waiter.id == id:
                waiter.due = 0.0
                self._wake.set()
