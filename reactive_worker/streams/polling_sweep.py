"""The sweep behind the push: asks the database for candidates, often while push is in doubt, rarely else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import random as _random
from typing import Any

import reactivex
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import CompositeDisposable, Disposable, SerialDisposable, SingleAssignmentDisposable

from reactive_worker.backoff import Backoff, RandomSource, spread
from reactive_worker.models import Candidate, SweepResult
from reactive_worker.streams._scheduling import choose_scheduler
from reactive_worker.streams.backpressure import Backpressure

# A failing sweep is tried again sooner than the interval says (a dropped connection is over in a second),
# then ever more slowly (a database that is down is not helped by a fleet asking).
_FIRST_RETRY = 1.0
_LAST_RETRY = 30.0

# When a known row falls due, every idle worker's timer goes off: within this many seconds after it.
_DUE_SPREAD = 0.1


def polling_sweep(
    sweep: Callable[[], Observable[SweepResult]],
    *,
    polling_interval: float = 5.0,
    sweep_interval: float = 30.0,
    healthy: Observable[bool] | None = None,
    kicks: Observable[Any] | None = None,
    backpressure: Backpressure | None = None,
    on_error: Callable[[Exception], None],
    on_result: Callable[[SweepResult], None] | None = None,
    jitter: float = 0.1,
    random: RandomSource = _random,
    scheduler: abc.SchedulerBase | None = None,
) -> Observable[Candidate]:
    """Sweep at once, then whenever there is a reason to.

    ::

        healthy   F-----------T-------------------F--------
        kicks     ------k----------------------------------
        sweeps    s--s--s--s--s-----------s-------s--s--s--
        result    ab-a--ac-c--c-----------d-------d--------

    Reasons: the subscription itself; each kick; each change of health; the next row falling due
    (`SweepResult.next_due_at`); `polling_interval` after the last sweep while push is not proven healthy,
    `sweep_interval` while it is. One sweep runs at a time; reasons that come up while it does are good for
    one more afterwards, however many they are.

    Parameters
    ----------
    sweep:
        Asks the database; called for each sweep. Its observable should bring one result.
    polling_interval:
        Seconds between sweeps while push is not proven healthy.
    sweep_interval:
        Seconds between sweeps while it is.
    healthy:
        Whether push is proven healthy. Not, until it says so; and not any more when it errors.
    kicks:
        Each item asks for a sweep now; the items' values do not matter.
    backpressure:
        The other side of the pipeline: its `wanted` asks for a sweep, too, and `swept` is said here, before
        the candidates of a sweep are emitted.
    on_error:
        Told why a sweep failed (or `healthy`, or `kicks`); the next try comes after 1, 2, 4 ... 30 s.
    on_result:
        Given each result before its candidates are emitted.
    jitter:
        Fraction by which each interval is moved at random, either way.
    random:
        Source of numbers in [0, 1).
    scheduler:
        Runs the timer; default the subscription's.

    Returns
    -------
    The candidates of every sweep in the database's order. It never completes and never errors.

    Raises
    ------
    ValueError
        When an interval is not above 0 or `jitter` is not in [0, 1).

    Example
    -------
    >>> from datetime import UTC, datetime
    >>> empty = SweepResult((), next_due_at=None, reclaimed=0, now=datetime.now(UTC))
    >>> told = lambda result: print("swept")
    >>> candidates = polling_sweep(lambda: reactivex.just(empty), on_error=print, on_result=told)
    >>> candidates.subscribe().dispose()
    swept
    """
    if polling_interval <= 0:
        raise ValueError(f"polling_interval must be above 0 seconds, not {polling_interval!r}")
    if sweep_interval <= 0:
        raise ValueError(f"sweep_interval must be above 0 seconds, not {sweep_interval!r}")
    if not 0 <= jitter < 1:
        raise ValueError(f"jitter must be in [0, 1), not {jitter!r}")
    options = _Options(
        sweep, polling_interval, sweep_interval, backpressure, on_error, on_result, jitter, random
    )

    def subscribe(
        observer: abc.ObserverBase[Candidate], scheduler_: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        sweeper = _Sweeper(
            options, observer, choose_scheduler(scheduler, scheduler_), scheduler or scheduler_
        )
        return sweeper.run(healthy or reactivex.never(), kicks or reactivex.never())

    return Observable(subscribe)


@dataclass(frozen=True, slots=True)
class _Options:
    sweep: Callable[[], Observable[SweepResult]]
    polling_interval: float
    sweep_interval: float
    backpressure: Backpressure | None
    on_error: Callable[[Exception], None]
    on_result: Callable[[SweepResult], None] | None
    jitter: float
    random: RandomSource

    def spread(self, seconds: float) -> float:
        return spread(seconds, self.jitter, self.random)


class _Sweeper:
    """One subscription: is a sweep running, is another one wanted, when is the next one due."""

    def __init__(
        self,
        options: _Options,
        observer: abc.ObserverBase[Candidate],
        clock: abc.SchedulerBase,
        upstream: abc.SchedulerBase | None,
    ) -> None:
        self._options = options
        self._observer = observer
        self._clock = clock
        self._upstream = upstream
        first = min(_FIRST_RETRY, options.polling_interval)
        self._backoff = Backoff(first, _LAST_RETRY, jitter=options.jitter, random=options.random)
        self._timer = SerialDisposable()
        self._running = SerialDisposable()
        self._busy = False
        self._again = False
        self._pumping = False
        self._healthy = False
        self._failures = 0
        self._due_in: float | None = None
        self._disposed = False

    def run(self, healthy: Observable[bool], kicks: Observable[Any]) -> abc.DisposableBase:
        group = CompositeDisposable(Disposable(self._dispose), self._timer, self._running)
        tell = self._options.on_error
        # The first value of a BehaviorSubject is known before the first sweep, so it is no change of health.
        self._pumping = True
        group.add(healthy.subscribe(self._health, self._health_failed, scheduler=self._upstream))
        group.add(kicks.subscribe(self._kick, tell, scheduler=self._upstream))
        if self._options.backpressure is not None:
            group.add(self._options.backpressure.wanted.subscribe(self._kick, tell, scheduler=self._upstream))
        self._pumping = False
        self._kick()
        return group

    def _health(self, healthy: bool) -> None:
        if healthy != self._healthy:
            self._healthy = healthy
            # Deaf now: what came in since the last sweep may have gone unheard. Hearing again: so may what
            # came in while nobody listened.
            self._kick()

    def _health_failed(self, error: Exception) -> None:
        self._options.on_error(error)
        self._health(False)

    def _kick(self, _: object = None) -> None:
        self._again = True
        self._pump()

    def _pump(self) -> None:
        # A loop and not recursion: sweeps may answer at once, and their candidates may kick.
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._again and not self._busy and not self._disposed:
                self._again = False
                self._sweep()
        finally:
            self._pumping = False

    def _sweep(self) -> None:
        self._busy = True
        self._due_in = None
        self._timer.disposable = SingleAssignmentDisposable()
        subscription = SingleAssignmentDisposable()
        self._running.disposable = subscription
        try:
            stream = self._options.sweep()
        except Exception as error:  # noqa: BLE001 - a sweep that cannot even start is a failing sweep
            self._failed(error)
            return
        subscription.disposable = stream.pipe(ops.take(1)).subscribe(
            self._result, self._failed, self._completed, scheduler=self._upstream
        )

    def _result(self, result: SweepResult) -> None:
        self._failures = 0
        if result.next_due_at is not None:
            # Both times are the database's, so the difference needs no common clock.
            due_in = (result.next_due_at - result.now).total_seconds()
            # One that is due already was left out by the limit: whoever runs low kicks.
            self._due_in = due_in if due_in > 0 else None
        if self._options.on_result is not None:
            self._options.on_result(result)
        if self._options.backpressure is not None:
            self._options.backpressure.swept.on_next(result)
        for candidate in result.candidates:
            self._observer.on_next(candidate)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._options.on_error(error)
        self._ended(self._backoff.delay(self._failures))

    def _completed(self) -> None:
        interval = self._options.sweep_interval if self._healthy else self._options.polling_interval
        delay = self._options.spread(interval)
        if self._due_in is not None:
            delay = min(delay, self._due_in + _DUE_SPREAD * self._options.random())
        self._ended(delay)

    def _ended(self, delay: float) -> None:
        self._busy = False
        self._timer.disposable = self._clock.schedule_relative(delay, self._timer_fired)
        self._pump()

    def _dispose(self) -> None:
        self._disposed = True

    def _timer_fired(self, _: abc.SchedulerBase, __: object = None) -> None:
        self._kick()
