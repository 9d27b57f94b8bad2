"""ReactiveWorker: the stream of a worker, composed from the parts of a session."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Unpack, cast

import reactivex
from a2a.server.agent_execution import AgentExecutor
from reactivex import Observable, abc
from reactivex import operators as ops

from reactive_worker import streams
from reactive_worker.access.logs import log_by_default
from reactive_worker.errors import ConfigurationError
from reactive_worker.models import PushHealth, PushState, Todo, TodoEvent
from reactive_worker.settings import Settings
from reactive_worker.worker.config import (
    CandidatesHook,
    EventsHook,
    Identity,
    StreamConfig,
    WorkerOptions,
    checked_executors,
    checked_types,
)
from reactive_worker.worker.fanout import Fanout
from reactive_worker.worker.hooks import beside_outcomes
from reactive_worker.worker.session import Session, open_session
from reactive_worker.worker.signals import stop_signals
from reactive_worker.worker.telemetry import Telemetry, TelemetryEvent, log_line


class ReactiveWorker:
    """Runs A2A executors on rows of `todolist`, driven by Supabase Realtime.

    Parameters
    ----------
    executor:
        One executor; `agent_type` among the options says which rows it runs. Or
    executors:
        several, by agent type.
    settings:
        Intervals in seconds, concurrency, URL and key; `Settings.load()` by default.
    candidates:
        Composes your operators over the stream of candidates, before they are deduplicated and claimed.
        Dropping, delaying or reordering loses nothing: a later sweep offers the row again.
    events:
        Composes your operators over what executors say, before it is stored.
    **options:
        Any field of `Settings` (``url``, ``key``, ``lease`` ...), which wins over `settings`; and

        per_type: most tasks of a type run at the same time; types not named share `settings.concurrency`.
        priority_key: sort key of a candidate, smallest first; by default highest priority, then oldest.
        order: how candidates are ranked when one key is not enough: `streams.fair_by`.
        context_factory: makes the request context of a task.
        handle_signals: whether `run` stops on SIGINT and SIGTERM; yes by default.

    Raises
    ------
    ConfigurationError
        An option is unknown or malformed, or there is no executor.

    Example
    -------
    >>> worker = ReactiveWorker(EchoExecutor(), agent_type="echo")  # doctest: +SKIP
    >>> asyncio.run(worker.run())  # doctest: +SKIP
    """

    def __init__(
        self,
        executor: AgentExecutor | None = None,
        *,
        executors: Mapping[str, AgentExecutor] | None = None,
        settings: Settings | None = None,
        candidates: CandidatesHook | None = None,
        events: EventsHook | None = None,
        **options: Unpack[WorkerOptions],
    ) -> None:
        self.settings = _settings(settings, options)
        self._config = StreamConfig(
            executors=checked_executors(executor, self.settings.agent_type, executors),
            per_type=dict(options.get("per_type") or {}),
            candidates=candidates,
            events=events,
            priority_key=options.get("priority_key"),
            order=options.get("order"),
            context_factory=options.get("context_factory"),
        )
        self._identity = Identity(self.settings, checked_types(self._config.executors))
        self._handle_signals = options.get("handle_signals", True)
        #: What happens, as named events: see `reactive_worker.worker.telemetry`. Log lines are attached.
        self.telemetry = Telemetry()
        self.telemetry.attach(log_line)
        self._events: Fanout[TodoEvent] = Fanout("worker.events", self._tell)
        self._started: Fanout[Collection[str]] = Fanout("worker.started", self._tell)
        self._finished: Fanout[Collection[str]] = Fanout("worker.finished", self._tell)
        self._health_changes: Fanout[PushHealth] = Fanout("worker.health_changes", self._tell)
        self._ready = asyncio.Event()
        self._stops = 0
        self._session: Session | None = None
        self._running: asyncio.Task[None] | None = None

    # -- what it does ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until `stop` is called, a signal comes, or a hook ends the stream.

        Raises
        ------
        ConfigurationError, SupabaseError
            The worker cannot start: the message says what to do.
        WorkerStoppedError
            A background duty died while it ran.
        """
        log_by_default(self.settings.log_level)
        with self._signals():
            async with open_session(
                self.settings, self._identity.agent_types, id=self.id, telemetry=self.telemetry
            ) as session:
                self._attach(session)
                await session.serve(self._stream(session))

    def _stream(self, session: Session) -> Observable[streams.StoredBatch]:
        """The whole worker, as the README draws it."""
        config, backpressure = self._config, session.backpressure
        return reactivex.merge(session.pushed, session.sweeps(config.fair_by)).pipe(
            session.guard(config.candidates, "candidates="),
            streams.dedupe(ttl=600.0, forget=backpressure.released),
            streams.prioritise(
                backpressure, key=config.priority_key, order=config.order, on_error=session.unranked
            ),
            streams.dispatch(
                session.claim,
                session.run(config.executors, config.context_factory),
                backpressure,
                concurrency=self.settings.concurrency,
                per_type=config.per_type,
                on_error=session.failed,
            ),
            beside_outcomes(session.guard(config.events, "events=")),
            ops.do_action(self._events.on_next),
            session.store,
        )

    def _attach(self, session: Session) -> None:
        self._session = session
        session.backpressure.settled.subscribe(self._started.on_next)
        session.backpressure.finished.subscribe(self._finished.on_next)
        session.push.links.health_changes.subscribe(self._health_changes.on_next)
        for _ in range(self._stops):
            session.stop()
        self._ready.set()

    def stop(self) -> None:
        """Stop claiming, give running tasks `drain_timeout` to finish, then end. A second call ends now."""
        self._stop("asked to stop")

    def _stop(self, why: str) -> None:
        self._stops += 1
        if self._session is not None:
            self._session.stop(why)

    async def ready(self) -> None:
        """Wait until the worker is registered and its stream runs."""
        await self._ready.wait()

    async def __aenter__(self) -> ReactiveWorker:
        """Run beside the body: returns once the worker is ready, raises what keeps it from starting."""
        self._running = asyncio.create_task(self.run(), name=f"worker {self.id}")
        ready = asyncio.create_task(self.ready())
        try:
            await asyncio.wait([self._running, ready], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._running.done():
            await self._running
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and wait until what runs has finished; raises WorkerStoppedError if a duty had died."""
        self.stop()
        if self._running is not None:
            await self._running

    # -- what users look at ----------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """This worker's id in the table `workers`; new for each process."""
        return self._identity.id

    @property
    def name(self) -> str:
        """What `workers list` shows."""
        return self._identity.name

    @property
    def events(self) -> Observable[TodoEvent]:
        """Everything the executors say, hot, after the `events=` operators."""
        return self._events

    def add_sink(
        self, name: str, observer: abc.ObserverBase[TodoEvent] | Callable[[TodoEvent], object]
    ) -> abc.DisposableBase:
        """Hand everything the executors say, outcomes included, to a second sink: a chat, a queue, a trace.

        It is guarded by itself: when it raises, that is told as telemetry, and neither the table nor another
        subscriber nor its own next event is touched. It is called in the event loop, before the event is
        stored, and must not block: hand over to a queue what takes time.

        Parameters
        ----------
        name:
            What it is called when it raises; each once.
        observer:
            An observer, or a function of an event.

        Returns
        -------
        Disposing of it takes the sink away.

        Raises
        ------
        ConfigurationError
            There is a sink of this name, or `observer` is a coroutine function.

        Example
        -------
        >>> worker.add_sink("queue", queue.put_nowait)  # doctest: +SKIP
        """
        return self._events.add_sink(name, observer)

    @property
    def started(self) -> Observable[Collection[str]]:
        """Ids of rows claimed here or elsewhere, as `streams.limit_concurrency` takes them; hot."""
        return self._started

    @property
    def finished(self) -> Observable[Collection[str]]:
        """Ids of rows that no longer run here, as `streams.limit_concurrency` takes them; hot."""
        return self._finished

    @property
    def health(self) -> PushHealth:
        """Whether push works: ``connecting``, ``healthy`` or ``deaf``, since when and why."""
        if self._session is None:
            return PushHealth(PushState.CONNECTING, datetime.now(UTC), "not started")
        return self._session.health

    @property
    def health_changes(self) -> Observable[PushHealth]:
        """Each change of `health`, hot: for alarms, and for operators such as `streams.pause_while`."""
        return self._health_changes

    @property
    def running(self) -> list[Todo]:
        """Tasks whose executor is at work now."""
        return [] if self._session is None else self._session.running

    # -- small parts -----------------------------------------------------------------------------------------

    def _tell(self, event: TelemetryEvent) -> None:
        self.telemetry.emit(event)

    @contextlib.contextmanager
    def _signals(self) -> Generator[None]:
        with stop_signals(self._on_signal) if self._handle_signals else contextlib.nullcontext():
            yield

    def _on_signal(self, number: int) -> None:
        self._stop(signal.Signals(number).name)


def _settings(settings: Settings | None, options: WorkerOptions) -> Settings:
    base = settings or Settings.load()
    names = {field.name for field in fields(Settings)}
    unknown = sorted(set(options) - names - set(WorkerOptions.__annotations__))
    if unknown:
        raise ConfigurationError(f"ReactiveWorker got an unknown option: {', '.join(unknown)}")
    given = {
        name: value
        for name, value in cast("dict[str, Any]", options).items()
        if name in names and value is not None
    }
    return replace(base, **given) if given else base
