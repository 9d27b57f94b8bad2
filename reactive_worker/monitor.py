"""Monitor: figures about all tasks, recent events, workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from reactive_worker.errors import InvalidTaskError
from reactive_worker.lazy_store import LazyStore
from reactive_worker.models import TodoEvent
from reactive_worker.settings import Settings
from reactive_worker.tail import tail_events

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

    async def get_system_stats(self, agent_type: str | None = None) -> dict[str, Any]:
        """Count tasks by status, in one query; of one agent type if given.

        Returns
        -------
        dict
            ``total_tasks``, ``pending_tasks``, ``in_progress_tasks``, ``input_required_tasks``,
            ``completed_tasks``, ``failed_tasks``, ``cancelled_tasks``, ``oldest_pending_seconds`` (None when
            nothing waits), ``workers_alive``, and ``by_agent_type``: the same counts for each type.
        """
        return await (await self._store.get()).stats(agent_type)

    async def get_recent_events(self, limit: int = 10) -> list[TodoEvent]:
        """The newest events of all tasks, newest first.

        Each has its columns as attributes (`event.event_type`) and as items (`event["event_type"]`).
        """
        if limit < 1:
            raise InvalidTaskError(f"limit must be at least 1, not {limit}")
        return await (await self._store.get()).recent_events(limit)

    async def tail_events(self, limit: int = 10) -> AsyncIterator[TodoEvent]:
        """Yield the newest `limit` events of all tasks, oldest first, then each new one, until you stop."""
        async for event in tail_events(await self._store.get(), limit):
            yield event

    async def get_workers(self) -> list[dict[str, Any]]:
        """Every registered worker: id, name, agent_types, alive, desired_state, in_progress and more."""
        return await (await self._store.get()).workers()
