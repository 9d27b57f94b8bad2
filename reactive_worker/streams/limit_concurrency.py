"""At most so many tasks of a key under way; the others do not even become candidates."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Hashable

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, SerialDisposable

from reactive_worker.models import Candidate
from reactive_worker.streams._scheduling import choose_scheduler, ticks
from reactive_worker.streams._shelves import Shelves


def limit_concurrency(
    key: Callable[[Candidate], Hashable],
    n: int,
    *,
    finished: Observable[Collection[str]],
    started: Observable[Collection[str]] | None = None,
    patience: float = 60.0,
    capacity: int = 10_000,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Candidate]], Observable[Candidate]]:
    """Let at most `n` candidates of a key be on their way or running at any time; hold the others.

    ::

        source    --a1--a2--b1-----a3------------------|      n=1, key: the letter
        finished  --------------a1----------a2----------
        result    --a1------b1--a2----------a3----------|

    Use it for what an agent type is too coarse for: two at a time per customer, one per repository. (For a
    limit per agent type `dispatch` has `per_type`, which is exact and holds nothing back.) It counts in this
    worker only.

    Parameters
    ----------
    key:
        What is limited, as ``lambda c: c.owner_id``; None: this one is not.
    n:
        How many at a time.
    finished:
        Ids of tasks that need their place no more: their run ended, or somebody else took them, or they were
        dropped on the way. `dispatch` tells the first two (its `finished`), `prioritise` the last (its
        `on_dropped`).
    started:
        Ids of tasks whose run has begun or that are gone (`dispatch`'s `settled`). Given, a candidate of
        which nothing was heard for `patience` seconds gives its place back: an operator further down may have
        dropped it. Without it such a place is taken until the row is finished by somebody.
    patience:
        Seconds; see `started`.
    capacity:
        How many are held at most; beyond it the key with most loses its worst, and a later sweep offers it
        again.
    scheduler:
        Runs the timer of `patience`; default the subscription's.

    Returns
    -------
    An operator. A row that has its place and is offered again passes again: a hint more, no place more. When
    the source completes, what is held is still waited for. Errors of the other streams, and of `key`, are its
    own.

    Raises
    ------
    ValueError
        When `n` or `capacity` is below 1, or `patience` not above 0.

    Example
    -------
    >>> from reactivex.subject import Subject
    >>> from reactive_worker.testing.marbles import candidate
    >>> rows, finished = Subject(), Subject()
    >>> one_each = limit_concurrency(lambda c: c.owner_id, 1, finished=finished)
    >>> _ = rows.pipe(one_each).subscribe(lambda c: print(c.id))
    >>> for id in ("a1", "a2", "b1"): rows.on_next(candidate(id, owner_id=id[0]))
    a1
    b1
    >>> finished.on_next(["a1"])
    a2
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n!r}")
    if patience <= 0:
        raise ValueError(f"patience must be above 0 seconds, not {patience!r}")
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, not {capacity!r}")

    def operator(source: Observable[Candidate]) -> Observable[Candidate]:
        def subscribe(
            observer: abc.ObserverBase[Candidate], scheduler_: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            clock = choose_scheduler(scheduler, scheduler_)
            places = _Places(
                key, n, None if started is None else patience, Shelves(capacity), observer, clock
            )
            upstream = scheduler or scheduler_
            group = CompositeDisposable(places.timer)
            group.add(finished.subscribe(places.finished, observer.on_error, scheduler=upstream))
            if started is not None:
                group.add(started.subscribe(places.started, observer.on_error, scheduler=upstream))
            group.add(source.subscribe(places.offer, observer.on_error, places.completed, scheduler=upstream))
            return group

        return Observable(subscribe)

    return operator


class _Places:
    """One subscription: who has a place, who waits for one."""

    def __init__(
        self,
        key: Callable[[Candidate], Hashable],
        n: int,
        patience: float | None,
        held: Shelves,
        observer: abc.ObserverBase[Candidate],
        clock: abc.SchedulerBase,
    ) -> None:
        self._key = key
        self._n = n
        self._patience = patience
        self._held = held
        self._observer = observer
        self._clock = clock
        self._now = ticks(clock)
        self.timer = SerialDisposable()
        self._timer_set = False
        # id -> (key, number of the place)
        self._taken: dict[str, tuple[Hashable, int]] = {}
        self._count: Counter[Hashable] = Counter()
        self._number = 0
        # Places of which nothing was heard yet, oldest first: (when it was given, id, number).
        self._unheard: deque[tuple[float, str, int]] = deque()
        self._freed: deque[Hashable] = deque()
        self._giving = False
        self._source_done = False

    def offer(self, candidate: Candidate) -> None:
        if candidate.id in self._taken:
            self._observer.on_next(candidate)
            return
        try:
            key = self._key(candidate)
        except Exception as error:  # noqa: BLE001 - as in any operator, the user's function fails the stream
            self._observer.on_error(error)
            return
        if key is None:
            self._observer.on_next(candidate)
            return
        self._held.put(key, candidate)
        self._give(key)

    def finished(self, ids: Collection[str]) -> None:
        for id in ids:
            self._held.discard(id)
            place = self._taken.pop(id, None)
            if place is not None:
                self._count[place[0]] -= 1
                if not self._count[place[0]]:
                    del self._count[place[0]]
                self._freed.append(place[0])
        self._give()

    def started(self, ids: Collection[str]) -> None:
        for id in ids:
            place = self._taken.get(id)
            if place is not None:
                # Another number than the one that is waited for: it was heard of.
                self._taken[id] = (place[0], 0)

    def completed(self) -> None:
        self._source_done = True
        self._complete_when_empty()

    def _give(self, *keys: Hashable) -> None:
        # A loop and not recursion: what is given a place may be finished before `on_next` returns.
        self._freed.extend(keys)
        if self._giving:
            return
        self._giving = True
        try:
            while self._freed:
                key = self._freed.popleft()
                while self._count[key] < self._n and (candidate := self._held.take(key)) is not None:
                    self._take_place(key, candidate)
                if not self._count[key]:
                    del self._count[key]
        finally:
            self._giving = False
        self._complete_when_empty()

    def _take_place(self, key: Hashable, candidate: Candidate) -> None:
        self._number += 1
        self._taken[candidate.id] = (key, self._number)
        self._count[key] += 1
        if self._patience is not None:
            self._unheard.append((self._now(), candidate.id, self._number))
            self._watch()
        self._observer.on_next(candidate)

    def _watch(self) -> None:
        if self._patience is None or self._timer_set or not self._unheard:
            return
        self._timer_set = True
        waited = self._now() - self._unheard[0][0]
        delay = max(self._patience - waited, 0.0)
        self.timer.disposable = self._clock.schedule_relative(delay, self._give_up)

    def _give_up(self, _: abc.SchedulerBase, __: object = None) -> None:
        self._timer_set = False
        now = self._now()
        # To the microsecond, which is what schedulers round to.
        while self._unheard and now - self._unheard[0][0] >= (self._patience or 0.0) - 1e-6:
            _given, id, number = self._unheard.popleft()
            if self._taken.get(id, (None, 0))[1] == number:
                self.finished((id,))
        self._watch()

    def _complete_when_empty(self) -> None:
        if self._source_done and not len(self._held) and not self._giving:
            self._observer.on_completed()
