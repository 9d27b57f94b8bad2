"""One task's events as one stream: what is stored first, then what is being said, each exactly once.

The cursor is `seq` (1, 2, 3 ... within a task). Realtime delivers an event early when it is the very next
one; anything else it says only means "look now". So a lost, doubled or late change can neither tear a hole
nor show anything twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator

from reactive_worker.errors import InvalidTaskError, UnreachableError
from reactive_worker.models import EventType, TodoEvent
from reactive_worker.store.push.changes import Binding, Change, RealtimeLink
from reactive_worker.store.store import TodoStore

logger = logging.getLogger(__name__)

PAGE = 500
#: Seconds between looks: short while events flow, longer while nothing is said.
POLL_FIRST = 0.1
POLL_MOST = 2.0
#: Seconds between looks at the row itself, which tells that a task ended without an event (changed by hand).
ROW_INTERVAL = 5.0
#: Changes kept until they are looked at; more than this is read from the table anyway.
INBOX = 1_000

TERMINAL_EVENTS = frozenset({EventType.COMPLETED, EventType.FAILED, EventType.REJECTED, EventType.CANCELLED})


class _Inbox:
    """What Realtime said since we looked last."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._changes: deque[Change] = deque(maxlen=INBOX)

    def put(self, change: Change) -> None:
        self._changes.append(change)
        self.wake.set()

    def take_after(self, last: int) -> list[TodoEvent]:
        """The events heard that follow `last` without a gap; the rest is forgotten."""
        heard: dict[int, TodoEvent] = {}
        while self._changes:
            # A large row arrives without its large columns: unreadable here, complete in the table.
            with contextlib.suppress(InvalidTaskError):
                event = TodoEvent.from_row(self._changes.popleft().record)
                heard[event.seq or 0] = event
        run: list[TodoEvent] = []
        while (event := heard.get(last + 1)) is not None:
            run.append(event)
            last += 1
        return run


async def follow_events(
    store: TodoStore,
    id: str,
    *,
    after: int = 0,
    follow: bool = False,
    link_type: type[RealtimeLink] = RealtimeLink,
) -> AsyncIterator[TodoEvent]:
    """Yield the events of task `id` with ``seq > after``, stored ones first, then live.

    Ends after the last event when it is terminal; with `follow` it goes on (a `retry_todo` reopens a task)
    until the caller stops. Raises TaskNotFoundError when there is no such task, now or later.
    """
    await store.get(id)
    inbox = _Inbox()
    link = link_type(
        store.connection.url,
        store.connection.credentials,
        f"reactive-worker-events-{id}",
        [Binding("events", "INSERT", f"todolist_id=eq.{id}")],
        on_change=inbox.put,
        # What happened before the subscription is in the table: look once more.
        on_ready=inbox.wake.set,
    )
    try:
        async for event in _follow(store, id, after, follow, inbox, link):
            yield event
    finally:
        await link.stop()


async def _follow(
    store: TodoStore, id: str, last: int, follow: bool, inbox: _Inbox, link: RealtimeLink
) -> AsyncIterator[TodoEvent]:
    loop = asyncio.get_running_loop()
    delay, outage, ended, row_seen_at = POLL_FIRST, False, False, float("-inf")

    async def is_over() -> bool:
        """Nothing follows `last`: is that the end? The row is asked too, now and then."""
        nonlocal row_seen_at
        if ended:
            return True
        if loop.time() - row_seen_at < ROW_INTERVAL:
            return False
        row_seen_at = loop.time()
        # Events written between the two reads are still to come, hence the second look.
        return (await store.get(id)).is_finished and not await store.events(id, last, 1)

    while True:
        inbox.wake.clear()
        page = inbox.take_after(last)
        complete = False
        try:
            if not page:
                page = await store.events(id, last, PAGE)
                complete = len(page) < PAGE
                if not page and not follow and await is_over():
                    return
            outage = False
        except UnreachableError as error:
            if not outage:
                logger.warning("still following task %s: %s", id, error)
            outage = True
        for event in page:
            last = event.seq or last
            ended = event.event_type in TERMINAL_EVENTS
            yield event
        if page:
            delay = POLL_FIRST
            # After a terminal event the table has the last word: a retry may have reopened the task.
            if ended or not complete:
                continue
        # Only now: a task that has ended already needs no socket.
        await link.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await inbox.wake.wait()
        delay = min(POLL_MOST, delay * 1.5)
