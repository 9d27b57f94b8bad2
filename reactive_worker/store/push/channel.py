"""A worker's push notifications: the modes they come by, what they say, and the probe that proves them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from reactivex.subject import Subject

from reactive_worker.access.credentials import Credentials
from reactive_worker.errors import ConfigurationError
from reactive_worker.models import PushHealth, PushState, SweepResult, parse_time
from reactive_worker.store.duty import Duty
from reactive_worker.store.push.broadcast import MOST_TOPICS, BroadcastLink
from reactive_worker.store.push.changes import Binding, Change, RealtimeLink
from reactive_worker.store.push.hints import hinted_rows, topics
from reactive_worker.store.push.link import Link
from reactive_worker.store.push.links import Links
from reactive_worker.store.push.mode import BROADCAST
from reactive_worker.store.push.probe import Probe
from reactive_worker.store.telemetry import Emit, PushMissedRow

#: Ids notified lately, to compare a sweep with; 10,000 of them are some 1 MB.
REMEMBERED = 10_000
#: A healthy channel tells within 0.6 s; a row this old that was never told is a reason to probe.
PATIENCE = timedelta(seconds=3)


class Project(Protocol):
    """Whose Realtime it is."""

    @property
    def url(self) -> str: ...

    @property
    def credentials(self) -> Credentials: ...


class PushStore(Protocol):
    """What push asks the database."""

    @property
    def connection(self) -> Project: ...

    async def push_ways(self) -> tuple[bool, str]:
        """Whether the database sends broadcasts, and if not, why."""
        ...

    async def touch_probe(self, worker_id: str) -> str:
        """Write a probe into the worker's mailbox; returns its `probe_at`."""
        ...


def quoted(value: str) -> str:
    """A value inside a Realtime filter list, quoted when it holds reserved characters or means no text.

    >>> quoted("echo"), quoted("a,b"), quoted("null")
    ('echo', '"a,b"', '"null"')
    """
    if value.lower() == "null" or any(c in value for c in ',.:()"\\ '):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return value


def bindings(worker_id: str, agent_types: Collection[str]) -> list[Binding]:
    """What a worker listens to by changes."""
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
    """Receives notifications of rows and signals for one worker; publishes whether that truly works.

    Parameters
    ----------
    store:
        Whose Realtime it is, and what writes the probe.
    worker_id, agent_types:
        Whose channel this is.
    mode:
        ``changes``, ``broadcast``, ``both``, or ``auto``: see `store.push.mode.choose`.
    probe_interval:
        Seconds between probes.
    emit:
        Where telemetry goes.

    Attributes
    ----------
    rows:
        Rows that may have become runnable: as Realtime renders them, or the few columns of a hint.
    times:
        The database's time when it sent a hint.
    signals:
        The mailbox was touched by somebody, then: ask the database what for.
    catch_up:
        Sweep now: a subscription became live, and what happened before was not told; or more rows became
        runnable than a hint names.

    Raises
    ------
    ConfigurationError
        More agent types than one socket has channels for, and `mode` insists on broadcast.
    """

    def __init__(
        self,
        store: PushStore,
        worker_id: str,
        agent_types: Sequence[str],
        *,
        mode: str = "auto",
        probe_interval: float,
        emit: Emit,
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._agent_types = agent_types
        self._emit = emit
        self.rows: Subject[Mapping[str, Any]] = Subject()
        self.times: Subject[datetime] = Subject()
        self.signals: Subject[datetime | None] = Subject()
        self.catch_up: Subject[None] = Subject()
        self._notified: OrderedDict[str, None] = OrderedDict()
        #: By agent type: rows made until then were too many to be named.
        self._unnamed: dict[str, datetime] = {}
        self._mailbox: tuple[Any, Any] | None = None
        self.links = Links(mode, self._open, store.push_ways, emit)
        self.probe = Probe(self.links, lambda: store.touch_probe(worker_id), interval=probe_interval)
        if len(agent_types) >= MOST_TOPICS:
            if mode in ("broadcast", "both"):
                raise ConfigurationError(
                    f"push={mode} serves at most {MOST_TOPICS - 1} agent types in one worker, "
                    f"not {len(agent_types)}: use push=changes, or several workers"
                )
            self.links.never_broadcast("a worker has too many agent types for it")

    @property
    def health(self) -> PushHealth:
        """The state now, since when, why, and by which mode."""
        return self.links.health

    @property
    def duties(self) -> Sequence[Duty]:
        """What keeps it going; neither may end while the worker runs."""
        return (self.links, self.probe)

    def compare(self, result: SweepResult) -> None:
        """Look whether a sweep found what push should have told; if so, probe at once."""
        health = self.health
        if health.state is not PushState.HEALTHY:
            return
        for candidate in result.candidates:
            overdue = health.since + PATIENCE < candidate.created_at < result.now - PATIENCE
            unnamed = self._unnamed.get(candidate.agent_type)
            excused = unnamed is not None and candidate.created_at <= unnamed
            if overdue and not excused and candidate.attempt == 0 and candidate.id not in self._notified:
                self._emit(PushMissedRow(candidate.id))
                self.probe.doubt()
                return

    def _open(self, mode: str) -> Link:
        url, key = self._store.connection.url, self._store.connection.credentials
        if mode == BROADCAST:
            link: Link = BroadcastLink(
                url,
                key,
                topics(self._worker_id, self._agent_types),
                on_message=lambda event, payload: self._message(link, event, payload),
                on_ready=self._ready,
                on_health=lambda health: self.links.changed(),
            )
        else:
            link = RealtimeLink(
                url,
                key,
                f"worker-{self._worker_id}",
                bindings(self._worker_id, self._agent_types),
                on_change=lambda change: self._change(link, change),
                on_ready=self._ready,
                on_health=lambda health: self.links.changed(),
            )
        link.emit = self._emit
        return link

    # -- notifications ---------------------------------------------------------------------------------------

    def _ready(self) -> None:
        self.probe.ready()
        self.catch_up.on_next(None)

    def _change(self, link: Link, change: Change) -> None:
        if change.table == "todolist":
            self._row(change.record)
        elif change.table == "worker_mailbox":
            self._touched(link, change.record)

    def _message(self, link: Link, event: str, payload: Mapping[str, Any]) -> None:
        if event == "mailbox":
            self._touched(link, payload)
        elif event == "todos":
            rows, more = hinted_rows(payload)
            self.times.on_next(parse_time(payload.get("at"), "at"))
            for row in rows:
                self._row(row)
            if more > 0:
                made = [parse_time(row.get("created_at"), "created_at") for row in rows]
                self._unnamed[str(payload["agent_type"])] = max(made, default=datetime.now(UTC))
                self.catch_up.on_next(None)

    def _row(self, record: Mapping[str, Any]) -> None:
        self._notified[str(record.get("id"))] = None
        if len(self._notified) > REMEMBERED:
            self._notified.popitem(last=False)
        self.rows.on_next(record)

    def _touched(self, link: Link, record: Mapping[str, Any]) -> None:
        self.probe.echo(link, record.get("probe_at"))
        signal_at = record.get("signal_at")
        # Each mode writes times in its own manner.
        signalled = None if signal_at is None else parse_time(signal_at, "signal_at")
        mailbox = (signalled, record.get("desired_state"))
        if mailbox != self._mailbox:
            # The first one after the start says nothing new, but a heartbeat costs little.
            self._mailbox = mailbox
            self.signals.on_next(signalled)
