"""The events of all tasks as they are committed, for people who watch."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from functools import partial

from reactive_worker.client._lookout import Clock, Lookout
from reactive_worker.models import TodoEvent
from reactive_worker.store.push.changes import Binding, RealtimeLink
from reactive_worker.store.store import TailPage, TodoStore

logger = logging.getLogger(__name__)

#: Seconds between looks.
POLL = 1.0
PAGE = 500


async def tail_events(
    store: TodoStore,
    limit: int = 10,
    *,
    link_type: type[RealtimeLink] = RealtimeLink,
    clock: Clock | None = None,
) -> AsyncGenerator[TodoEvent]:
    """Yield the newest `limit` events, oldest first, then every new one, each once, until closed.

    New is what was committed since the look before (`tail_events` in the migrations), however long ago its
    transaction began. The events of one task come in the order of their `seq`.
    """
    first = await store.tail(limit=max(1, limit))
    for event in in_order(first.events) if limit > 0 else ():
        yield event
    since = first.until
    lookout = Lookout(
        store.connection,
        "reactive-worker-tail",
        Binding("events", "INSERT"),
        doing="watching all tasks",
        first=POLL,
        most=POLL,
        clock=clock,
        link_type=link_type,
    )
    async with lookout:
        page: TailPage | None = None
        while True:
            before = page
            page = await lookout.look(partial(_next, store, since, before))
            if page is None:
                # An outage: the same page again, when it is over.
                page = before
                await lookout.rest(found=False)
                continue
            if page.restarted:
                logger.warning(
                    "%s is another database than before (restored?): events written meanwhile are not shown",
                    store.connection.url,
                )
            for event in in_order(page.events):
                yield event
            if page.more:
                continue
            since, page = page.until, None
            await lookout.rest(found=True)


async def _next(store: TodoStore, since: str, before: TailPage | None) -> TailPage:
    if before is None:
        return await store.tail(since, limit=PAGE)
    return await store.tail(since, limit=PAGE, until=before.until, after=before.last)


def in_order(events: Sequence[TodoEvent]) -> list[TodoEvent]:
    """By time, as far as the order within each task allows: clocks and transactions do not run in step."""
    of_task: dict[str, deque[TodoEvent]] = defaultdict(deque)
    for event in sorted(events, key=lambda event: event.seq or 0):
        of_task[event.todolist_id].append(event)
    never = datetime.min.replace(tzinfo=UTC)
    by_time = sorted(events, key=lambda event: (event.created_at or never, event.todolist_id))
    return [of_task[event.todolist_id].popleft() for event in by_time]
