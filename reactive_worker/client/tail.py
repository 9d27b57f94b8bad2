"""The events of all tasks as they are written, for people who watch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from reactive_worker.errors import UnreachableError
from reactive_worker.models import TodoEvent
from reactive_worker.store.push.changes import Binding, RealtimeLink
from reactive_worker.store.store import TodoStore

logger = logging.getLogger(__name__)

#: `created_at` is when a transaction began, so rows may appear behind the newest one seen. Reading this far
#: back again, and skipping known ids, catches them.
OVERLAP = timedelta(seconds=3)
POLL = 1.0
PAGE = 500


async def tail_events(
    store: TodoStore, limit: int = 10, *, link_type: type[RealtimeLink] = RealtimeLink
) -> AsyncIterator[TodoEvent]:
    """Yield the newest `limit` events, oldest first, then every new one, each once, until closed."""
    changed = asyncio.Event()
    link = link_type(
        store.connection.url,
        store.connection.credentials,
        "reactive-worker-tail",
        [Binding("events", "INSERT")],
        on_change=lambda change: changed.set(),
        on_ready=changed.set,
    )
    recent = await store.recent_events(limit) if limit > 0 else await store.recent_events(1)
    newest = recent[0].created_at if recent else None
    seen: dict[str, datetime | None] = {event.id: event.created_at for event in await _since(store, newest)}
    for event in reversed(recent[:limit]):
        seen[event.id] = event.created_at
        yield event
    await link.start()
    outage = False
    try:
        while True:
            changed.clear()
            fresh: list[TodoEvent] = []
            try:
                fresh = [event for event in await _since(store, newest) if event.id not in seen]
                outage = False
            except UnreachableError as error:
                if not outage:
                    logger.warning("still watching: %s", error)
                outage = True
            for event in fresh:
                seen[event.id] = event.created_at
                newest = max(filter(None, (newest, event.created_at)), default=None)
                yield event
            if newest is not None:
                seen = {id: at for id, at in seen.items() if at is not None and at >= newest - OVERLAP}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await changed.wait()
    finally:
        await link.stop()


async def _since(store: TodoStore, newest: datetime | None) -> list[TodoEvent]:
    """Every event not older than OVERLAP before `newest`, oldest first."""
    found: list[TodoEvent] = []
    filters = [] if newest is None else [("created_at", "gte", (newest - OVERLAP).isoformat())]
    while True:
        rows = await store.connection.select(
            "events",
            filters=filters,
            order=[("created_at", False), ("todolist_id", False), ("seq", False)],
            limit=PAGE,
            offset=len(found),
        )
        found += [TodoEvent.from_row(row) for row in rows]
        if len(rows) < PAGE:
            return found
