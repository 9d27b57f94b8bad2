"""One life of a worker, from its registration to its leaving: the duties and the held tasks."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Collection, Sequence
from typing import Any

from reactive_worker import streams
from reactive_worker.artifacts.offload import EVENT_LIMIT, OUTPUT_LIMIT, Artifacts
from reactive_worker.artifacts.signer import FileSigner
from reactive_worker.backoff import Backoff
from reactive_worker.errors import ReactiveWorkerError, WorkerExpiredError
from reactive_worker.execution.context import TodoRequestContext
from reactive_worker.execution.runner import Runner, to_observable
from reactive_worker.execution.turn import Limits
from reactive_worker.models import (
    Candidate,
    ClaimResult,
    PushHealth,
    PushState,
    SweepResult,
    TodoEvent,
)
from reactive_worker.store.heartbeat import HeartbeatAnswer, LeaseKeeper
from reactive_worker.store.objects import ObjectStore
from reactive_worker.store.push.channel import PushChannel
from reactive_worker.store.store import TodoStore
from reactive_worker.store.translate import is_retryable
from reactive_worker.worker.claiming import PAUSES, Visibility
from reactive_worker.worker.config import WorkerConfig
from reactive_worker.worker.delivery import Delivery
from reactive_worker.worker.held import Held
from reactive_worker.worker.lease import NextDeath, Signals, Strays
from reactive_worker.worker.pipeline import SWEEP_LIMIT, Clock, Pipeline
from reactive_worker.worker.shutdown import Shutdown
from reactive_worker.worker.spool import Spool
from reactive_worker.worker.steering import SteeringFeed

logger = logging.getLogger(__name__)

#: Pace of registering again after an outage.
REGISTER_BACKOFF = Backoff(0.2, 10.0)


class Session:
    """Runs one registered worker.

    Parameters
    ----------
    config:
        What to run and how.
    store:
        Where rows and events are.
    on_event:
        Called with everything the executors say, after the user's operators.
    on_health:
        Called with each change of the state of push.
    """

    def __init__(
        self,
        config: WorkerConfig,
        store: TodoStore,
        on_event: Callable[[TodoEvent], None],
        on_health: Callable[[PushHealth], None],
    ) -> None:
        self.config = config
        self.held = Held()
        self._store = store
        self._on_event = on_event
        self._on_health = on_health
        settings = config.settings
        self._objects = ObjectStore(store.connection)
        self._artifacts = (
            Artifacts(
                self._objects,
                settings.artifacts_bucket,
                limit=settings.artifact_limit,
                url_life=settings.artifact_url_life,
            )
            if settings.artifacts_bucket
            else None
        )
        spool = Spool(settings.spool) if settings.spool else None
        self._delivery = Delivery(store, config.id, spool, self._artifacts)
        self._clock = Clock()
        self._stopping = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._claims = 0
        self._visibility = Visibility()
        self._registering: asyncio.Task[None] | None = None
        self._runner = self._make_runner()
        self._steering = SteeringFeed(store, config.id, self._runner.find)
        self.pipeline = self._make_pipeline()
        self._signals = Signals(lambda: self._lease.beat_now())
        self._next_death = NextDeath(lambda: self.pipeline.kicks.on_next(None))
        self._strays = Strays(store, config.id, lambda id, attempt: self.held.get(id, attempt) is not None)
        self._shutdown = Shutdown(
            settings,
            self.pipeline,
            self._runner,
            self.held,
            self._delivery,
            self._strays,
            # A claim under way may still bring rows: its answer must find somebody to run or return them.
            is_idle=lambda: not self.held and not self._claims,
        )
        self._push = self._make_push()
        self._lease = self._make_lease()

    @property
    def health(self) -> PushHealth:
        """Whether push works."""
        return self._push.health

    @property
    def stopping(self) -> bool:
        """True once `stop` was called."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Stop claiming and drain; a second call ends now."""
        if self._stopping.is_set():
            self._shutdown.hurry()
        self._stopping.set()

    async def prepare(self) -> None:
        """Make the bucket for large results, if there is to be one; raises what the store raises."""
        if self._artifacts is not None:
            await self._artifacts.prepare()

    async def deliver_spooled(self) -> None:
        """Deliver what an earlier worker could not; raises UnreachableError."""
        await self._delivery.deliver_spooled()

    async def register(self) -> None:
        """Make this worker known; raises what the store raises."""
        config = self.config
        answer = await self._store.register(
            config.id,
            name=config.name,
            agent_types=sorted(config.executors),
            concurrency=config.settings.concurrency,
            lease=config.settings.lease,
            info=self._info(),
        )
        types = ", ".join(sorted(config.executors))
        logger.info("worker %s is registered for %s at %s", config.name, types, config.settings.url)
        self._obey(str(answer.get("desired_state") or "running"))

    async def run(self, on_ready: Callable[[], None]) -> BaseException | None:
        """Work until stopped; returns the exception of a duty that died, if one did."""
        await self._push.start()
        self._lease.start()
        self.pipeline.start()
        on_ready()
        try:
            return await self._watch()
        finally:
            try:
                await self._shutdown.run()
            finally:
                await self._push.stop()
                await self._lease.stop()
                self.pipeline.dispose()
                await self._leave()

    # -- parts -----------------------------------------------------------------------------------------------

    def _make_runner(self) -> Runner:
        settings = self.config.settings
        return Runner(
            lambda agent_type: self.config.executors[agent_type],
            default_timeout=settings.default_timeout or None,
            cancel_grace=settings.cancel_grace,
            load_events=self._store.all_events,
            context_factory=self.config.context_factory or TodoRequestContext,
            gate=self._wait_for_room,
            sign=FileSigner(self._objects, settings.artifacts_bucket, url_life=settings.artifact_url_life),
            # What leaves the row may be larger than what stays.
            limits=Limits(EVENT_LIMIT, OUTPUT_LIMIT) if self._artifacts is not None else None,
        )

    def _make_pipeline(self) -> Pipeline:
        config, settings = self.config, self.config.settings
        types = sorted(config.executors)
        # A fair order can only be as fair as what a sweep shows it.
        fair_by = config.order.sweep_by if isinstance(config.order, streams.FairOrder) else None
        pipeline = Pipeline(
            agent_types=types,
            sweep=lambda wanted: self._store.sweep(config.id, wanted, SWEEP_LIMIT, fair_by),
            claim=self._claim,
            run=lambda todo: to_observable(self._runner, todo),
            store=self._delivery.store_batch,
            first_seq=self._first_seq,
            is_retryable=is_retryable,
            clock=self._clock,
            polling_interval=settings.polling_interval,
            sweep_interval=settings.sweep_interval,
            concurrency=settings.concurrency,
            per_type=config.per_type,
            candidates=config.candidates,
            events=config.events,
            key=config.priority_key,
            order=config.order,
            on_swept=self._swept,
            on_stored=self._stored,
            on_lost=self._lost,
            on_unstorable=self._unstorable,
            on_pressure=self._pressure,
        )
        pipeline.events.subscribe(on_next=self._noted)
        return pipeline

    def _make_push(self) -> PushChannel:
        config, settings, pipeline = self.config, self.config.settings, self.pipeline
        return PushChannel(
            settings.url,
            self._store.connection.credentials,
            config.id,
            sorted(config.executors),
            mode=settings.push,
            sent=self._store.push_ways,
            touch=lambda: self._store.touch_probe(config.id),
            probe_interval=settings.probe_interval,
            on_row=pipeline.records.on_next,
            on_time=self._clock.at_least,
            on_signal=self._signals.heard,
            on_ready=lambda: pipeline.kicks.on_next(None),
            on_health=self._health_changed,
        )

    def _make_lease(self) -> LeaseKeeper:
        settings = self.config.settings
        return LeaseKeeper(
            settings.url,
            self._store.connection.credentials,
            self.config.id,
            lease=settings.lease,
            heartbeat=settings.heartbeat_interval,
            stall_limit=settings.stall_limit,
            in_flight=self.held.in_flight,
            on_answer=self._heard,
            info=self._info,
        )

    def _health_changed(self, health: PushHealth) -> None:
        self.pipeline.healthy.on_next(health.state is PushState.HEALTHY)
        # `workers list` shall not go on saying what was true until now.
        self._lease.beat_now()
        try:
            self._on_health(health)
        except Exception:
            logger.exception("a subscriber of worker.health_changes raised")

    def _info(self) -> dict[str, Any]:
        health = self.health
        return {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "running": len(self.held),
            "push": health.state.value,
            "push_mode": health.mode,
            "push_since": health.since.isoformat(),
            "push_detail": health.detail,
        }

    async def _watch(self) -> BaseException | None:
        """Wait for `stop`, or for a duty to die; a dead duty must never look like a healthy worker."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        duties = [self.pipeline.failed, *self._push.duties]
        try:
            while True:
                await asyncio.wait([stopping, *duties], timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    return None
                if not self._lease.is_alive:
                    return self._lease.error or RuntimeError("the heartbeat thread ended")
                for duty in duties:
                    if duty.done():
                        return duty.exception() or RuntimeError("a background duty ended")
        finally:
            stopping.cancel()

    # -- tasks -----------------------------------------------------------------------------------------------

    async def _claim(self, offered: Sequence[Candidate], want: int) -> ClaimResult:
        self._claims += 1
        try:
            result = await self._claim_what_is_seen(offered, want)
            for todo in result.claimed:
                self.held.hold(todo)
            # What was said to a run that was lost is for the next one.
            self._steering.fetch([(todo.id, todo.attempt) for todo in result.claimed if todo.attempt > 1])
        except WorkerExpiredError:
            # After an outage every lease has run out; a heartbeat renews ours if nobody has swept yet.
            self._lease.beat_now()
            raise
        finally:
            self._claims -= 1
            self._shutdown.look()
        while self._store.unreadable:
            row, error = self._store.unreadable.pop()
            logger.error("a claimed row cannot be read and is failed (id %r): %s", row.get("id"), error)
            try:
                await self._delivery.refuse(row, error)
            except ReactiveWorkerError as problem:
                # Those that came with it must run all the same. This one is a stray from now on: it is handed
                # back, and comes again.
                logger.warning("it could not be failed now: %s", problem)
        return result

    async def _claim_what_is_seen(self, offered: Sequence[Candidate], want: int) -> ClaimResult:
        ids = [candidate.id for candidate in offered]
        pauses = list(PAUSES)
        while True:
            answer = await self._store.claim(self.config.id, ids, want)
            result = self._visibility.judge(offered, answer)
            if result.claimed or result.gone == answer.gone or not pauses:
                return result
            # Nothing to run, and a hint that overtook its row: a moment later it is there.
            await asyncio.sleep(pauses.pop(0))

    def _first_seq(self, event: TodoEvent) -> int:
        holding = self.held.get(event.todolist_id, event.attempt)
        # Lost meanwhile: the number does not matter, the fence refuses the event.
        return 1 if holding is None else holding.todo.seq + 1

    def _swept(self, result: SweepResult) -> None:
        if result.reclaimed:
            logger.warning("%d task(s) of dead workers were put back", result.reclaimed)
        self._push.compare(result)

    def _noted(self, event: TodoEvent) -> None:
        if event.outcome is not None:
            holding = self.held.get(event.todolist_id, event.attempt)
            if holding is not None:
                holding.ended = True
        self._on_event(event)

    def _stored(self, batch: streams.StoredBatch) -> None:
        for event in batch.events:
            if event.outcome is not None:
                self.held.drop(event.todolist_id, event.attempt)
                if event.outcome.kind == "retry":
                    # The row is due again soon: the sweep finds out when.
                    self.pipeline.kicks.on_next(None)
        self._shutdown.look()

    def _lost(self, runs: Collection[tuple[str, int]]) -> None:
        # By id and attempt: what a late batch of attempt 1 says is not about attempt 2, which is well.
        self._stop_lost(runs)
        for id, attempt in runs:
            self.held.drop(id, attempt)
        self._shutdown.look()

    def _stop_lost(self, runs: Collection[tuple[str, int]]) -> None:
        for todo in self.held.lose(runs):
            run = self._runner.find(todo.id, todo.attempt)
            if run is not None:
                run.lose()
            logger.warning("task %s is no longer this worker's (attempt %d): stopped", todo.id, todo.attempt)

    def _unstorable(self, event: TodoEvent, error: Exception) -> TodoEvent | None:
        logger.error("an event of task %s cannot be stored: %s", event.todolist_id, error)
        # Progress is dropped; an end is replaced, for a task without one would hang.
        if event.outcome is None:
            return None
        if Delivery.is_unstorable(event):
            # Not even that it failed: not ours any more. The database names it as a stray, and it goes back.
            logger.error(
                "task %s cannot be ended here (attempt %d): it goes back", event.todolist_id, event.attempt
            )
            self.held.drop(event.todolist_id, event.attempt)
            self._shutdown.look()
            return None
        return Delivery.unstorable(event, error)

    def _pressure(self, full: bool) -> None:
        if full:
            logger.warning("events are not being stored fast enough: executors wait")
            self._room.clear()
        else:
            self._room.set()

    async def _wait_for_room(self) -> None:
        await self._room.wait()

    # -- the lease -------------------------------------------------------------------------------------------

    def _heard(self, answer: HeartbeatAnswer) -> None:
        if not answer.known:
            self._register_again("this worker's lease had run out")
            return
        self._signals.answered(answer)
        for id in answer.cancel:
            run = self._runner.find(id)
            if run is not None:
                run.cancel("cancelled by request")
        held = [self.held.get(id) for id in answer.steer]
        self._steering.fetch([(each.todo.id, each.todo.attempt) for each in held if each is not None])
        # Ended runs are left alone: their end was stored after the heartbeat was sampled.
        self._stop_lost([(id, each.todo.attempt) for id in answer.lost if (each := self.held.get(id))])
        self._shutdown.look()
        # A claim under way may be about to tell us of them; what went to the spool is not ours to give away.
        if not self._claims and not self._delivery.has_given_up:
            self._strays.answered(answer.stray)
        self._next_death.answered(answer)
        self._obey(answer.desired_state)

    def _register_again(self, why: str) -> None:
        if self._registering is not None and not self._registering.done():
            return
        runs = self.held.in_flight()
        logger.warning("%s: %d task(s) went to other workers; registering again", why, len(runs))
        self._lost(runs)
        self._registering = asyncio.create_task(self._register_until_known())

    async def _register_until_known(self) -> None:
        tries = 0
        while True:
            try:
                await self.register()
            except ReactiveWorkerError as error:
                logger.warning("cannot register: %s", error)
                tries += 1
                await asyncio.sleep(REGISTER_BACKOFF.delay(tries))
            else:
                return

    def _obey(self, desired_state: str) -> None:
        if self._stopping.is_set():
            return
        if desired_state == "draining":
            logger.info("asked to drain: stopping")
            self.stop()
        elif (paused := desired_state == "paused") != self.pipeline.backpressure.paused.value:
            logger.info("paused" if paused else "resumed")
            self.pipeline.backpressure.paused.on_next(paused)

    # -- the end ---------------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        self._steering.stop()
        self._next_death.stop()
        self._strays.stop()
        if self._registering is not None:
            self._registering.cancel()
        if self._delivery.has_given_up:
            # Unregistering hands back what this worker holds, finished tasks in the spool included.
            logger.warning("not unregistering: ended tasks wait in %s", self.config.settings.spool)
            return
        try:
            async with asyncio.timeout(5):
                await self._store.unregister(self.config.id)
        except (ReactiveWorkerError, TimeoutError) as error:
            logger.warning("could not unregister, the lease will run out instead: %s", error)
        else:
            logger.info("worker %s has left", self.config.name)
