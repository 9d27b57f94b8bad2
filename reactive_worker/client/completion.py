"""Waiting for tasks to end: one poll serves every waiter of a client, and Realtime shortens the wait.

A thousand `wait_for_completion` calls at once must not become a thousand requests a second. All waiters of a
client share one loop, which asks for the status of everything that is due with one request for each hundred
tasks; each waiter's interval grows with the time it has waited already. Realtime is a hint only: a terminal
event heard there makes the waiter due at once, and nothing is lost when it is never heard.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Collection
from dataclasses import dataclass, field

from reactive_worker.backoff import Backoff
from reactive_worker.client._lookout import Clock, Lookout, LoopClock
from reactive_worker.errors import ClientClosedError, ReactiveWorkerError, TaskNotFoundError
from reactive_worker.models import EventType, TodoStatus
from reactive_worker.store.connection import Connection
from reactive_worker.store.per_loop import PerLoop
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

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class CompletionWatch:
    """Tells when tasks reach one of a set of states. Runs only while somebody waits.

    Parameters
    ----------
    link_type:
        What hears Realtime.
    clock:
        What waiting is measured with.
    """

    def __init__(self, link_type: type[RealtimeLink] = RealtimeLink, clock: Clock | None = None) -> None:
        self._link_type = link_type
        self._clock: Clock = clock or LoopClock()
        self._polls = PerLoop[_Poll]()

    async def wait(self, connection: Connection, id: str, until: Collection[TodoStatus]) -> None:
        """Return when task `id` has one of the states `until`.

        Raises
        ------
        TaskNotFoundError
            The row is gone, or not ours to see.
        ClientClosedError
            The client was closed meanwhile.
        SupabaseError
            Supabase refused to say, or cannot be reached at the first look. Later outages are waited out.
        """
        poll = self._polls.get()
        if poll is None or not poll.is_open:
            poll = self._polls.keep(_Poll(connection, self._link_type, self._clock, poll))
        await poll.wait(id, until)

    @property
    def seen(self) -> int:
        """How many who wait in this event loop have had their first look: they sit outages out."""
        poll = self._polls.get()
        return 0 if poll is None else poll.seen

    async def aclose(self) -> None:
        """End the loop; whoever still waits hears ClientClosedError."""
        await self._polls.end(_Poll.aclose)


class _Poll:
    """One loop, from its first waiter to its last. Whoever comes later than that starts another one."""

    def __init__(
        self, connection: Connection, link_type: type[RealtimeLink], clock: Clock, before: _Poll | None
    ) -> None:
        #: False once its last waiter has left.
        self.is_open = True
        self._clock = clock
        self._connection = connection
        self._waiters: set[_Waiter] = set()
        self._outages = 0
        self._lookout = Lookout(
            connection,
            "reactive-worker-wait",
            _BINDING,
            doing="waiting for tasks",
            first=POLL_FIRST,
            most=POLL_MOST,
            hear=self._heard,
            # What ended before the subscription is told to nobody: look once more.
            ready=self._look_at_all,
            clock=clock,
            link_type=link_type,
        )
        self._task = asyncio.create_task(self._run(), name="reactive-worker wait")
        self._task.add_done_callback(self._ended)
        # Its own, and the one before as long as that one is closing its socket.
        self._tasks: set[asyncio.Task[None]] = {self._task}
        if before is not None:
            self._tasks |= {task for task in before._tasks if not task.done()}

    @property
    def seen(self) -> int:
        return sum(waiter.seen for waiter in self._waiters)

    async def wait(self, id: str, until: Collection[TodoStatus]) -> None:
        now = self._clock.time()
        waiter = _Waiter(id, until, now, now)
        self._waiters.add(waiter)
        self._lookout.heard.set()
        try:
            await waiter.done
        finally:
            self._waiters.discard(waiter)
            self._lookout.heard.set()

    async def aclose(self) -> None:
        if self.is_open:
            self._end(ClientClosedError())
            self._task.cancel()
        await asyncio.wait(self._tasks)

    def _end(self, error: Exception) -> None:
        """From now on nobody may join, and nobody is left waiting."""
        self.is_open = False
        for waiter in self._waiters:
            waiter.fail(error)

    async def _run(self) -> None:
        async with self._lookout:
            try:
                while pending := [waiter for waiter in self._waiters if not waiter.done.done()]:
                    await self._turn(pending)
            except Exception as error:  # noqa: BLE001 - told to everybody who waits, whatever it is
                self._end(error)
            finally:
                # Nothing was awaited since nobody was left, and stopping the link may take seconds: a
                # newcomer must not join a loop that has ended. Whoever is left here was not cancelled, this
                # loop was.
                self._end(ClientClosedError())

    def _ended(self, task: asyncio.Task[None]) -> None:
        # Also when it was cancelled before its first step.
        self._end(ClientClosedError())
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a wait could not be closed properly", exc_info=error)

    async def _turn(self, pending: list[_Waiter]) -> None:
        now = self._clock.time()
        if min(waiter.began for waiter in pending) + PUSH_AFTER <= now:
            await self._lookout.listen()
        soonest = min(waiter.due for waiter in pending)
        if soonest > now:
            await self._clock.wait(self._lookout.heard, soonest - now)
            self._lookout.heard.clear()
            return
        # Whoever is due soon comes along: few large requests instead of many small ones.
        due = [waiter for waiter in pending if waiter.due <= now + POLL_FIRST / 2]
        for waiter in due:
            # So that what is heard while we look is not forgotten after it.
            waiter.due = math.inf
        try:
            found = await self._lookout.look(
                lambda: self._states({waiter.id for waiter in due}),
                quiet=not any(waiter.seen for waiter in due),
            )
        except ReactiveWorkerError as error:
            # A refusal is for those who asked; others ask for themselves.
            for waiter in due:
                waiter.fail(error)
            return
        if found is None:
            self._wait_out(due)
        else:
            self._outages = 0
            self._settle(due, found)

    async def _states(self, ids: set[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        wanted = sorted(ids)
        for start in range(0, len(wanted), IDS_PER_REQUEST):
            chunk = ",".join(wanted[start : start + IDS_PER_REQUEST])
            rows = await self._connection.select(
                "todolist", "id,agent_status", filters=[("id", "in", f"({chunk})")]
            )
            found.update((str(row["id"]), str(row["agent_status"])) for row in rows)
        return found

    def _wait_out(self, due: list[_Waiter]) -> None:
        """The tasks go on without us; so does the wait, until its caller's own time-out."""
        self._outages += 1
        pause = OUTAGE.delay(self._outages)
        now = self._clock.time()
        for waiter in due:
            if not waiter.seen and self._lookout.outage is not None:
                waiter.fail(self._lookout.outage)
            waiter.due = min(waiter.due, now + pause)

    def _settle(self, due: list[_Waiter], found: dict[str, str]) -> None:
        now = self._clock.time()
        for waiter in due:
            waiter.seen = True
            state = found.get(waiter.id)
            if waiter.done.done():
                continue
            if state is None:
                waiter.fail(TaskNotFoundError(f"no task {waiter.id}, or it belongs to somebody else"))
            elif state in waiter.until:
                waiter.done.set_result(None)
            else:
                waited = now - waiter.began
                waiter.due = min(waiter.due, now + min(POLL_MOST, max(POLL_FIRST, waited * POLL_SHARE)))

    def _look_at_all(self) -> None:
        for waiter in self._waiters:
            waiter.due = 0.0

    def _heard(self, change: Change) -> None:
        id = change.record.get("todolist_id")
        for waiter in self._waiters:
            if waiter.id == id:
                waiter.due = 0.0
