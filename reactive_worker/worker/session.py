"""One life of a worker, from its registration to its leaving: the parts, and how they are tied."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from a2a.server.agent_execution import AgentExecutor
from reactivex import Observable
from reactivex.disposable import CompositeDisposable
from reactivex.scheduler.eventloop import AsyncIOScheduler

from reactive_worker import streams
from reactive_worker.access.credentials import Credentials
from reactive_worker.artifacts.offload import EVENT_LIMIT, OUTPUT_LIMIT, Artifacts
from reactive_worker.artifacts.signer import FileSigner
from reactive_worker.errors import ReactiveWorkerError, SchemaMissingError, WorkerStoppedError
from reactive_worker.execution.context import ContextFactory
from reactive_worker.execution.runner import Runner
from reactive_worker.execution.turn import Limits
from reactive_worker.models import Candidate, PushHealth, Todo, TodoEvent
from reactive_worker.settings import Settings
from reactive_worker.store.connection import Connection
from reactive_worker.store.duty import Duty
from reactive_worker.store.heartbeat import Heartbeat, Pace, Report
from reactive_worker.store.objects import ObjectStore
from reactive_worker.store.push.channel import PushChannel
from reactive_worker.store.store import SCHEMA_VERSION, TodoStore
from reactive_worker.worker.claiming import Claiming
from reactive_worker.worker.clock import Clock
from reactive_worker.worker.config import Identity, checked_types
from reactive_worker.worker.delivery import Delivery
from reactive_worker.worker.held import Held
from reactive_worker.worker.lease import Lease, Registration, Signals, Strays
from reactive_worker.worker.runs import ExecutorFor, Runs, RunTask
from reactive_worker.worker.shutdown import Shutdown
from reactive_worker.worker.sources import Sources
from reactive_worker.worker.spool import Spool
from reactive_worker.worker.steering import SteeringFeed
from reactive_worker.worker.storing import Storing
from reactive_worker.worker.telemetry import (
    CandidateUnranked,
    ClaimFailed,
    HookRaised,
    RunBroken,
    SubscriberRaised,
    Telemetry,
    TokenEndsSoon,
    TokenNoted,
    WorkerDied,
    WorkerHurried,
    WorkerLeft,
    WorkerPaused,
    WorkerRegistered,
    WorkerResumed,
    WorkerStayed,
    WorkerStopping,
    described,
    log_line,
)

T = TypeVar("T")

#: A token that ends within this time is worth a warning at the start.
RENEW_SOON = timedelta(days=7)


class Session:
    """A registered worker without a stream: what a pipeline of your own is made from.

    Opened by `open_session`. The heartbeat, push and its probe, cancels, messages to running agents, pause
    and drain from outside, the spool and the shutdown go on inside.

    Attributes
    ----------
    pushed:
        Candidates that Realtime tells of, hot.
    claim:
        Claims candidates, as `streams.dispatch` takes it.
    backpressure:
        For `dedupe`, `prioritise` and `dispatch`; pause, resume and drain from outside go through it.
    telemetry:
        What happens, as events.
    push, held, heartbeat:
        The parts themselves, to look at.
    """

    def __init__(self, identity: Identity, store: TodoStore, telemetry: Telemetry) -> None:
        self.identity = identity
        self.settings = settings = identity.settings
        self.telemetry = telemetry
        self._store = store
        # From the ground up: each part is given those below it, and told of by `_tie` what flows upwards.
        self.backpressure = streams.Backpressure()
        self.held = Held()
        self._clock = Clock()
        objects = ObjectStore(store.connection)
        self._artifacts = _artifacts(objects, settings)
        spool = Spool(settings.spool) if settings.spool else None
        self.delivery = Delivery(store, identity.id, spool, self._artifacts)
        self._storing = Storing(self.held, self.delivery, telemetry)
        self._runs = Runs(self._runner_factory(objects), self.held, telemetry)
        self.claim = Claiming(store, identity.id, self.held, self.delivery, telemetry)
        steering = SteeringFeed(store, identity.id, self._runs.find, telemetry)
        self.push = PushChannel(
            store,
            identity.id,
            identity.agent_types,
            mode=settings.push,
            probe_interval=settings.probe_interval,
            emit=telemetry.emit,
        )
        pace = Pace(settings.lease, settings.heartbeat_interval, settings.stall_limit)
        connection = store.connection
        self.heartbeat = Heartbeat(
            settings.url, connection.credentials, identity.id, pace, self._report, telemetry.emit
        )
        self._sources = Sources(self.push, store, identity, self._clock, self.backpressure, telemetry)
        self.pushed = self._sources.pushed
        signals = Signals(self.heartbeat.beat_now)
        strays = Strays(store, identity.id, self.held, telemetry)
        registration = Registration(self._register, telemetry)
        self._lease = Lease(self.held, self._runs, steering, signals, strays, registration, telemetry)
        self._shutdown = Shutdown(
            settings, self._storing, self._runs, self.held, self.delivery, strays, telemetry
        )
        self._stopping = asyncio.Event()
        self._registered = False
        self._subscriptions = CompositeDisposable()
        self._tie(signals, steering)

    def _tie(self, signals: Signals, steering: SteeringFeed) -> None:
        """Everything that flows from one part to another, in one place."""
        sweep = self._sources.sweep_now
        self._listen(self.push.times, self._clock.at_least)
        self._listen(self.push.signals, signals.heard)
        self._listen(self.push.catch_up, lambda _: sweep())
        # `workers list` shall not go on saying what was true until now.
        self._listen(self.push.links.health_changes, lambda _: self.heartbeat.beat_now())
        # After an outage every lease has run out; a heartbeat renews ours if nobody has swept yet.
        self._listen(self.claim.expired, lambda _: self.heartbeat.beat_now())
        # What was said to a run that was lost is for the next one.
        self._listen(self.claim.claimed, lambda rows: steering.fetch(_tried_before(rows)))
        self._listen(self._storing.retried, lambda _: sweep())
        self._listen(self._storing.lost, self._lost)
        self._listen(self.heartbeat.answers, self._lease.answered)
        self._listen(self._lease.sweeps, lambda _: sweep())
        self._listen(self._lease.orders, self._obey)

    def _listen(self, source: Observable[T], listener: Callable[[T], None]) -> None:
        def guarded(value: T) -> None:
            # RxPY raises it into whoever spoke, past all who listen after this one.
            try:
                listener(value)
            except Exception as error:  # noqa: BLE001 - a fault of ours, about one item
                self.telemetry.emit(SubscriberRaised("a part of the session", described(error)))

        self._subscriptions.add(source.subscribe(guarded))

    # -- what a pipeline is made from ------------------------------------------------------------------------

    def sweeps(self, fair_by: str | None = None) -> Observable[Candidate]:
        """Candidates that the database is asked for, as often as push makes it necessary.

        Parameters
        ----------
        fair_by:
            ``"owner_id"``: the best of each owner, instead of the best of all.
        """
        return self._sources.sweeps(fair_by)

    def run(
        self,
        executors: AgentExecutor | Mapping[str, AgentExecutor],
        context_factory: ContextFactory | None = None,
    ) -> RunTask:
        """What runs a claimed row, as `streams.dispatch` takes it.

        Parameters
        ----------
        executors:
            One for all agent types, or one for each.
        context_factory:
            Makes the request context of a task; default `TodoRequestContext`.
        """
        return self._runs.run(executors, context_factory)

    def store(self, source: Observable[TodoEvent]) -> Observable[streams.StoredBatch]:
        """The sink, an operator: numbers events, stores them in batches, retries for as long as it takes."""
        return self._storing.store(source)

    def guard(self, hook: streams.Hook[T, T] | None, name: str) -> Callable[[Observable[T]], Observable[T]]:
        """Apply an operator that may raise, and apply it anew when it did; each time is told as telemetry."""
        if hook is None:
            return lambda source: source
        return streams.guarded(
            hook,
            on_error=lambda error: self.telemetry.emit(HookRaised(name, described(error))),
            name=name,
        )

    def failed(self, todo: Todo | None, error: BaseException) -> None:
        """Tell that a claim (None) or a run failed: `on_error` of `streams.dispatch`."""
        self.telemetry.emit(
            ClaimFailed(described(error))
            if todo is None
            else RunBroken(todo.id, todo.attempt, described(error))
        )

    def unranked(self, candidate: Candidate, error: BaseException) -> None:
        """Tell that a key or order raised: `on_error` of `streams.prioritise`."""
        self.telemetry.emit(CandidateUnranked(candidate.id, described(error)))

    # -- its life --------------------------------------------------------------------------------------------

    @property
    def health(self) -> PushHealth:
        """Whether push works."""
        return self.push.health

    @property
    def running(self) -> list[Todo]:
        """Tasks whose executor is at work now."""
        return [task.todo for task in self.held.running()]

    def sweep_now(self) -> None:
        """Ask the database for candidates now."""
        self._sources.sweep_now()

    def stop(self, why: str = "asked to stop") -> None:
        """Stop claiming and drain; a second call ends now."""
        if self._stopping.is_set():
            self.telemetry.emit(WorkerHurried())
            self._shutdown.hurry()
            return
        self.telemetry.emit(WorkerStopping(why, len(self.running), self.settings.drain_timeout))
        self.backpressure.paused.on_next(True)
        self._stopping.set()

    async def serve(self, stream: Observable[Any]) -> None:
        """Subscribe to a pipeline, and work until `stop` is called or the pipeline ends.

        Leaving `open_session` drains it: the subscription lives until then.

        Raises
        ------
        WorkerStoppedError
            The pipeline failed, or a background duty died: a dead duty must never look like a healthy worker.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def failed(error: Exception) -> None:
            if not ended.done():
                ended.set_exception(error)

        def completed() -> None:
            if not ended.done():
                ended.set_result(None)

        self._subscriptions.add(
            stream.subscribe(on_error=failed, on_completed=completed, scheduler=AsyncIOScheduler(loop))
        )
        stopping = asyncio.ensure_future(self._stopping.wait())
        watched: dict[asyncio.Future[Any], str] = {
            self.heartbeat.ended: "the heartbeat",
            ended: "the stream of tasks",
            self._storing.source_ended: "the stream of events",
            **{duty.task: duty.name for duty in self._duties if duty.task is not None},
        }
        try:
            await asyncio.wait([stopping, *watched], return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                self._look_what_ended(watched, (ended, self._storing.source_ended))
        finally:
            stopping.cancel()
            ended.cancel()

    def _look_what_ended(
        self, watched: Mapping[asyncio.Future[Any], str], may_end: Sequence[asyncio.Future[Any]]
    ) -> None:
        for future, name in watched.items():
            if not future.done():
                continue
            error = future.exception()
            if error is None and future in may_end:
                continue
            if future is self.heartbeat.ended:
                self._shutdown.without_lease()
            died = error or RuntimeError(f"{name} ended")
            self.telemetry.emit(WorkerDied(name, described(died)))
            raise WorkerStoppedError(
                f"the worker stopped because a background duty died: {name}: {died}"
            ) from died

    @property
    def _duties(self) -> Sequence[Duty]:
        return (*self.push.duties, *self._lease.duties)

    async def start(self) -> None:
        """Register, and begin every duty; raises what the store raises. `open_session` calls it."""
        if self._artifacts is not None:
            await self._artifacts.prepare()
        # Before anything is swept: what an earlier worker kept must find its rows unclaimed by others.
        await self.delivery.deliver_spooled()
        await self._register()
        await self.heartbeat.start()
        for duty in self._duties:
            await duty.start()

    async def close(self) -> None:
        """Drain, store what was said, and leave; safe when `start` failed half-way."""
        self.backpressure.paused.on_next(True)
        self._stopping.set()
        try:
            if self._registered:
                await self._shutdown.run()
        finally:
            # What one of them died of has been raised by `serve`.
            await asyncio.gather(*(duty.stop() for duty in self._duties), return_exceptions=True)
            await self.heartbeat.stop()
            self._subscriptions.dispose()
            self._storing.dispose()
            if self._registered:
                await self._leave()

    async def _register(self) -> None:
        identity = self.identity
        answer = await self._store.register(
            identity.id,
            name=identity.name,
            agent_types=identity.agent_types,
            concurrency=self.settings.concurrency,
            lease=self.settings.lease,
            info=self._info(),
        )
        self._registered = True
        types = ", ".join(identity.agent_types)
        self.telemetry.emit(WorkerRegistered(identity.name, identity.id, types, self.settings.url))
        self._obey(str(answer.get("desired_state") or "running"))

    async def _leave(self) -> None:
        if self.delivery.has_given_up:
            # Unregistering hands back what this worker holds, finished tasks in the spool included.
            why = f"not unregistering: ended tasks wait in {self.settings.spool}"
            self.telemetry.emit(WorkerStayed(why))
            return
        try:
            async with asyncio.timeout(5):
                await self._store.unregister(self.identity.id)
        except (ReactiveWorkerError, TimeoutError) as error:
            why = f"could not unregister, the lease will run out instead: {error}"
            self.telemetry.emit(WorkerStayed(why))
        else:
            self.telemetry.emit(WorkerLeft(self.identity.name))

    def _obey(self, desired_state: str) -> None:
        if self._stopping.is_set():
            return
        paused = self.backpressure.paused
        if desired_state == "draining":
            self.stop("asked to drain")
        elif (pause := desired_state == "paused") != paused.value:
            self.telemetry.emit(WorkerPaused() if pause else WorkerResumed())
            paused.on_next(pause)

    def _lost(self, runs: Collection[tuple[str, int]]) -> None:
        self._runs.lose(runs)
        for key in runs:
            self.held.drop(*key)

    def _report(self) -> Report:
        return Report(self.held.in_flight(), self._info())

    def _info(self) -> dict[str, Any]:
        health = self.push.health
        return {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "running": len(self.held),
            "push": health.state.value,
            "push_mode": health.mode,
            "push_since": health.since.isoformat(),
            "push_detail": health.detail,
        }

    def _runner_factory(self, objects: ObjectStore) -> Callable[[ExecutorFor, ContextFactory], Runner]:
        settings = self.settings

        def make(executor_for: ExecutorFor, context_factory: ContextFactory) -> Runner:
            return Runner(
                executor_for,
                default_timeout=settings.default_timeout or None,
                cancel_grace=settings.cancel_grace,
                load_events=self._store.all_events,
                context_factory=context_factory,
                gate=self._storing.wait_for_room,
                sign=FileSigner(
                    objects,
                    settings.artifacts_bucket,
                    url_life=settings.artifact_url_life,
                    ownerless_buckets=[name.strip() for name in settings.ownerless_buckets.split(",")],
                ),
                # What leaves the row may be larger than what stays.
                limits=Limits(EVENT_LIMIT, OUTPUT_LIMIT) if self._artifacts is not None else None,
            )

        return make


@asynccontextmanager
async def open_session(
    settings: Settings,
    agent_types: Iterable[str],
    *,
    id: str | None = None,
    telemetry: Telemetry | None = None,
) -> AsyncGenerator[Session]:
    """Register a worker whose stream you compose yourself; leaving drains it and leaves.

    Parameters
    ----------
    settings:
        Intervals in seconds, URL and key; `Settings.load()` reads the environment.
    agent_types:
        Which rows of `todolist` it serves.
    id:
        Its id in the table `workers`; a new one by default.
    telemetry:
        What happens, as events; one with log lines by default.

    Raises
    ------
    ConfigurationError, SupabaseError
        The worker cannot start: the message says what to do.

    Example
    -------
    >>> async with open_session(Settings.load(), ["echo"]) as session:  # doctest: +SKIP
    ...     backpressure = session.backpressure
    ...     await session.serve(
    ...         reactivex.merge(session.pushed, session.sweeps()).pipe(
    ...             streams.dedupe(forget=backpressure.released),
    ...             streams.prioritise(backpressure),
    ...             streams.dispatch(session.claim, session.run(EchoExecutor()), backpressure,
    ...                              concurrency=4, on_error=session.failed),
    ...             session.store,
    ...         )
    ...     )
    """
    types = checked_types(agent_types)
    identity = Identity(settings, types) if id is None else Identity(settings, types, id)
    if telemetry is None:
        telemetry = Telemetry()
        telemetry.attach(log_line)
    credentials = settings.worker_credentials()
    _note_token(credentials, telemetry)
    connection = await Connection.open(settings.url, credentials)
    try:
        store = TodoStore(connection)
        await _check_schema(store)
        session = Session(identity, store, telemetry)
        try:
            await session.start()
            yield session
        finally:
            await session.close()
    finally:
        await connection.aclose()


def _note_token(credentials: Credentials, telemetry: Telemetry) -> None:
    facts = credentials.facts()
    if facts is None or facts.expires_at is None:
        return
    soon = timedelta(0) < facts.expires_at - datetime.now(UTC) < RENEW_SOON
    telemetry.emit(TokenEndsSoon(str(facts)) if soon else TokenNoted(str(facts)))


async def _check_schema(store: TodoStore) -> None:
    version = await store.schema_version()
    if version < SCHEMA_VERSION:
        raise SchemaMissingError(
            f"the database has schema version {version}, this worker needs {SCHEMA_VERSION}: "
            "apply the new migrations with `supabase db push`"
        )


def _artifacts(objects: ObjectStore, settings: Settings) -> Artifacts | None:
    if not settings.artifacts_bucket:
        return None
    return Artifacts(
        objects,
        settings.artifacts_bucket,
        limit=settings.artifact_limit,
        url_life=settings.artifact_url_life,
    )


def _tried_before(rows: Sequence[Todo]) -> list[tuple[str, int]]:
    return [(todo.id, todo.attempt) for todo in rows if todo.attempt > 1]
