"""Telemetry: what happens in a worker's life, as named events with typed fields. A contract.

Log lines are one subscriber of it (`log_line`, attached by default); metrics and traces are others. The table
in docs/operations.md says the same, and a test compares them. Names and fields are only added.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from reactivex.abc import DisposableBase
from reactivex.disposable import Disposable

from reactive_worker.store.telemetry import (
    Emit as Emit,
)
from reactive_worker.store.telemetry import (
    HeartbeatDied as HeartbeatDied,
)
from reactive_worker.store.telemetry import (
    HeartbeatMissed as HeartbeatMissed,
)
from reactive_worker.store.telemetry import (
    HeartbeatRefused as HeartbeatRefused,
)
from reactive_worker.store.telemetry import (
    LeaseLetGo as LeaseLetGo,
)
from reactive_worker.store.telemetry import (
    LinkHealthy as LinkHealthy,
)
from reactive_worker.store.telemetry import (
    LinkRebuilt as LinkRebuilt,
)
from reactive_worker.store.telemetry import (
    LinkUnhealthy as LinkUnhealthy,
)
from reactive_worker.store.telemetry import (
    LoopStalled as LoopStalled,
)
from reactive_worker.store.telemetry import (
    NotificationUnusable as NotificationUnusable,
)
from reactive_worker.store.telemetry import (
    PushMissedRow as PushMissedRow,
)
from reactive_worker.store.telemetry import (
    PushModeChosen as PushModeChosen,
)
from reactive_worker.store.telemetry import (
    PushModeDoubted as PushModeDoubted,
)
from reactive_worker.store.telemetry import (
    TelemetryEvent as TelemetryEvent,
)
from reactive_worker.store.telemetry import (
    log_line as log_line,
)

logger = logging.getLogger(__name__)


class Telemetry:
    """Hands each event to every handler attached; one that raises costs the others nothing.

    Example
    -------
    >>> telemetry = Telemetry()
    >>> detach = telemetry.attach(lambda event: print(event.action, event))
    >>> telemetry.emit(WorkerPaused())
    worker.paused paused
    >>> detach.dispose()
    """

    def __init__(self) -> None:
        self._handlers: tuple[Emit, ...] = ()

    def attach(self, handler: Callable[[TelemetryEvent], None]) -> DisposableBase:
        """Call `handler` with each event, where it happens; disposing of what is returned ends that.

        Handlers must be quick and must not block. Events of the lease (`HeartbeatMissed`, `HeartbeatRefused`,
        `HeartbeatDied`, `LoopStalled`, `LeaseLetGo`) come from the heartbeat's thread, all others from the
        event loop's.
        """
        self._handlers = (*self._handlers, handler)

        def detach() -> None:
            self._handlers = tuple(one for one in self._handlers if one is not handler)

        return Disposable(detach)

    def emit(self, event: TelemetryEvent) -> None:
        """Hand an event to every handler."""
        for handler in self._handlers:
            try:
                handler(event)
            except Exception:
                # Not as an event: the handler that raised would be called with it.
                logger.exception("a telemetry handler raised on %s", event.action)


def described(error: BaseException) -> str:
    """An exception in one line, as events carry it."""
    return f"{type(error).__name__}: {error}"


# -- worker --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkerRegistered(
    TelemetryEvent,
    action="worker.registered",
    text="worker {worker} is registered for {agent_types} at {url}",
):
    """The worker is known to the database; again after its lease had run out."""

    worker: str
    worker_id: str
    agent_types: str
    url: str


@dataclass(frozen=True)
class WorkerLeft(TelemetryEvent, action="worker.left", text="worker {worker} has left"):
    """The worker's row is removed."""

    worker: str


@dataclass(frozen=True)
class WorkerStayed(TelemetryEvent, action="worker.stayed", level=logging.WARNING, text="{reason}"):
    """The worker could not unregister, or must not: its lease runs out instead."""

    reason: str


@dataclass(frozen=True)
class WorkerPaused(TelemetryEvent, action="worker.paused", text="paused"):
    """Asked from outside to claim nothing."""


@dataclass(frozen=True)
class WorkerResumed(TelemetryEvent, action="worker.resumed", text="resumed"):
    """Asked from outside to claim again."""


@dataclass(frozen=True)
class WorkerStopping(
    TelemetryEvent,
    action="worker.stopping",
    text="{why}: no new tasks; {running} running get up to {drain_timeout:g} s to finish",
):
    """A signal, `stop`, or a drain from outside: the shutdown begins."""

    why: str
    running: int
    drain_timeout: float


