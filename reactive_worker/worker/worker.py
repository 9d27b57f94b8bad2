"""ReactiveWorker: wires the rooms together, starts, watches over itself, and ends without losing anything."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import uuid
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from a2a.server.agent_execution import AgentExecutor
from reactivex import Observable
from reactivex.subject import Subject

from reactive_worker import streams
from reactive_worker.access.credentials import Credentials
from reactive_worker.access.logs import log_by_default
from reactive_worker.errors import ConfigurationError, SchemaMissingError, WorkerStoppedError
from reactive_worker.models import Candidate, PushHealth, PushState, Todo, TodoEvent
from reactive_worker.settings import Settings
from reactive_worker.store.connection import Connection
from reactive_worker.store.store import SCHEMA_VERSION, TodoStore
from reactive_worker.worker.config import WorkerConfig
from reactive_worker.worker.pipeline import CandidatesHook, EventsHook
from reactive_worker.worker.session import Session

logger = logging.getLogger(__name__)

#: PostgreSQL cannot filter a subscription by more values than this.
MOST_AGENT_TYPES = 100
#: A token that ends within this time is worth a warning at the start.
RENEW_SOON = timedelta(days=7)


class ReactiveWorker:
    """Runs A2A executors on rows of `todolist`, driven by Supabase Realtime.

    Parameters
    ----------
    executor, agent_type:
        One executor and the type of row it runs; or
    executors:
        several, by agent type.
    settings:
        Intervals in seconds, concurrency, URL and key; `Settings.load()` by default.
    url, key:
        Win over the settings.
    per_type:
        Most tasks of a type run at the same time; types not named share `settings.concurrency`.
    candidates:
        Composes your operators over the stream of candidates, before they are deduplicated and claimed.
        Dropping, delaying or reordering loses nothing: a later sweep offers the row again.
    events:
        Composes your operators over what executors say, before it is stored.
    priority_key:
        Sort key of a candidate, smallest first; by default highest priority, then oldest.
    order:
        How candidates are ranked when one key is not enough: `streams.fair_by`.
    context_factory:
        Makes the request context of a task: ``context_factory(todo, task=..., request=..., reason=...)``.
    handle_signals:
        Whether `run` stops on SIGINT and SIGTERM.

    Example
    -------
    >>> worker = ReactiveWorker(EchoExecutor(), agent_type="echo")  # doctest: +SKIP
    >>> asyncio.run(worker.run())  # doctest: +SKIP
    """

    def __init__(
        self,
        executor: AgentExecutor | None = None,
        *,
        agent_type: str | None = None,
        executors: Mapping[str, AgentExecutor] | None = None,
        settings: Settings | None = None,
        url: str | None = None,
        key: str | None = None,
        per_type: Mapping[str, int] | None = None,
        candidates: CandidatesHook | None = None,
        events: EventsHook | None = None,
        priority_key: Callable[[Candidate], Any] | None = None,
        order: streams.Order | None = None,
        context_factory: Callable[..., Any] | None = None,
        handle_signals: bool = True,
        **options: Any,
    ) -> None:
        given = {
            name: value for name, value in {"url": url, "key": key, **options}.items() if value is not None
        }
        base = settings or Settings.load()
        unknown = sorted(set(given) - set(Settings.__dataclass_fields__))
        if unknown:
            raise ConfigurationError(f"ReactiveWorker got an unknown option: {', '.join(unknown)}")
        self.settings = replace(base, **given) if given else base
        chosen = _executors(executor, agent_type or self.settings.agent_type, executors)
        #: This worker's id in the table `workers`; new for each process.
        self.id = str(uuid.uuid4())
        self.name = self.settings.worker_name or f"{socket.gethostname()}-{os.getpid()}"
        self._config = WorkerConfig(
            id=self.id,
            name=self.name,
            settings=self.settings,
            executors=chosen,
            per_type=dict(per_type or {}),
            candidates=candidates,
            events=events,
            priority_key=priority_key,
            order=order,
            context_factory=context_factory,
        )
        self._handle_signals = handle_signals
        self._events: Subject[TodoEvent] = Subject()
        self._started: Subject[Collection[str]] = Subject()
        self._finished: Subject[Collection[str]] = Subject()
        self._health_changes: Subject[PushHealth] = Subject()
        self._ready = asyncio.Event()
        self._stops = 0
        self._session: Session | None = None

    # -- what users look at ----------------------------------------------------------------------------------

    @property
    def events(self) -> Observable[TodoEvent]:
        """Everything the executors say, hot, after the `events=` operators."""
        return self._events

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
        return [] if self._session is None else [held.todo for held in self._session.held.running()]

    async def ready(self) -> None:
        """Wait until the worker is registered and its stream runs."""
        await self._ready.wait()

    def stop(self) -> None:
        """Stop claiming, give running tasks `drain_timeout` to finish, then end. A second call ends now."""
        self._stops += 1
        if self._session is not None:
            self._session.stop()

    async def run(self) -> None:
        """Work until `stop` is called or a signal comes.

        Raises
        ------
        ConfigurationError, SupabaseError
            The worker cannot start: the message says what to do.
        WorkerStoppedError
            A background duty died while it ran.
        """
        log_by_default(self.settings.log_level)
        credentials = self.settings.worker_credentials()
        _announce(credentials)
        with self._signals():
            connection = await Connection.open(self.settings.url, credentials)
            try:
                died = await self._live(TodoStore(connection))
            finally:
                await connection.aclose()
        if died is not None:
            raise WorkerStoppedError(f"the worker stopped because a background duty died: {died}") from died

    async def _live(self, store: TodoStore) -> BaseException | None:
        await _check_schema(store)
        session = self._session = Session(
            self._config, store, self._events.on_next, self._health_changes.on_next
        )
        session.pipeline.backpressure.settled.subscribe(self._started.on_next)
        session.pipeline.backpressure.finished.subscribe(self._finished.on_next)
        # Before anything is swept: what an earlier worker kept must find its rows unclaimed by others.
        await session.prepare()
        await session.deliver_spooled()
        await session.register()
        for _ in range(self._stops):
            session.stop()
        return await session.run(self._ready.set)

    @contextlib.contextmanager
    def _signals(self) -> Generator[None]:
        installed: list[int] = []
        loop = asyncio.get_running_loop()
        if self._handle_signals:
            for number in (signal.SIGINT, signal.SIGTERM):
                # Only the main thread may; a worker in another thread of a program is stopped by stop().
                with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                    loop.add_signal_handler(number, self._on_signal, number)
                    installed.append(number)
        try:
            yield
        finally:
            for number in installed:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._stops:
            logger.warning("%s again: ending now", name)
        else:
            logger.info(
                "%s: no new tasks; %d running get up to %g s to finish",
                name,
                len(self.running),
                self.settings.drain_timeout,
            )
        self.stop()


def _announce(credentials: Credentials) -> None:
    facts = credentials.facts()
    if facts is None or facts.expires_at is None:
        return
    left = facts.expires_at - datetime.now(UTC)
    soon = timedelta(0) < left < RENEW_SOON
    logger.log(
        logging.WARNING if soon else logging.DEBUG,
        "this worker has %s%s",
        facts,
        ": renew it soon, with `reactive-worker token mint`" if soon else "",
    )


async def _check_schema(store: TodoStore) -> None:
    version = await store.schema_version()
    if version < SCHEMA_VERSION:
        raise SchemaMissingError(
            f"the database has schema version {version}, this worker needs {SCHEMA_VERSION}: "
            "apply the new migrations with `supabase db push`"
        )


def _executors(
    executor: AgentExecutor | None, agent_type: str, executors: Mapping[str, AgentExecutor] | None
) -> dict[str, AgentExecutor]:
    chosen = dict(executors or {})
    if executor is not None:
        if not agent_type:
            raise ConfigurationError(
                "which rows shall this worker run? Pass agent_type= (or set DEFAULT_AGENT_TYPE)"
            )
        chosen[agent_type] = executor
    if not chosen:
        raise ConfigurationError(
            "a worker needs an executor: ReactiveWorker(MyExecutor(), agent_type='mine')"
        )
    if len(chosen) > MOST_AGENT_TYPES:
        raise ConfigurationError(
            f"one worker serves at most {MOST_AGENT_TYPES} agent types, not {len(chosen)}"
        )
    for name, value in chosen.items():
        if not name or len(name) > 100:
            raise ConfigurationError(f"an agent type has 1 to 100 characters, not {name!r}")
        if not isinstance(value, AgentExecutor):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise ConfigurationError(
                f"the executor for {name!r} is no a2a AgentExecutor but {type(value).__name__}; "
                "wrap a function in reactive_worker.executors.function.FunctionExecutor"
            )
    return chosen
