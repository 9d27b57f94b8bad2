"""A worker's push channel: the link, what it hears, and the sonar that proves it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from reactive_worker.models import PushHealth, PushState, SweepResult
from reactive_worker.store.realtime import Binding, Change, RealtimeLink
from reactive_worker.store.sonar import Sonar

logger = logging.getLogger(__name__)

#: Ids heard lately, to compare a sweep with; 10,000 of them are some 1 MB.
REMEMBERED = 10_000
#: A healthy channel tells within 0.6 s; a row this old that was never told is a reason to probe.
PATIENCE = timedelta(seconds=3)


def quoted(value: str) -> str:
    """A value inside a Realtime filter list, quoted when it holds reserved characters."""
    if any(c in value for c in ',.:()"\\ '):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return value


def bindings(worker_id: str, agent_types: Collection[str]) -> list[Binding]:
    """What a worker listens to."""
    types = sorted(agent_types)
    single = len(types) == 1 and quoted(types[0]) == types[0]
    wanted = f"eq.{types[0]}" if single else f"in.({','.join(quoted(one) for one in types)})"
    return [
        Binding("todolist", "INSERT", f"agent_type={wanted}"),
        # Retried, released, answered and reclaimed rows become pending again by an UPDATE. Servers before
        # June 2026 take one filter only, so the type is looked at here.
        Binding("todolist", "UPDATE", "agent_status=eq.pending"),
        Binding("worker_mailbox", "UPDATE", f"worker_id=eq.{worker_id}"),
    ]


class PushChannel:
    """Hears rows and signals for one worker; publishes whether that truly works.

    Parameters
    ----------
    url, key, worker_id, agent_types:
        Whose channel this is.
    touch:
        Writes the sonar's probe.
    probe_interval:
        Seconds between probes.
    on_row:
        A row that may have become runnable, as Realtime renders it.
    on_signal:
        The mailbox was touched by somebody: ask the database what for.
    on_ready:
        A subscription became live: sweep now, what happened before was not told.
    on_health:
        The state changed.
    """

    def __init__(
        self,
        url: str,
        key: str,
        worker_id: str,
        agent_types: Sequence[str],
        *,
        touch: Callable[[], Awaitable[str]],
        probe_interval: float,
        on_row: Callable[[Mapping[str, Any]], None],
        on_signal: Callable[[], None],
        on_ready: Callable[[], None],
        on_health: Callable[[PushHealth], None],
    ) -> None:
        self._on_row = on_row
        self._on_signal = on_signal
        self._on_ready = on_ready
        self._heard: OrderedDict[str, None] = OrderedDict()
        self._mailbox: tuple[Any, Any] | None = None
        self._link = RealtimeLink(
            url,
            key,
            f"worker-{worker_id}",
            bindings(worker_id, agent_types),
            on_change=self._change,
            on_ready=self._ready,
            on_health=on_health,
        )
        self._sonar = Sonar(self._link, touch, interval=probe_interval)
        self._sonar_task: asyncio.Task[None] | None = None

    @property
    def health(self) -> PushHealth:
        """The state now, since when, and why."""
        return self._link.health

    @property
    def duties(self) -> list[asyncio.Task[None]]:
        """Tasks that must not end while the worker runs."""
        return [task for task in (self._link.task, self._sonar_task) if task is not None]

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        await self._link.start()
        self._sonar_task = asyncio.create_task(self._sonar.run(), name="sonar")

    async def stop(self) -> None:
        """Leave and wait until nothing is left."""
        if self._sonar_task is not None:
            self._sonar_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sonar_task
        await self._link.stop()

    def compare(self, result: SweepResult) -> None:
        """Look whether a sweep found what push should have told; if so, probe at once."""
        health = self.health
        if health.state is not PushState.HEALTHY:
            return
        for candidate in result.candidates:
            overdue = health.since + PATIENCE < candidate.created_at < result.now - PATIENCE
            if overdue and candidate.attempt == 0 and candidate.id not in self._heard:
                logger.info("a sweep found task %s, which push has not told: probing", candidate.id)
                self._sonar.doubt()
                return

    def _ready(self) -> None:
        self._sonar.ready()
        self._on_ready()

    def _change(self, change: Change) -> None:
        record = change.record
        if change.table == "todolist":
            self._heard[str(record.get("id"))] = None
            if len(self._heard) > REMEMBERED:
                self._heard.popitem(last=False)
            self._on_row(record)
        elif change.table == "worker_mailbox":
            self._sonar.echo(record.get("probe_at"))
            mailbox = (record.get("signal_at"), record.get("desired_state"))
            if mailbox != self._mailbox:
                # The first one after the start says nothing new, but a heartbeat costs little.
                self._mailbox = mailbox
                self._on_signal()