@dataclass(frozen=True)
class WorkerHurried(
    TelemetryEvent,
    action="worker.hurried",
    level=logging.WARNING,
    text="asked to stop again: ending now",
):
    """A second signal or `stop`: every step gets one more second."""


@dataclass(frozen=True)
class WorkerDied(TelemetryEvent, action="worker.died", level=logging.ERROR, text="{duty} died: {error}"):
    """A background duty died; the worker stops."""

    duty: str
    error: str


@dataclass(frozen=True)
class TokenNoted(
    TelemetryEvent,
    action="worker.token_noted",
    level=logging.DEBUG,
    text="this worker has {facts}",
):
    """What the worker's token says of itself."""

    facts: str


@dataclass(frozen=True)
class TokenEndsSoon(
    TelemetryEvent,
    action="worker.token_ends_soon",
    level=logging.WARNING,
    text="this worker has {facts}: renew it soon, with `reactive-worker token mint`",
):
    """The worker's token ends within a week."""

    facts: str


# -- lease ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LeaseLost(
    TelemetryEvent,
    action="lease.lost",
    level=logging.WARNING,
    text="this worker's lease had run out: {tasks} task(s) went to other workers; registering again",
):
    """Nobody heard of the worker for longer than its lease."""

    tasks: int


@dataclass(frozen=True)
class RegistrationFailed(
    TelemetryEvent,
    action="lease.registration_failed",
    level=logging.WARNING,
    text="cannot register: {error}",
):
    """Registering again failed; it is tried again."""

    error: str


# -- sweep ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SweepFailed(
    TelemetryEvent,
    action="sweep.failed",
    level=logging.WARNING,
    text="a sweep failed; trying again: {error}",
):
    """The database did not answer a sweep; it is tried again, ever more slowly."""

    error: str


@dataclass(frozen=True)
class TasksReclaimed(
    TelemetryEvent,
    action="sweep.reclaimed",
    level=logging.WARNING,
    text="{tasks} task(s) of dead workers were put back",
):
    """A sweep put rows of expired workers back."""

    tasks: int


# -- claim ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowUnreadable(
    TelemetryEvent,
    action="claim.row_unreadable",
    level=logging.WARNING,
    text="a row told by realtime cannot be read (id {todolist_id!r}): {error}",
):
    """A notification names a row that is no task."""

    todolist_id: str
    error: str


@dataclass(frozen=True)
class CandidateUnranked(
    TelemetryEvent,
    action="claim.candidate_unranked",
    level=logging.ERROR,
    text="priority_key raised for task {todolist_id}; a later sweep offers it again: {error}",
):
    """A user's `priority_key` or order raised for a row."""

    todolist_id: str
    error: str


@dataclass(frozen=True)
class ClaimFailed(
    TelemetryEvent,
    action="claim.failed",
    level=logging.WARNING,
    text="a claim failed; trying again: {error}",
):
    """A claim failed; it is tried again, ever more slowly."""

    error: str


@dataclass(frozen=True)
class ClaimUnreadable(
    TelemetryEvent,
    action="claim.unreadable",
    level=logging.ERROR,
    text="a claimed row cannot be read and is failed (id {todolist_id!r}): {error}",
):
    """A claimed row cannot be read: it ends `failed`, those claimed with it run."""

    todolist_id: str
    error: str


@dataclass(frozen=True)
class ClaimUnrefused(
    TelemetryEvent,
    action="claim.unrefused",
    level=logging.WARNING,
    text="task {todolist_id} could not be failed now: {error}",
):
    """An unreadable row could not be failed now; it is handed back, and comes again."""

    todolist_id: str
    error: str


# -- task ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskClaimed(
    TelemetryEvent,
    action="task.claimed",
    level=logging.DEBUG,
    text="task {todolist_id} is claimed (attempt {attempt})",
):
    """A row was claimed; its run begins."""

    todolist_id: str
    attempt: int
    agent_type: str


@dataclass(frozen=True)
class RunEnded(
    TelemetryEvent,
    action="task.run_ended",
    level=logging.DEBUG,
    text="task {todolist_id}: {outcome} (attempt {attempt})",
):
    """An executor has ended; `outcome` is completed, failed, cancelled, input_required or retry."""

    todolist_id: str
    attempt: int
    agent_type: str
    outcome: str
    seconds: float


