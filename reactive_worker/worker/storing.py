"""The sink of one worker: what executors say is stored, and what is held is let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import CompositeDisposable
from reactivex.subject import Subject

from reactive_worker import streams
from reactive_worker.errors import ConfigurationError
from reactive_worker.models import TodoEvent
from reactive_worker.store.heartbeat import RunKey
from reactive_worker.store.translate import is_retryable
from reactive_worker.worker.delivery import Delivery, event_size
from reactive_worker.worker.held import Held
from reactive_worker.worker.observe import observe
from reactive_worker.worker.telemetry import (
    EventUnstorable,
    OutageBegan,
    OutageEnded,
    SinkFull,
    SinkRoomy,
    TaskUnendable,
    Telemetry,
    described,
)


class Storing:
    """Stores a stream of events until it is flushed.

    Parameters
    ----------
    held:
        What is let go once its end is stored; its rows say how events are numbered.
    delivery:
        Makes calls of the store from batches.
    telemetry:
        Told of outages, of what cannot be stored, and of pressure.

    Attributes
    ----------
    retried:
        A run that is to be tried again is stored: when it is due, the next sweep finds out. Hot.
    lost:
        Runs the database refused, because they are another worker's now. Hot.
    source_ended:
        Done when the stream of events itself has ended; with its error, if it failed.
    """

    def __init__(self, held: Held, delivery: Delivery, telemetry: Telemetry) -> None:
        self._held = held
        self._delivery = delivery
        self._telemetry = telemetry
        self.retried: Subject[None] = Subject()
        self.lost: Subject[Collection[RunKey]] = Subject()
        loop = asyncio.get_running_loop()
        self.source_ended: asyncio.Future[None] = loop.create_future()
        self._flushed: asyncio.Future[None] = loop.create_future()
        # What is stored; apart from the source, so that what waits is stored even when the source has failed.
        self._outgoing: Subject[TodoEvent] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._tries = 0

    def store(self, source: Observable[TodoEvent]) -> Observable[streams.StoredBatch]:
        """Number, batch and store events: the operator at the end of a worker's stream.

        Raises
        ------
        ConfigurationError
            At the second subscription: a session stores one stream, or two would number the same task.
        """

        def subscribe(
            observer: abc.ObserverBase[streams.StoredBatch], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            if self._outgoing is not None:
                raise ConfigurationError("a session stores one stream: merge yours before session.store")
            outgoing: Subject[TodoEvent] = Subject()
            self._outgoing = outgoing
            stored = outgoing.pipe(self._sink(), ops.do_action(self._stored, on_completed=self._all_stored))
            storing = stored.subscribe(observer, scheduler=scheduler)
            saying = source.subscribe(outgoing.on_next, self._failed, self._completed, scheduler=scheduler)
            return CompositeDisposable(saying, storing)

        return Observable(subscribe)

    async def wait_for_room(self) -> None:
        """Wait while more events wait than the sink's capacity: whoever makes events waits here."""
        await self._room.wait()

    async def flush(self, timeout: float) -> bool:
        """End the stream of events and wait until everything said is stored.

        Parameters
        ----------
        timeout:
            Seconds.

        Returns
        -------
        False when the time went by.
        """
        if self._outgoing is None:
            return True
        self._outgoing.on_completed()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._flushed)
        except TimeoutError:
            return False
        return True

    def dispose(self) -> None:
        """Nobody waits for anything here any more."""
        for future in (self.source_ended, self._flushed):
            if future.done() and not future.cancelled():
                future.exception()
            future.cancel()

    def _sink(self) -> Callable[[Observable[TodoEvent]], Observable[streams.StoredBatch]]:
        return streams.sink(
            lambda batch: observe(lambda: self._delivery.store_batch(batch)),
            first_seq=self._first_seq,
            retryable=is_retryable,
            on_lost=self.lost.on_next,
            on_error=self._unstorable,
            on_pressure=self._pressure,
            on_retry=self._not_stored,
            size=event_size,
        )

    def _first_seq(self, event: TodoEvent) -> int:
        held = self._held.get(event.todolist_id, event.attempt)
        # Lost meanwhile: the number does not matter, the fence refuses the event.
        return 1 if held is None else held.todo.seq + 1

    def _stored(self, batch: streams.StoredBatch) -> None:
        if self._tries:
            self._telemetry.emit(OutageEnded(self._tries))
            self._tries = 0
        for event in batch.events:
            if event.outcome is not None:
                self._held.drop(event.todolist_id, event.attempt)
                if event.outcome.kind == "retry":
                    self.retried.on_next(None)

    def _not_stored(self, error: Exception, tries: int, pause: float) -> None:
        # One event when an outage begins; its repetitions say nothing new.
        if tries == 1:
            self._telemetry.emit(OutageBegan(str(error), pause))
        self._tries = tries

    def _unstorable(self, event: TodoEvent, error: Exception) -> TodoEvent | None:
        self._telemetry.emit(EventUnstorable(event.todolist_id, event.event_type, described(error)))
        # Progress is dropped; an end is replaced, for a task without one would hang.
        if event.outcome is None:
            return None
        if Delivery.is_unstorable(event):
            # Not even that it failed: not ours any more. The database names it as a stray, and it goes back.
            self._telemetry.emit(TaskUnendable(event.todolist_id, event.attempt))
            self._held.drop(event.todolist_id, event.attempt)
            return None
        return Delivery.unstorable(event, error)

    def _pressure(self, full: bool) -> None:
        self._telemetry.emit(SinkFull() if full else SinkRoomy())
        if full:
            self._room.clear()
        else:
            self._room.set()

    def _failed(self, error: Exception) -> None:
        if not self.source_ended.done():
            self.source_ended.set_exception(error)

    def _completed(self) -> None:
        if not self.source_ended.done():
            self.source_ended.set_result(None)

    def _all_stored(self) -> None:
        if not self._flushed.done():
            self._flushed.set_result(None)
