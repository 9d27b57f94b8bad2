"""After a row of failures nothing more is sent into the fire for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Literal

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable, SerialDisposable

from reactive_worker.models import Candidate, TodoEvent
from reactive_worker.streams._scheduling import choose_scheduler
from reactive_worker.streams._shelves import Shelves

#: closed: all pass; open: none passes; half_open: one is tried.
BreakerState = Literal["closed", "open", "half_open"]

#: Whether an event says that a run went well (True), failed (False), or neither (None).
Verdict = Callable[[TodoEvent], bool | None]


def outcome_verdict(event: TodoEvent) -> bool | None:
    """The default: runs that fail or are to be retried at their own cost have failed.

    Progress says nothing, and neither does a cancelled run or a retry that does not count.

    >>> from reactive_worker.testing.marbles import Outcome, event
    >>> [outcome_verdict(event("a", outcome=Outcome(kind))) for kind in ("completed", "failed", "cancelled")]
    [True, False, None]
    """
    if event.outcome is None or event.outcome.kind == "cancelled":
        return None
    if event.outcome.kind == "retry":
        return False if event.outcome.counts_as_failure else None
    return event.outcome.kind != "failed"


def circuit_breaker(
    events: Observable[TodoEvent],
    *,
    key: Callable[[Candidate], Hashable] | None = None,
    failures: int = 5,
    cool_down: float = 30.0,
    verdict: Verdict = outcome_verdict,
    on_change: Callable[[Hashable, BreakerState], None] | None = None,
    capacity: int = 10_000,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Candidate]], Observable[Candidate]]:
    """Hold the candidates of a key after `failures` failed runs in a row; try one after `cool_down` seconds.

    ::

        source   --a--b--c------d--------------------|      failures=2
        events   ----a:X---b:X---------------c:ok-----
        state    closed----open--------half--closed----
        result   --a--b--c-------------d-----.........      d is the try; with it going well all go on

    When the model behind an agent type is down, tasks would burn their retry budgets one after the other;
    held back they cost nothing.

    Parameters
    ----------
    events:
        What the runs say, as ``worker.events``. Its errors are the stream's.
    key:
        What fails together; default the agent type. None: this candidate is not held.
    failures:
        How many failed runs in a row open it.
    cool_down:
        Seconds until one candidate is tried, and from a try without an answer to the next.
    verdict:
        What an event says about its run.
    on_change:
        Told the key and its new state.
    capacity:
        How many are held at most; beyond it the key with most loses its worst, and a later sweep offers it
        again. Also of how many candidates that passed the key is remembered, for their events to be
        understood.
    scheduler:
        Runs the timers; default the subscription's.

    Returns
    -------
    An operator. When the source completes, what is held is still waited for. Errors of `key` and `verdict`
    are its own.

    Raises
    ------
    ValueError
        When `failures` or `capacity` is below 1, or `cool_down` not above 0.

    Example
    -------
    >>> from reactivex.subject import Subject
    >>> from reactive_worker.testing.marbles import Outcome, candidate, event
    >>> rows, events = Subject(), Subject()
    >>> safe = rows.pipe(circuit_breaker(events, failures=1, on_change=lambda key, state: print(key, state)))
    >>> subscription = safe.subscribe(lambda c: print(c.id))
    >>> rows.on_next(candidate("a"))
    a
    >>> events.on_next(event("a", outcome=Outcome("failed")))
    digest open
    >>> rows.on_next(candidate("b"))
    >>> subscription.dispose()
    """
    if failures < 1:
        raise ValueError(f"failures must be at least 1, not {failures!r}")
    if cool_down <= 0:
        raise ValueError(f"cool_down must be above 0 seconds, not {cool_down!r}")
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, not {capacity!r}")
    options = _Options(key or _agent_type, failures, cool_down, verdict, on_change, capacity)

    def operator(source: Observable[Candidate]) -> Observable[Candidate]:
        def subscribe(
            observer: abc.ObserverBase[Candidate], scheduler_: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            breaker = _Breaker(options, observer, choose_scheduler(scheduler, scheduler_))
            upstream = scheduler or scheduler_
            return CompositeDisposable(
                Disposable(breaker.dispose),
                events.subscribe(breaker.heard, observer.on_error, scheduler=upstream),
                source.subscribe(breaker.offer, observer.on_error, breaker.completed, scheduler=upstream),
            )

        return Observable(subscribe)

    return operator


def _agent_type(candidate: Candidate) -> Hashable:
    return candidate.agent_type


@dataclass(frozen=True, slots=True)
class _Options:
    key: Callable[[Candidate], Hashable]
    failures: int
    cool_down: float
    verdict: Verdict
    on_change: Callable[[Hashable, BreakerState], None] | None
    capacity: int


@dataclass(slots=True)
class _Circuit:
    """One key that has failed lately; a key that has not needs no entry."""

    state: BreakerState = "closed"
    failures: int = 0
    #: Whether the next to come is to be tried at once.
    ready: bool = False
    #: Who was tried since it is half open.
    tried: set[str] = field(default_factory=set[str])
    timer: SerialDisposable = field(default_factory=SerialDisposable)


class _Breaker:
    """One subscription: the circuits that are not simply closed, and who waits behind them."""

    def __init__(
        self, options: _Options, observer: abc.ObserverBase[Candidate], clock: abc.SchedulerBase
    ) -> None:
        self._options = options
        self._observer = observer
        self._clock = clock
        self._held = Shelves(options.capacity)
        self._circuits: dict[Hashable, _Circuit] = {}
        self._key_of: OrderedDict[str, Hashable] = OrderedDict()
        self._releasing = False
        self._source_done = False

    def offer(self, candidate: Candidate) -> None:
        try:
            key = self._options.key(candidate)
        except Exception as error:  # noqa: BLE001 - as in any operator, the user's function fails the stream
            self._observer.on_error(error)
            return
        circuit = self._circuits.get(key)
        if key is None:
            self._observer.on_next(candidate)
        elif circuit is None or circuit.state == "closed":
            self._pass(key, candidate)
        elif candidate.id in circuit.tried:
            self._observer.on_next(candidate)
        else:
            self._held.put(key, candidate)
            if circuit.ready:
                self._try(key, circuit)

    def heard(self, event: TodoEvent) -> None:
        try:
            verdict = self._options.verdict(event)
        except Exception as error:  # noqa: BLE001 - as above
            self._observer.on_error(error)
            return
        if verdict is None or event.todolist_id not in self._key_of:
            return
        key = self._key_of.pop(event.todolist_id)
        circuit = self._circuits.get(key)
        if circuit is None:
            if not verdict:
                self._forget()
                self._failed(key, self._circuits.setdefault(key, _Circuit()))
        elif circuit.state == "closed":
            if verdict:
                del self._circuits[key]
            else:
                self._failed(key, circuit)
        elif event.todolist_id in circuit.tried:
            if verdict:
                self._close(key, circuit)
            else:
                self._open(key, circuit)
        # Else a run from before it opened: it says nothing about now.

    def completed(self) -> None:
        self._source_done = True
        self._complete_when_empty()

    def dispose(self) -> None:
        for circuit in self._circuits.values():
            circuit.timer.dispose()
        self._circuits.clear()

    def _pass(self, key: Hashable, candidate: Candidate) -> None:
        self._key_of[candidate.id] = key
        self._key_of.move_to_end(candidate.id)
        if len(self._key_of) > self._options.capacity:
            self._key_of.popitem(last=False)
        self._observer.on_next(candidate)

    def _forget(self) -> None:
        # Keys that failed once or twice and never came again; keys may be as many as customers.
        if len(self._circuits) >= self._options.capacity:
            self._circuits = {key: each for key, each in self._circuits.items() if each.state != "closed"}

    def _failed(self, key: Hashable, circuit: _Circuit) -> None:
        circuit.failures += 1
        if circuit.failures >= self._options.failures:
            self._open(key, circuit)

    def _open(self, key: Hashable, circuit: _Circuit) -> None:
        circuit.state = "open"
        circuit.ready = False
        circuit.tried.clear()
        self._in_a_while(key, circuit)
        self._tell(key, "open")

    def _in_a_while(self, key: Hashable, circuit: _Circuit) -> None:
        def cooled_down(_: abc.SchedulerBase, __: object = None) -> None:
            if circuit.state == "open":
                circuit.state = "half_open"
                self._tell(key, "half_open")
            self._try(key, circuit)

        circuit.timer.disposable = self._clock.schedule_relative(self._options.cool_down, cooled_down)

    def _try(self, key: Hashable, circuit: _Circuit) -> None:
        candidate = self._held.take(key)
        circuit.ready = candidate is None
        if candidate is None:
            return
        circuit.tried.add(candidate.id)
        self._in_a_while(key, circuit)
        self._pass(key, candidate)
        self._complete_when_empty()

    def _close(self, key: Hashable, circuit: _Circuit) -> None:
        circuit.state = "closed"
        circuit.timer.dispose()
        self._circuits.pop(key, None)
        self._tell(key, "closed")
        self._releasing = True
        try:
            # What is let go may fail, and open it again, before `on_next` returns.
            while key not in self._circuits or self._circuits[key].state == "closed":
                candidate = self._held.take(key)
                if candidate is None:
                    break
                self._pass(key, candidate)
        finally:
            self._releasing = False
        self._complete_when_empty()

    def _tell(self, key: Hashable, state: BreakerState) -> None:
        if self._options.on_change is not None:
            self._options.on_change(key, state)

    def _complete_when_empty(self) -> None:
        if self._source_done and not len(self._held) and not self._releasing:
            self._observer.on_completed()