@dataclass(frozen=True)
class RunBroken(
    TelemetryEvent,
    action="task.run_broken",
    level=logging.ERROR,
    text="task {todolist_id} could not be run: {error}",
):
    """The run itself broke, not the executor."""

    todolist_id: str
    attempt: int
    error: str


@dataclass(frozen=True)
class TaskLost(
    TelemetryEvent,
    action="task.lost",
    level=logging.WARNING,
    text="task {todolist_id} is no longer this worker's (attempt {attempt}): stopped",
):
    """The database gave the row to somebody else; the run is stopped and stores nothing."""

    todolist_id: str
    attempt: int


@dataclass(frozen=True)
class TasksHandedBack(TelemetryEvent, action="task.handed_back", text="handing back {tasks} {why}"):
    """Rows are made pending again, no failure counted."""

    tasks: int
    why: str


@dataclass(frozen=True)
class HandBackFailed(
    TelemetryEvent,
    action="task.hand_back_failed",
    level=logging.WARNING,
    text="could not hand tasks back: {error}",
):
    """Rows could not be handed back now; the next heartbeat names them again."""

    tasks: int
    error: str


@dataclass(frozen=True)
class SteeringUnread(
    TelemetryEvent,
    action="task.steering_unread",
    level=logging.WARNING,
    text="could not read messages to running tasks: {error}",
):
    """Messages to running agents could not be read; the next heartbeat names them again."""

    error: str


@dataclass(frozen=True)
class MessageRefused(
    TelemetryEvent,
    action="task.message_refused",
    level=logging.WARNING,
    text="a message to task {todolist_id} is refused: {why}",
):
    """One message to a running agent is malformed; its sender is told, the others are handed over."""

    todolist_id: str
    why: str


# -- store ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OutageBegan(
    TelemetryEvent,
    action="store.outage_began",
    level=logging.WARNING,
    text="events are not stored yet, trying again in {pause:.1f} s: {error}",
):
    """A batch of events could not be stored; it is tried again for as long as the worker lives."""

    error: str
    pause: float


@dataclass(frozen=True)
class OutageEnded(
    TelemetryEvent,
    action="store.outage_ended",
    text="events are stored again, after {tries} tries",
):
    """The database takes events again."""

    tries: int


@dataclass(frozen=True)
class EventUnstorable(
    TelemetryEvent,
    action="store.event_unstorable",
    level=logging.ERROR,
    text="an event of task {todolist_id} cannot be stored: {error}",
):
    """The database refuses an event for good; an outcome is replaced by a failure that says so."""

    todolist_id: str
    event_type: str
    error: str


@dataclass(frozen=True)
class TaskUnendable(
    TelemetryEvent,
    action="store.task_unendable",
    level=logging.ERROR,
    text="task {todolist_id} cannot be ended here (attempt {attempt}): it goes back",
):
    """The database refuses even that a task failed: its row is let go, and handed back as a stray."""

    todolist_id: str
    attempt: int


@dataclass(frozen=True)
class SinkFull(
    TelemetryEvent,
    action="store.full",
    level=logging.WARNING,
    text="events are not being stored fast enough: executors wait",
):
    """More events wait than the sink's capacity."""


@dataclass(frozen=True)
class SinkRoomy(TelemetryEvent, action="store.roomy", text="there is room for events again"):
    """Executors go on."""


@dataclass(frozen=True)
class EndsUndelivered(
    TelemetryEvent,
    action="store.ends_undelivered",
    level=logging.ERROR,
    text="the end of {tasks} task(s) could not be delivered within {seconds:g} s; they run again elsewhere",
):
    """The shutdown could not store everything, and there is no spool."""

    tasks: int
    seconds: float


# -- stream --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HookRaised(
    TelemetryEvent,
    action="stream.hook_raised",
    level=logging.ERROR,
    text="an operator in {where} raised; the stream goes on: {error}",
):
    """A user's operator raised; it is applied anew."""

    where: str
    error: str


@dataclass(frozen=True)
class SubscriberRaised(
    TelemetryEvent,
    action="stream.subscriber_raised",
    level=logging.ERROR,
    text="a subscriber of {where} raised: {error}",
):
    """A subscriber of `worker.events`, `worker.health_changes`, a sink or a telemetry handler raised."""

    where: str
    error: str


#: The contract: every event there is.
EVENTS: tuple[type[TelemetryEvent], ...] = tuple(TelemetryEvent.__subclasses__())
