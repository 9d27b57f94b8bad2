"""Candidates of the future wait here until their time has come."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from datetime import datetime, timedelta

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, SerialDisposable

from reactive_worker.models import Candidate
from reactive_worker.streams._scheduling import choose_scheduler, ticks

# A timer for next month would be wrong by every step of the wall clock until then (and `infinity` is a legal
# available_at): look again at least this often.
_LONGEST_TIMER = 3600.0

#: (minus due time in seconds, number, candidate): ascending order puts the earliest due last.
_Held = tuple[float, int, Candidate]


def hold_until_due(
    now: Callable[[], datetime] | None = None,
    capacity: int = 10_000,
    *,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Candidate]], Observable[Candidate]]:
    """Hold candidates whose `available_at` lies ahead, and let them go when they are due.

    ::

        source      --a--b(due at t)----c----------|
        result      --a-----------------c--b-------|
                                           t

    Parameters
    ----------
    now:
        The database's time, by which `available_at` was set; default the scheduler's, as it was at
        subscription and has gone on since: a clock that is set later makes nothing due.
    capacity:
        How many candidates are held at most. Beyond it those due last are dropped: a sweep finds them again.
    scheduler:
        Runs the timer (one, for the earliest); default the subscription's.

    Returns
    -------
    An operator. The same row offered again replaces what is held of it. When the source completes, the held
    ones are still waited for; when it errors, they are dropped.

    Raises
    ------
    ValueError
        When `capacity` is below 1.

    Example
    -------
    >>> from datetime import UTC, datetime
    >>> from reactivex.subject import Subject
    >>> due = datetime(2030, 1, 1, tzinfo=UTC)
    >>> ready = Candidate("1", "digest", 0, 0, available_at=due, created_at=due)
    >>> offered = Subject()
    >>> _ = offered.pipe(hold_until_due(lambda: due)).subscribe(lambda c: print(c.id))
    >>> offered.on_next(ready)
    1
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, not {capacity!r}")

    def operator(source: Observable[Candidate]) -> Observable[Candidate]:
        def subscribe(
            observer: abc.ObserverBase[Candidate], scheduler_: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            clock = choose_scheduler(scheduler, scheduler_)
            read = now or _going_on(clock)
            held: list[_Held] = []
            by_id: dict[str, _Held] = {}
            timer = SerialDisposable()
            number = 0
            source_done = False

            def discard(entry: _Held) -> None:
                del by_id[entry[2].id]
                # The first two fields are unique, so the search never compares candidates.
                del held[bisect_left(held, entry[:2], key=lambda each: each[:2])]

            def arm() -> None:
                if not held:
                    if source_done:
                        observer.on_completed()
                    return
                delay = -held[-1][0] - read().timestamp()
                timer.disposable = clock.schedule_relative(min(max(delay, 0.0), _LONGEST_TIMER), release)

            def release(_: abc.SchedulerBase, __: object = None) -> None:
                moment = read().timestamp()
                # Re-entrant offers may change the list meanwhile: look at it afresh each time.
                while held and -held[-1][0] <= moment:
                    candidate = held.pop()[2]
                    del by_id[candidate.id]
                    observer.on_next(candidate)
                arm()

            def on_next(candidate: Candidate) -> None:
                nonlocal number
                known = by_id.get(candidate.id)
                if known is not None:
                    if candidate.attempt < known[2].attempt:
                        return
                    discard(known)
                due = candidate.available_at.timestamp()
                if due <= read().timestamp():
                    observer.on_next(candidate)
                    return
                number += 1
                entry: _Held = (-due, number, candidate)
                by_id[candidate.id] = entry
                insort(held, entry, key=lambda each: each[:2])
                if len(held) > capacity:
                    discard(held[0])
                if held and held[-1] is entry:
                    arm()

            def on_completed() -> None:
                nonlocal source_done
                source_done = True
                if not held:
                    observer.on_completed()

            subscription = source.subscribe(
                on_next, observer.on_error, on_completed, scheduler=scheduler or scheduler_
            )
            return CompositeDisposable(subscription, timer)

        return Observable(subscribe)

    return operator


def _going_on(clock: abc.SchedulerBase) -> Callable[[], datetime]:
    """A scheduler's time, from now on at its own pace."""
    begin, tick = clock.now, ticks(clock)
    began = tick()
    return lambda: begin + timedelta(seconds=tick() - began)
