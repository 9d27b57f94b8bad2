"""Candidates wait here, best first, until somebody can take them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, SerialDisposable, SingleAssignmentDisposable

from reactive_worker.models import Candidate, Demand, SweepResult
from reactive_worker.streams._priority import PriorityKey, default_priority
from reactive_worker.streams._ranking import Ranking, SortedRanking
from reactive_worker.streams._scheduling import choose_scheduler
from reactive_worker.streams.backpressure import Backpressure

#: Makes the ranking of one subscription; given its capacity. See `fair_by`.
Order = Callable[[int], Ranking]


def prioritise(
    backpressure: Backpressure,
    *,
    key: PriorityKey | None = None,
    order: Order | None = None,
    capacity: int = 1000,
    window: int = 200,
    on_error: Callable[[Candidate, Exception], None] | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Candidate]], Observable[list[Candidate]]]:
    """Keep the best candidates, and answer each demand with one window of them.

    ::

        source    --a1--b9--c5-------------d7----------|
        demand    -----------------2----------------3---
        settled   --------------------b,c---------------
        result    -----------------[b,c,a]----------[d,a]

    RxPY has no backpressure, so demand is a stream: a new demand replaces the one before, and as soon as it
    is above zero and a candidate fits, one window is emitted and the demand is used up. The window holds more
    than was demanded, best first, so that workers of a fleet that lose one row to another take the next. What
    is in a window stays here until `settled` names it. A window leaves on the scheduler's next turn:
    candidates of one sweep are ranked all before the best is chosen, and feedback from downstream never
    nests.

    **The horizon.** A full sweep shows the best rows of a longer line. What ranks after the worst of them is
    dropped, for the database holds better ones we have not seen. Once most of what a full sweep brought has
    been settled (three quarters of it, or of `capacity` if that is less), `wanted` asks for another.

    Parameters
    ----------
    backpressure:
        The other side of the pipeline. Heard here: `demand` (agent types in its `per_type` get at most that
        many places in a window, none when it is 0; the stream ends with it), `settled` (they leave), `busy`
        (they are in no window before their time) and `swept`. Said here: `released` (what is dropped: a later
        sweep offers it again) and `wanted`.
    key:
        What candidates are ordered by, smallest first; default strictly by priority, then by age. Another key
        orders what is known here; the database still sweeps in its own order, and there is no horizon.
    order:
        Instead of `key`: another ranking altogether, as ``fair_by(lambda c: c.owner_id)``.
    capacity:
        The most candidates kept; beyond it the worst is dropped.
    window:
        The most candidates in a window.
    on_error:
        Given a candidate whose key could not be made or compared; it is left out. Default: the stream's
        error.
    scheduler:
        Its next turn emits windows; default the subscription's.

    Returns
    -------
    An operator. When the source completes, what is here is still handed out, and the stream completes when
    nothing is left. Errors of `demand`, `settled` and `swept` are its own.

    Raises
    ------
    ValueError
        When `capacity` or `window` is below 1, or `key` and `order` are both given.

    Example
    -------
    >>> from datetime import UTC, datetime
    >>> from reactivex.subject import Subject
    >>> from reactivex.scheduler import VirtualTimeScheduler
    >>> time = VirtualTimeScheduler()
    >>> rows, backpressure = Subject(), Backpressure()
    >>> windows = rows.pipe(prioritise(backpressure))
    >>> _ = windows.subscribe(lambda w: print([c.id for c in w]), scheduler=time)
    >>> for name, priority in ("a", 1), ("b", 9):
    ...     rows.on_next(Candidate(name, "digest", priority, 0, *[datetime.now(UTC)] * 2))
    >>> backpressure.demand.on_next(Demand(1)); time.start()
    ['b', 'a']
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, not {capacity!r}")
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window!r}")
    if key is not None and order is not None:
        raise ValueError("give key or order, not both: an order has a key of its own")
    options = _Options(capacity, window, backpressure, on_error)

    def operator(source: Observable[Candidate]) -> Observable[list[Candidate]]:
        def subscribe(
            observer: abc.ObserverBase[list[Candidate]], scheduler_: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            ranking = SortedRanking(capacity, key) if order is None else order(capacity)
            waiting = _Waiting(options, ranking, observer, choose_scheduler(scheduler, scheduler_))
            upstream = scheduler or scheduler_
            group = CompositeDisposable(waiting.turn, waiting.timer)
            group.add(
                backpressure.demand.subscribe(
                    waiting.demanded, observer.on_error, observer.on_completed, scheduler=upstream
                )
            )
            group.add(backpressure.settled.subscribe(waiting.settled, observer.on_error, scheduler=upstream))
            group.add(backpressure.busy.subscribe(waiting.busy, observer.on_error, scheduler=upstream))
            group.add(backpressure.swept.subscribe(waiting.swept, observer.on_error, scheduler=upstream))
            group.add(
                source.subscribe(waiting.offer, observer.on_error, waiting.completed, scheduler=upstream)
            )
            return group

        return Observable(subscribe)

    return operator


@dataclass(frozen=True, slots=True)
class _Options:
    capacity: int
    window: int
    backpressure: Backpressure
    on_error: Callable[[Candidate, Exception], None] | None


class _Waiting:
    """One subscription: the ranking, the demand not yet met, and when to ask for more."""

    def __init__(
        self,
        options: _Options,
        ranking: Ranking,
        observer: abc.ObserverBase[list[Candidate]],
        clock: abc.SchedulerBase,
    ) -> None:
        self._options = options
        self._ranking = ranking
        self._observer = observer
        self._clock = clock
        self.turn = SerialDisposable()
        self.timer = SerialDisposable()
        # Out of the ranking until their time: id -> (when, candidate).
        self._resting: dict[str, tuple[float, Candidate]] = {}
        self._turn_taken = False
        self._demand: Demand | None = None
        # The window that is being claimed: what turns out to be busy is one of these.
        self._shown: dict[str, Candidate] = {}
        self._low_mark: int | None = None
        self._source_done = False

    def offer(self, candidate: Candidate) -> None:
        resting = self._resting.get(candidate.id)
        if resting is not None:
            until, known = resting
            if candidate.attempt <= known.attempt:
                if candidate.attempt == known.attempt:
                    # The newest word on it counts, when its time has come.
                    self._resting[candidate.id] = (until, candidate)
                return
            del self._resting[candidate.id]
        self._rank(candidate)

    def _rank(self, candidate: Candidate) -> None:
        try:
            dropped = self._ranking.offer(candidate)
        except Exception as error:  # noqa: BLE001 - a user's key may raise anything, about this row
            if self._options.on_error is None:
                self._observer.on_error(error)
            else:
                self._drop((candidate,))
                self._options.on_error(candidate, error)
            return
        self._drop(dropped)
        demand = self._demand
        # Only a newcomer that fits can change anything: the ranking was searched when the demand came, and
        # searching it again for each offer would be quadratic.
        if (
            demand is not None
            and demand.per_type.get(candidate.agent_type, 1) > 0
            and candidate.id in self._ranking
        ):
            self._take_turn()

    def demanded(self, demand: Demand) -> None:
        self._demand = demand if demand.total > 0 else None
        if self._demand is not None and len(self._ranking):
            self._take_turn()

    def settled(self, ids: Collection[str]) -> None:
        before = len(self)
        for id in ids:
            self._ranking.settle(id)
            self._resting.pop(id, None)
        if len(self) == before:
            return
        if self._low_mark is not None and len(self) < self._low_mark:
            self._low_mark = None
            self._options.backpressure.wanted.on_next(None)
        self._complete_when_empty()

    def busy(self, pauses: Mapping[str, float]) -> None:
        now = self._now()
        for id, seconds in pauses.items():
            candidate = self._shown.get(id)
            if candidate is not None and self._ranking.settle(id):
                self._resting[id] = (now + seconds, candidate)
        self._drop([self._resting.pop(id)[1] for id in list(self._resting)[: -self._options.capacity]])
        self._arm()

    def _arm(self) -> None:
        if not self._resting:
            self.timer.disposable = SingleAssignmentDisposable()
            return
        left = min(until for until, _ in self._resting.values()) - self._now()

        def rested(_: abc.SchedulerBase, __: object = None) -> None:
            now = self._now()
            due = [id for id, (until, _) in self._resting.items() if until <= now]
            for candidate in [self._resting.pop(id)[1] for id in due]:
                self._rank(candidate)
            self._arm()

        self.timer.disposable = self._clock.schedule_relative(max(left, 0.0), rested)

    def swept(self, result: SweepResult) -> None:
        if not result.full or not result.candidates:
            self._low_mark = None
            self._ranking.limit(None)
            return
        # Three quarters of what a sweep brings: its size counts when it is smaller than the capacity, or a
        # small sweep would be low at once, and sweep again and again over the same rows.
        self._low_mark = max(1, min(self._options.capacity, len(result.candidates)) // 4)
        self._drop(self._ranking.limit(max(result.candidates, key=default_priority)))
        self._complete_when_empty()

    def completed(self) -> None:
        self._source_done = True
        self._complete_when_empty()

    def _drop(self, dropped: Sequence[Candidate]) -> None:
        if dropped:
            # Not forgotten, they would be taken for known when a later sweep offers them again.
            self._options.backpressure.released.on_next([candidate.key for candidate in dropped])

    def _take_turn(self) -> None:
        if not self._turn_taken:
            self._turn_taken = True
            self.turn.disposable = self._clock.schedule(self._emit)

    def _emit(self, _: abc.SchedulerBase, __: object = None) -> None:
        self._turn_taken = False
        if self._demand is None:
            return
        chosen = self._ranking.window(self._demand, self._options.window)
        if chosen:
            self._demand = None
            self._shown = {candidate.id: candidate for candidate in chosen}
            self._observer.on_next(chosen)

    def _complete_when_empty(self) -> None:
        if self._source_done and not len(self):
            self._observer.on_completed()

    def __len__(self) -> int:
        return len(self._ranking) + len(self._resting)

    def _now(self) -> float:
        return self._clock.to_seconds(self._clock.now)
