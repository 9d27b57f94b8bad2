"""The same row from push and sweep is one candidate."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable

from reactive_worker.models import Candidate
from reactive_worker.streams._scheduling import choose_scheduler, ticks

#: `Candidate.key`: id and attempt.
CandidateKey = tuple[str, int]


def dedupe(
    *,
    ttl: float = 60.0,
    capacity: int = 10_000,
    forget: Observable[Iterable[CandidateKey | str]] | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Candidate]], Observable[Candidate]]:
    """Let each attempt of a row through once, as far as memory goes.

    ::

        source   --a--b--a--a'--b--------a----a--|     a' is a with the next attempt
        forget   ----------------------a---------
        result   --a--b-----a'-----------a-------|

    A row is the same when nothing about it changed but who told it; a new attempt, another priority or
    another due time pass, and an older attempt does not. RxPY's ``distinct`` remembers every key for ever;
    this one forgets, because a candidate is only a hint and a second look at one is cheap, while a row hidden
    for ever would be lost.

    Parameters
    ----------
    ttl:
        Seconds for which a row stays hidden after it was let through; repeats do not prolong it.
    capacity:
        How many rows are remembered; beyond it those not seen for longest go first.
    forget:
        Rows, by id or by key, to let through again before their time: those `prioritise` drops, and those
        that are gone and may come back as they were (cancelled, then retried). Its errors are the stream's.
    scheduler:
        Its clock measures `ttl`; default the subscription's.

    Returns
    -------
    An operator; each subscription has a memory of its own.

    Raises
    ------
    ValueError
        When `ttl` is not above 0 or `capacity` below 1.

    Example
    -------
    >>> from datetime import UTC, datetime
    >>> from reactivex.subject import Subject
    >>> row = Candidate("1", "digest", 0, 0, *[datetime.now(UTC)] * 2)
    >>> offered = Subject()
    >>> _ = offered.pipe(dedupe()).subscribe(lambda c: print(c.id))
    >>> offered.on_next(row); offered.on_next(row)
    1
    """
    if ttl <= 0:
        raise ValueError(f"ttl must be above 0 seconds, not {ttl!r}")
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, not {capacity!r}")

    def operator(source: Observable[Candidate]) -> Observable[Candidate]:
        def subscribe(
            observer: abc.ObserverBase[Candidate], scheduler_: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            now = ticks(choose_scheduler(scheduler, scheduler_))
            # id -> (when it passed, what passed)
            passed: OrderedDict[str, tuple[float, Candidate]] = OrderedDict()

            def on_next(candidate: Candidate) -> None:
                moment = now()
                known = passed.get(candidate.id)
                if known is not None:
                    since, before = known
                    passed.move_to_end(candidate.id)
                    hidden = moment - since < ttl
                    if hidden and (candidate == before or candidate.attempt < before.attempt):
                        return
                passed[candidate.id] = (moment, candidate)
                if len(passed) > capacity:
                    passed.popitem(last=False)
                observer.on_next(candidate)

            def on_forget(keys: Iterable[CandidateKey | str]) -> None:
                for key in keys:
                    passed.pop(key if isinstance(key, str) else key[0], None)

            group = CompositeDisposable()
            upstream = scheduler or scheduler_
            if forget is not None:
                group.add(forget.subscribe(on_forget, observer.on_error, scheduler=upstream))
            group.add(source.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=upstream))
            return group

        return Observable(subscribe)

    return operator
