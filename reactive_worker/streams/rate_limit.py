"""At most so many candidates of a key in a stretch of time."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from heapq import heappop, heappush

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, SerialDisposable

from reactive_worker.models import Candidate
from reactive_worker.streams._scheduling import choose_scheduler, ticks
from reactive_worker.streams._shelves import Shelves


def rate_limit(
    key: Callable[[Candidate], Hashable],
    per: float,
    *,
    limit: int = 1,
    capacity: int = 10_000,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Candidate]], Observable[Candidate]]:
    """Let `limit` candidates of a key pass in any `per` seconds; hold the others until there is room, best
    first.

    ::

        source   --a1-a2-b1-a3----------------|      per=9, limit=1, key: the letter
        result   --a1----b1------a2-------a3--|

    For an API that allows ten calls a minute: ``rate_limit(lambda c: c.agent_type, 60, limit=10)``. It limits
    how fast candidates are let on, which is how fast tasks start as long as slots are free; it counts in this
    worker only.

    Parameters
    ----------
    key:
        What is limited, as ``lambda c: c.agent_type``; None: this one is not.
    per:
        Seconds.
    limit:
        How many of a key may pass in any stretch of `per` seconds.
    capacity:
        How many are held at most; beyond it the key with most loses its worst, and a later sweep offers it
        again. Also how many of those that passed are remembered: offered again they pass again, and do not
        count twice.
    scheduler:
        Runs the timer; default the subscription's.

    Returns
    -------
    An operator. When the source completes, what is held is still let on in its time. Errors of `key` are its
    own.

    Raises
    ------
    ValueError
        When `per` is not above 0, or `limit` or `capacity` below 1.

    Example
    -------
    >>> from reactive_worker.testing.marbles import VirtualTime, candidates
    >>> time = VirtualTime()
    >>> rows = time.hot("-(a,b,c)|", candidates("abc"))
    >>> result = time.observe(rows.pipe(rate_limit(lambda c: c.agent_type, per=60, limit=2)))
    >>> time.run()
    >>> list(zip(result.times, [row.id for row in result.values]))
    [(1.0, 'a'), (1.0, 'b'), (61.0, 'c')]
    """
    if per <= 0:
        raise ValueError(f"per must be above 0 seconds, not {per!r}")
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit!r}")
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, not {capacity!r}")

    def operator(source: Observable[Candidate]) -> Observable[Candidate]:
        def subscribe(
            observer: abc.ObserverBase[Candidate], scheduler_: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            gate = _Gate(key, per, limit, capacity, observer, choose_scheduler(scheduler, scheduler_))
            subscription = source.subscribe(
                gate.offer, observer.on_error, gate.completed, scheduler=scheduler or scheduler_
            )
            return CompositeDisposable(subscription, gate.timer)

        return Observable(subscribe)

    return operator


# Times are whole microseconds, as schedulers count: with fractions a timer could come a hair too early for
# its own entry, and again, and again.
_MICROSECONDS = 1_000_000


class _Gate:
    """One subscription: when candidates of each key passed, and who waits."""

    def __init__(
        self,
        key: Callable[[Candidate], Hashable],
        per: float,
        limit: int,
        capacity: int,
        observer: abc.ObserverBase[Candidate],
        clock: abc.SchedulerBase,
    ) -> None:
        self._key = key
        self._per = round(per * _MICROSECONDS)
        self._limit = limit
        self._capacity = capacity
        self._observer = observer
        self._clock = clock
        self._ticks = ticks(clock)
        self._held = Shelves(capacity)
        self.timer = SerialDisposable()
        # key -> when its last `limit` ones passed; the key that passed last is last.
        self._passes: OrderedDict[Hashable, deque[int]] = OrderedDict()
        self._passed: OrderedDict[tuple[str, int], None] = OrderedDict()
        # (when a key that is waited for opens, number, key)
        self._openings: list[tuple[int, int, Hashable]] = []
        self._awaited: set[Hashable] = set()
        self._number = 0
        self._source_done = False

    def offer(self, candidate: Candidate) -> None:
        if candidate.key in self._passed:
            self._passed.move_to_end(candidate.key)
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
        now = self._now()
        self._forget(now)
        waits = bool(self._held.shelf(key))
        opens_at = self._opens_at(key, now)
        if not waits and opens_at <= now:
            self._pass(key, candidate, now)
            return
        self._held.put(key, candidate)
        # It may have pushed out itself.
        if not waits and self._held.shelf(key):
            self._await(key, opens_at)

    def completed(self) -> None:
        self._source_done = True
        self._complete_when_empty()

    def _now(self) -> int:
        return round(self._ticks() * _MICROSECONDS)

    def _opens_at(self, key: Hashable, now: int) -> int:
        passes = self._passes.get(key)
        if passes is None or len(passes) < self._limit:
            return now
        return passes[0] + self._per

    def _pass(self, key: Hashable, candidate: Candidate, now: int) -> None:
        passes = self._passes.setdefault(key, deque(maxlen=self._limit))
        passes.append(now)
        self._passes.move_to_end(key)
        self._passed[candidate.key] = None
        if len(self._passed) > self._capacity:
            self._passed.popitem(last=False)
        self._observer.on_next(candidate)

    def _await(self, key: Hashable, opens_at: int) -> None:
        if key in self._awaited:
            return
        self._awaited.add(key)
        self._number += 1
        heappush(self._openings, (opens_at, self._number, key))
        if self._openings[0][1] == self._number:
            self._arm()

    def _arm(self) -> None:
        if self._openings:
            delay = max(self._openings[0][0] - self._now(), 0)
            self.timer.disposable = self._clock.schedule_relative(delay / _MICROSECONDS, self._open)

    def _open(self, _: abc.SchedulerBase, __: object = None) -> None:
        now = self._now()
        while self._openings and self._openings[0][0] <= now:
            _at, _number, key = heappop(self._openings)
            self._awaited.discard(key)
            while self._opens_at(key, now) <= now and (candidate := self._held.take(key)) is not None:
                self._pass(key, candidate, now)
            if self._held.shelf(key):
                self._await(key, self._opens_at(key, now))
        self._arm()
        self._complete_when_empty()

    def _forget(self, now: int) -> None:
        # Keys come and go (owners, repositories): those whose last pass no longer counts are at the front.
        while self._passes:
            key, passes = next(iter(self._passes.items()))
            if now - passes[-1] < self._per or self._held.shelf(key):
                break
            del self._passes[key]

    def _complete_when_empty(self) -> None:
        if self._source_done and not len(self._held):
            self._observer.on_completed()
