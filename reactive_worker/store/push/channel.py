"""A worker's push notifications: the modes they come by, what they say, and the probe that proves them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from reactive_worker.access.credentials import Credentials
from reactive_worker.errors import ConfigurationError, ReactiveWorkerError, UnreachableError
from reactive_worker.models import PushHealth, PushState, SweepResult, parse_time
from reactive_worker.store.push.broadcast import MOST_TOPICS, BroadcastLink
from reactive_worker.store.push.changes import Binding, Change, Link, RealtimeLink
from reactive_worker.store.push.hints import hinted_rows, topics
from reactive_worker.store.push.mode import BROADCAST, FIXED, ONLY_BROADCAST, Choice, choose
from reactive_worker.store.push.probe import Probe

logger = logging.getLogger(__name__)

#: Ids heard lately, to compare a sweep with; 10,000 of them are some 1 MB.
REMEMBERED = 10_000
#: A healthy channel tells within 0.6 s; a row this old that was never told is a reason to probe.
PATIENCE = timedelta(seconds=3)
#: Seconds between looks at the links, should none of them say anything.
LOOK_INTERVAL = 1.0
#: Seconds after which a database that does not broadcast is asked again: somebody may have migrated it.
ASK_AGAIN = 300.0


def quoted(value: str) -> str:
    """A value inside a Realtime filter list, quoted when it holds reserved characters."""
    if any(c in value for c in ',.:()"\\ '):
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
    """Hears rows and signals for one worker; publishes whether that truly works.

    Parameters
    ----------
    url, key, worker_id, agent_types:
        Whose channel this is.
    mode:
        ``changes``, ``broadcast``, ``both``, or ``auto``: see `store.push.mode.choose`.
    sent:
        Asks whether the database sends broadcasts, and if not, why.
    touch:
        Writes the probe.
    probe_interval:
        Seconds between probes.
    on_row:
        A row that may have become runnable: as Realtime renders it, or the few columns of a hint.
    on_time:
        The database's time when it sent a hint.
    on_signal:
        The mailbox was touched by somebody, then: ask the database what for.
    on_ready:
        Sweep now: a subscription became live, and what happened before was not told; or more rows became
        runnable than a hint names.
    on_health:
        The state changed.

    Raises
    ------
    ConfigurationError
        More agent types than one socket has channels for, and `mode` insists on broadcast.
    """

    def __init__(
        self,
        url: str,
        key: str | Credentials,
        worker_id: str,
        agent_types: Sequence[str],
        *,
        mode: str = "auto",
        sent: Callable[[], Awaitable[tuple[bool, str]]],
        touch: Callable[[], Awaitable[str]],
        probe_interval: float,
        on_row: Callable[[Mapping[str, Any]], None],
        on_time: Callable[[datetime], None],
        on_signal: Callable[[datetime | None], None],
        on_ready: Callable[[], None],
        on_health: Callable[[PushHealth], None],
    ) -> None:
        self._url, self._key = url, key
        self._worker_id = worker_id
        self._agent_types = agent_types
        self._mode = mode
        self._ask = sent
        self._on_row = on_row
        self._on_time = on_time
        self._on_signal = on_signal
        self._on_ready = on_ready
        self._on_health = on_health
        self._heard: OrderedDict[str, None] = OrderedDict()
        #: By agent type: rows made until then were too many to be named.
        self._unnamed: dict[str, datetime] = {}
        self._mailbox: tuple[Any, Any] | None = None
        self._links: dict[str, Link] = {}
        self._choice = FIXED.get(mode)
        #: Whether the database sends, and why not; None while it has not answered.
        self._sent: tuple[bool, str] | None = None
        self._ask_at = 0.0
        self._stirred = asyncio.Event()
        self._health = PushHealth(PushState.CONNECTING, datetime.now(UTC), "not started")
        self._probe = Probe(lambda: tuple(self._links.values()), touch, interval=probe_interval)
        self._tasks: list[asyncio.Task[None]] = []
        if len(agent_types) >= MOST_TOPICS:
            if mode in ("broadcast", "both"):
                raise ConfigurationError(
                    f"push={mode} serves at most {MOST_TOPICS - 1} agent types in one worker, "
                    f"not {len(agent_types)}: use push=changes, or several workers"
                )
            self._sent, self._ask_at = (False, "a worker has too many agent types for it"), float("inf")

    @property
    def health(self) -> PushHealth:
        """The state now, since when, why, and by which mode."""
        return self._health

    @property
    def duties(self) -> list[asyncio.Task[None]]:
        """Tasks that must not end while the worker runs."""
        return self._tasks

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        self._tasks = [
            asyncio.create_task(self._steer(), name="push"),
            asyncio.create_task(self._probe.run(), name="probe"),
        ]

    async def stop(self) -> None:
        """Leave and wait until nothing is left."""
        for task in self._tasks:
            task.cancel()
        # What one of them died of has been told through `duties`.
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self._links.values():
            await link.stop()

    def compare(self, result: SweepResult) -> None:
        """Look whether a sweep found what push should have told; if so, probe at once."""
        health = self.health
        if health.state is not PushState.HEALTHY:
            return
        for candidate in result.candidates:
            overdue = health.since + PATIENCE < candidate.created_at < result.now - PATIENCE
            unnamed = self._unnamed.get(candidate.agent_type)
            excused = unnamed is not None and candidate.created_at <= unnamed
            if overdue and not excused and candidate.attempt == 0 and candidate.id not in self._heard:
                logger.info("a sweep found task %s, which push has not told: probing", candidate.id)
                self._probe.doubt()
                return

    # -- the modes -------------------------------------------------------------------------------------------

    async def _steer(self) -> None:
        """Keep the links of the chosen modes running; ends only when one died, which none ever may."""
        while True:
            self._stirred.clear()
            if self._mode == "auto":
                await self._choose()
            elif not self._links and self._choice is not None:
                await self._keep(self._choice.modes)
            for link in self._links.values():
                if link.task is not None and link.task.done():
                    link.task.result()
                    raise RuntimeError(f"the supervision of {link.task.get_name()} ended")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL):
                    await self._stirred.wait()

    async def _choose(self) -> None:
        if (self._sent is None or not self._sent[0]) and asyncio.get_running_loop().time() >= self._ask_at:
            await self._ask_database()
        # Not answered yet: a join will tell.
        sent, reason = self._sent or (True, "")
        link = self._links.get(BROADCAST)
        choice = choose(
            sent=sent,
            reason=reason,
            health=None if link is None else link.health,
            refusal="" if link is None else link.refusal,
            now=datetime.now(UTC),
            why=self._choice.why if self._choice is not None else "",
        )
        await self._keep(choice.modes)
        if choice != self._choice:
            self._report(choice, first=self._choice is None)
            self._choice = choice
            self._assess()

    async def _ask_database(self) -> None:
        pause = ASK_AGAIN
        try:
            self._sent = await self._ask()
        except UnreachableError as error:
            logger.debug("cannot ask whether broadcasts are sent: %s", error)
            pause = 5.0
        except ReactiveWorkerError as error:
            self._sent = (False, f"the database does not say whether it sends broadcasts: {error}")
        self._ask_at = asyncio.get_running_loop().time() + pause

    def _report(self, choice: Choice, *, first: bool) -> None:
        if choice == ONLY_BROADCAST:
            logger.info("push goes by broadcast%s", "" if first else " again")
        elif BROADCAST in choice.modes:
            logger.warning("push goes by changes too until broadcast works: %s", choice.why)
        else:
            logger.info("push goes by changes: %s", choice.why)

    async def _keep(self, modes: Collection[str]) -> None:
        for mode in modes:
            if mode not in self._links:
                link = self._links[mode] = self._open(mode)
                await link.start()
        for mode in set(self._links) - set(modes):
            await self._links[mode].stop()
            del self._links[mode]

    def _open(self, mode: str) -> Link:
        def on_health(health: PushHealth) -> None:
            self._assess()
            self._stirred.set()

        if mode == BROADCAST:
            link: Link = BroadcastLink(
                self._url,
                self._key,
                topics(self._worker_id, self._agent_types),
                on_message=lambda event, payload: self._message(link, event, payload),
                on_ready=self._ready,
                on_health=on_health,
            )
        else:
            link = RealtimeLink(
                self._url,
                self._key,
                f"worker-{self._worker_id}",
                bindings(self._worker_id, self._agent_types),
                on_change=lambda change: self._change(link, change),
                on_ready=self._ready,
                on_health=on_health,
            )
        return link

    def _assess(self) -> None:
        """Push is as healthy as the healthiest mode there is."""
        found = {
            state: [w for w, link in self._links.items() if link.health.state is state] for state in PushState
        }
        state = next((s for s in (PushState.HEALTHY, PushState.DEAF) if found[s]), PushState.CONNECTING)
        modes = found[state]
        detail = self._links[modes[0]].health.detail if modes else ""
        if self._choice is not None and self._choice.why:
            detail = f"{detail}; not by broadcast alone: {self._choice.why}"
        mode = "" if state is not PushState.HEALTHY else modes[0] if len(modes) == 1 else "both"
        changed = state is not self._health.state
        since = datetime.now(UTC) if changed else self._health.since
        self._health = PushHealth(state, since, detail, mode)
        if changed:
            self._on_health(self._health)

    # -- what is heard ---------------------------------------------------------------------------------------

    def _ready(self) -> None:
        self._probe.ready()
        self._on_ready()

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
            self._on_time(parse_time(payload.get("at"), "at"))
            for row in rows:
                self._row(row)
            if more > 0:
                made = [parse_time(row.get("created_at"), "created_at") for row in rows]
                self._unnamed[str(payload["agent_type"])] = max(made, default=datetime.now(UTC))
                self._on_ready()

    def _row(self, record: Mapping[str, Any]) -> None:
        self._heard[str(record.get("id"))] = None
        if len(self._heard) > REMEMBERED:
            self._heard.popitem(last=False)
        self._on_row(record)

    def _touched(self, link: Link, record: Mapping[str, Any]) -> None:
        self._probe.echo(link, record.get("probe_at"))
        signal_at = record.get("signal_at")
        # Each mode writes times in its own manner.
        signalled = None if signal_at is None else parse_time(signal_at, "signal_at")
        mailbox = (signalled, record.get("desired_state"))
        if mailbox != self._mailbox:
            # The first one after the start says nothing new, but a heartbeat costs little.
            self._mailbox = mailbox
            self._on_signal(signalled)
