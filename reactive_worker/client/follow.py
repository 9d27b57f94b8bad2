"""One task's events as one stream: what is stored first, then what is being said, each exactly once.

The cursor is `seq` (1, 2, 3 ... within a task). Realtime delivers an event early when it is the very next
one; anything else it says only means "look now". So a lost, doubled or late change can neither tear a hole
nor show anything twice.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncGenerator

from reactive_worker.client._lookout import Clock, Lookout
from reactive_worker.errors import InvalidTaskError
from reactive_worker.models import TERMINAL_EVENTS, TodoEvent
from reactive_worker.store.push.changes import Binding, Change, RealtimeLink
from reactive_worker.store.store import TodoStore

PAGE = 500
#: Seconds between looks: short while events flow, longer while nothing is said.
POLL_FIRST = 0.1
POLL_MOST = 2.0
#: Seconds between looks at the row itself, which tells that a task ended without an event (changed by hand).
ROW_INTERVAL = 5.0
#: Changes kept until they are looked at; more than this is read from the table anyway.
INBOX = 1_000


class _Inbox:
    """What Realtime said since we looked last."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque(maxlen=INBOX)

    def put(self, change: Change) -> None:
        self._changes.append(change)

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
    clock: Clock | None = None,
) -> AsyncGenerator[TodoEvent]:
    """Yield the events of task `id` with ``seq > after``, stored ones first, then live.

    Ends after the last event when it is terminal; with `follow` it goes on (a `retry_todo` reopens a task)
    until the caller stops. Raises TaskNotFoundError when there is no such task, now or later.
    """
    await store.get(id)
    inbox = _Inbox()
    lookout = Lookout(
        store.connection,
        f"reactive-worker-events-{id}",
        Binding("events", "INSERT", f"todolist_id=eq.{id}"),
        doing=f"following task {id}",
        first=POLL_FIRST,
        most=POLL_MOST,
        hear=inbox.put,
        clock=clock,
        link_type=link_type,
    )
    async with lookout:
        history = _History(store, id, lookout, inbox, last=after, follow=follow)
        while not history.is_over:
            for event in (page := await history.next_page()):
                yield event
            # After a terminal event the table has the last word: a retry may have reopened the task. A full
            # page and one that was heard say nothing about what comes behind them.
            if page and (history.ended or not history.complete):
                continue
            # Only now: a task that has ended already needs no socket.
            if not history.is_over:
                await lookout.rest(found=bool(page))


class _History:
    """Where a reader stands in one task's log."""

    def __init__(
        self, store: TodoStore, id: str, lookout: Lookout, inbox: _Inbox, *, last: int, follow: bool
    ) -> None:
        self._store, self._id, self._lookout, self._inbox = store, id, lookout, inbox
        self._last, self._follow = last, follow
        self._row_seen_at = float("-inf")
        #: The last event was a terminal one.
        self.ended = False
        #: The last page was the table's last.
        self.complete = False
        #: Nothing follows, for ever.
        self.is_over = False

    async def next_page(self) -> list[TodoEvent]:
        """The next events; none when there are none yet, or during an outage."""
        self._lookout.heard.clear()
        page = self._inbox.take_after(self._last)
        self.complete = False
        if not page:
            page = await self._lookout.look(self._read) or []
        if page:
            self._last = page[-1].seq or self._last
            self.ended = page[-1].event_type in TERMINAL_EVENTS
        return page

    async def _read(self) -> list[TodoEvent]:
        page = await self._store.events(self._id, self._last, PAGE)
        self.complete = len(page) < PAGE
        if not page and not self._follow:
            self.is_over = await self._nothing_follows()
        return page

    async def _nothing_follows(self) -> bool:
        """Is that the end? The row is asked too, now and then: it may have been ended by hand."""
        if self.ended:
            return True
        now = self._lookout.clock.time()
        if now - self._row_seen_at < ROW_INTERVAL:
            return False
        self._row_seen_at = now
        # Events written between the two reads are still to come, hence the second look.
        return (await self._store.get(self._id)).is_finished and not await self._store.events(
            self._id, self._last, 1
        )
