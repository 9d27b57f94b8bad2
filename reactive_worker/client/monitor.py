"""Monitor: figures about all tasks, recent events, workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from reactive_worker.client.tail import tail_events
from reactive_worker.errors import InvalidTaskError
from reactive_worker.models import Todo, TodoEvent
from reactive_worker.settings import Settings
from reactive_worker.store.lazy import LazyStore

if TYPE_CHECKING:
    from supabase import AsyncClient, Client

    from reactive_worker.store.connection import Connection


class Monitor:
    """Looks at the whole system; reads only.

    Parameters
    ----------
    supabase:
        Your own supabase client, async or sync. Or use `Monitor.from_settings()`.

    Example
    -------
    >>> async def main() -> None:
    ...     async with Monitor.from_settings() as monitor:
    ...         stats = await monitor.get_system_stats()
    ...         print(stats["pending_tasks"], "of", stats["total_tasks"], "tasks wait")
    """

    def __init__(self, supabase: AsyncClient | Client | Connection) -> None:
        self._store = LazyStore(supabase)

    @classmethod
    def from_settings(cls, settings: Settings | None = None, **overrides: Any) -> Self:
        """Build a monitor from the environment and `.env`. Raises ConfigurationError."""
        monitor = cls.__new__(cls)
        monitor._store = LazyStore((settings or Settings.load(**overrides)).require_connection())
        return monitor

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what this monitor opened itself."""
        await self._store.aclose()

    async def get_system_stats(
        self, agent_type: str | None = None, *, window: float = 3600.0
    ) -> dict[str, Any]:
        """Figures of all tasks, or of one agent type; two queries, whatever the table holds.

        Parameters
        ----------
        agent_type:
            Only its tasks.
        window:
            Seconds that times and failures look back, 1 to 31,536,000. At most the last 10,000 tasks that
            ended in it are looked at.

        Returns
        -------
        dict
            - ``total_tasks``, ``pending_tasks``, ``in_progress_tasks``, ``input_required_tasks``,
              ``completed_tasks``, ``failed_tasks``, ``cancelled_tasks``; ``by_agent_type``: the same for each
            - ``oldest_pending_seconds`` (None when nothing waits), ``workers_alive``
            - ``wait_p50``, ``wait_p95``, ``run_p50``, ``run_p95``: seconds, None when nothing ended;
              ``sampled``: of how many tasks; ``window_seconds``
            - ``completed_by_minute``: of the last ten minutes, oldest first;
              ``completed_per_minute``: their mean
            - ``failures_by_cause``: type of the error -> how many failed for good

        Raises
        ------
        SupabaseError
            Supabase refused (figures need the service key) or cannot be reached.
        """
        store = await self._store.get()
        return {**await store.timings(agent_type, window), **await store.stats(agent_type)}

    async def get_running_tasks(self, limit: int = 50) -> list[Todo]:
        """Tasks in progress, the one that has run longest first; at most `limit`."""
        if limit < 1:
            raise InvalidTaskError(f"limit must be at least 1, not {limit}")
        return await (await self._store.get()).list_running(limit)

    async def get_recent_events(self, limit: int = 10) -> list[TodoEvent]:
        """The newest events of all tasks, newest first.

        Parameters
        ----------
        limit:
            How many at most.

        Raises
        ------
        InvalidTaskError
            The limit is below 1.
        SupabaseError
            Supabase refused (figures need the service key) or cannot be reached.

        Example
        -------
        >>> [event.event_type for event in await monitor.get_recent_events(limit=2)]  # doctest: +SKIP
        ['task_completed', 'task_progress']
        """
        if limit < 1:
            raise InvalidTaskError(f"limit must be at least 1, not {limit}")
        return await (await self._store.get()).recent_events(limit)

    async def tail_events(self, limit: int = 10) -> AsyncIterator[TodoEvent]:
        """Yield the newest `limit` events of all tasks, oldest first, then each new one, until you stop."""
        async with aclosing(tail_events(await self._store.get(), limit)) as events:
            async for event in events:
                yield event

    async def get_workers(self) -> list[dict[str, Any]]:
        """Every registered worker: id, name, agent_types, alive, desired_state, in_progress and more."""
        return await (await self._store.get()).workers()
