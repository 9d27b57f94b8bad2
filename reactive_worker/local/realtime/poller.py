"""Reads the log and hands changes on at the server's pace, for as long as anybody is subscribed.

The stream itself arrives at once; what is paced is the delivery, in "polls" as the real server makes them:
one that finds changes is followed by another at once, one that finds none by a wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import psycopg

from reactive_worker.local.faults import Faults
from reactive_worker.local.realtime import decode
from reactive_worker.local.realtime.catalog import PUBLICATION
from reactive_worker.local.realtime.log_reader import LogReader
from reactive_worker.local.realtime.payload import Change
from reactive_worker.local.realtime.subscriptions import Registry
from reactive_worker.local.realtime.timings import Timings

log = logging.getLogger(__name__)

#: Changes waiting for delivery before reading stops, so that a bulk load does not fill the memory.
_MOST_WAITING = 20_000
#: Changes judged together.
_BATCH = 500
#: Longest sleep before the switches are looked at again, in seconds.
_NAP = 0.05

Deliver = Callable[[Sequence[Change]], Awaitable[int]]


class ChangePoller:
    """Runs from the first subscription to some seconds after the last.

    Parameters
    ----------
    dsn:
        Connection string of a superuser.
    deliver:
        Called with each batch, in commit order; returns how many changes somebody wanted.
    registry:
        Tables nobody is subscribed to are skipped without decoding their rows.
    faults, timings:
        Pace, and switches that change it.
    """

    def __init__(
        self, dsn: str, *, deliver: Deliver, registry: Registry, faults: Faults, timings: Timings
    ) -> None:
        self._deliver = deliver
        self._registry = registry
        self._faults = faults
        self._timings = timings
        self._relations: dict[int, decode.Relation] = {}
        self._waiting: deque[Change] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._reader = LogReader(
            dsn,
            publication=PUBLICATION,
            name="realtime_changes",
            first_wait=timings.reconnect_first,
            longest_wait=timings.reconnect_longest,
        )
        self._task: asyncio.Task[None] | None = None
        self._commit_time = 0
        self._read_lsn = 0
        #: Changes dealt with so far: delivered, of no interest to anybody, or thrown away.
        self.handled = 0

    async def ready(self) -> None:
        """Start, if need be, and wait until changes committed from now on will be delivered."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="realtime-changes")
        await self._reader.live.wait()

    async def stop(self) -> None:
        """Stop reading and give up the slot; returns when the database may be dropped."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._waiting.clear()
        self._room.set()

    async def _run(self) -> None:
        delivering = asyncio.create_task(self._deliver_all(), name="realtime-delivery")
        try:
            await self._reader.run(
                lambda messages: self._take_all(messages, delivering), opened=self._relations.clear
            )
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)

    async def _take_all(self, messages: Sequence[bytes], delivering: asyncio.Task[None]) -> int:
        for message in messages:
            self._take(message)
        if delivering.done():
            delivering.result()
        if not self._room.is_set():
            await self._room.wait()
        return self._read_lsn

    def _take(self, message: bytes) -> None:
        relation_oid = decode.relation_oid(message)
        if relation_oid is not None and not self._registry.on(relation_oid):
            return
        match decode.decode(message):
            case decode.Relation() as relation:
                self._relations[relation.oid] = relation
            case decode.Begin(commit_time=commit_time):
                self._commit_time = commit_time
            case decode.Commit(end_lsn=end_lsn):
                self._read_lsn = end_lsn
            case decode.Insert(oid, new):
                self._add(oid, "INSERT", new, None)
            case decode.Update(oid, old, new):
                self._add(oid, "UPDATE", new, old)
            case decode.Delete(oid, old):
                self._add(oid, "DELETE", None, old)
            case _:
                # TRUNCATE is never delivered; types and origins are of no use here.
                return

    def _add(self, oid: int, event: str, new: decode.Row | None, old: decode.Row | None) -> None:
        relation = self._relations[oid]
        if " " in relation.name:
            return  # the real server leaves such tables out
        self._waiting.append(Change(relation, event, self._commit_time, new, old))
        self._arrived.set()
        if len(self._waiting) >= _MOST_WAITING:
            self._room.clear()

    def _idle_interval(self) -> float:
        for override in (self._faults.idle_interval, self._faults.poll_interval):
            if override is not None:
                return override
        return self._timings.idle_interval

    def _busy_interval(self) -> float:
        override = self._faults.poll_interval
        return self._timings.busy_interval if override is None else override

    async def _deliver_all(self) -> None:
        polled = time.monotonic()
        while True:
            await self._arrived.wait()
            await self._next_poll(polled)
            while self._waiting:
                self._arrived.clear()
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                if len(self._waiting) < _MOST_WAITING // 2:
                    self._room.set()
                try:
                    await self._poll(batch)
                except Exception:
                    # Whatever is wrong with these changes, later ones must not pay for it.
                    log.exception("%d changes could not be judged and are not delivered", len(batch))
                self.handled += len(batch)
                if busy := self._busy_interval():
                    await asyncio.sleep(busy)
            self._arrived.clear()
            polled = time.monotonic()

    async def _next_poll(self, polled: float) -> None:
        """Sleep until a server that polls an idle log at this interval would look again."""
        arrived = time.monotonic()
        # The interval is looked at again and again, as a fault switch may change it meanwhile.
        while (interval := self._idle_interval()) > 0:
            due = polled + math.ceil((arrived - polled) / interval) * interval
            left = due - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(left, _NAP))

    async def _poll(self, batch: Sequence[Change]) -> None:
        if self._faults.deaf:
            return
        wait = self._timings.reconnect_first
        while True:
            try:
                await self._deliver(batch)
                return
            except psycopg.OperationalError as error:
                log.warning("judging %d changes failed, trying again in %.1f s: %s", len(batch), wait, error)
            await asyncio.sleep(wait)
            wait = min(wait * 2, self._timings.reconnect_longest)
