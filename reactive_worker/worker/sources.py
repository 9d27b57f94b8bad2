"""Where candidates come from: push, and the sweep behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reactivex import Observable
from reactivex import operators as ops
from reactivex.subject import Subject

from reactive_worker import streams
from reactive_worker.models import Candidate, Demand, PushState, SweepResult
from reactive_worker.store.push.channel import PushChannel
from reactive_worker.store.store import TodoStore
from reactive_worker.worker.clock import Clock
from reactive_worker.worker.config import Identity
from reactive_worker.worker.observe import observe
from reactive_worker.worker.telemetry import (
    RowUnreadable,
    SweepFailed,
    TasksReclaimed,
    Telemetry,
    described,
)

#: Rows of the future kept in memory. A candidate is some 300 bytes.
CAPACITY = 1_000
#: Rows asked for by one sweep.
SWEEP_LIMIT = 500


class Sources:
    """The two streams of candidates of one worker.

    Parameters
    ----------
    push:
        Notifies of rows, and says whether it truly does.
    store, identity:
        Who sweeps for what, and where.
    clock:
        The database's time; sweeps set it.
    backpressure:
        Says which agent types have room: rows of one at its limit would fill a sweep and hide all others.
    telemetry:
        Told of sweeps that failed, and rows that cannot be read.
    """

    def __init__(
        self,
        push: PushChannel,
        store: TodoStore,
        identity: Identity,
        clock: Clock,
        backpressure: streams.Backpressure,
        telemetry: Telemetry,
    ) -> None:
        self._push = push
        self._store = store
        self._identity = identity
        self._clock = clock
        self._backpressure = backpressure
        self._telemetry = telemetry
        self._types = frozenset(identity.agent_types)
        self._full: frozenset[str] = frozenset()
        self._kicks: Subject[None] = Subject()
        backpressure.demand.subscribe(self._note_room)

    def sweep_now(self) -> None:
        """Ask the database now."""
        self._kicks.on_next(None)

    @property
    def pushed(self) -> Observable[Candidate]:
        """Rows as Realtime tells of them; those of the future when they are due."""
        return self._push.rows.pipe(
            streams.realtime_candidates(on_invalid=self._unreadable),
            # The UPDATE binding cannot be filtered by type as well: older servers take one filter only.
            ops.filter(lambda candidate: candidate.agent_type in self._types),
            streams.hold_until_due(now=self._clock.now, capacity=CAPACITY),
        )

    def sweeps(self, fair_by: str | None) -> Observable[Candidate]:
        """Rows as the database shows them: the best of all, or of each owner."""
        settings = self._identity.settings
        health = self._push.links.health_changes.pipe(
            ops.map(lambda health: health.state is PushState.HEALTHY),
            ops.start_with(self._push.health.state is PushState.HEALTHY),
            ops.distinct_until_changed(),
        )
        return streams.polling_sweep(
            lambda: observe(
                lambda: self._store.sweep(self._identity.id, self._with_room(), SWEEP_LIMIT, fair_by)
            ),
            polling_interval=settings.polling_interval,
            sweep_interval=settings.sweep_interval,
            healthy=health,
            kicks=self._kicks,
            backpressure=self._backpressure,
            on_result=self._swept,
            on_error=lambda error: self._telemetry.emit(SweepFailed(described(error))),
        )

    def _swept(self, result: SweepResult) -> None:
        self._clock.set(result.now)
        if result.reclaimed:
            self._telemetry.emit(TasksReclaimed(result.reclaimed))
        self._push.compare(result)

    def _note_room(self, demand: Demand) -> None:
        self._full = frozenset(kind for kind, room in demand.per_type.items() if room < 1)

    def _with_room(self) -> list[str]:
        return sorted(self._types - self._full) or sorted(self._types)

    def _unreadable(self, record: Mapping[str, Any], error: BaseException) -> None:
        self._telemetry.emit(RowUnreadable(str(record.get("id")), described(error)))
