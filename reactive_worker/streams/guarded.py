"""A user's hook, so fenced in that its failures are one logged error and the stream goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, SerialDisposable, SingleAssignmentDisposable
from reactivex.subject import Subject

_T = TypeVar("_T")
_R = TypeVar("_R")

Hook = Callable[[Observable[_T]], Observable[_R]]


def guarded(
    hook: Hook[_T, _R],
    *,
    on_error: Callable[[Exception], None],
    name: str = "hook",
    fallback: Callable[[_T], _R] | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[_T]], Observable[_R]]:
    """Apply `hook` to a hot source and apply it afresh whenever it fails.

    ::

        source   --a----b----c----d---|
        hook     map(f), f(b) raises
        guarded  --A---------C----D---|
        on_error       x

    The failing item is lost to the hook (see `fallback`); operators inside the hook start again with empty
    hands, as any Rx stream does after an error. When the hook fails before it has seen a single item, it is
    applied again when the next item comes and not at once: a hook that fails on subscription would spin for
    ever.

    Parameters
    ----------
    hook:
        Takes the source, returns the stream to use in its place.
    on_error:
        Told of each failure, once.
    name:
        What the hook is called in error texts.
    fallback:
        What to emit for an item on which the hook failed and of which nothing had come out yet. Without it
        the item is dropped: right for candidates (a later sweep offers them again), wrong for events.
    scheduler:
        Handed to the hooked stream; default the subscription's.

    Returns
    -------
    An operator. It completes when the hooked stream does (a hook may say ``take(3)``) or when the source
    does, and errors only when the source errors or `hook` cannot even be called.

    Raises
    ------
    TypeError
        Through the stream: `hook` returned something that is no Observable.

    Example
    -------
    >>> from reactivex import operators as ops
    >>> numbers = Subject()
    >>> told = []
    >>> safe = numbers.pipe(guarded(lambda s: s.pipe(ops.map(lambda n: 6 // n)), on_error=told.append))
    >>> _ = safe.subscribe(print)
    >>> for n in (1, 0, 3): numbers.on_next(n)
    6
    2
    >>> told
    [ZeroDivisionError('integer division or modulo by zero')]
    """

    def operator(source: Observable[_T]) -> Observable[_R]:
        def subscribe(
            observer: abc.ObserverBase[_R], scheduler_: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            guard = _Guard(hook, on_error, name, fallback, observer, scheduler or scheduler_)
            return guard.run(source)

        return Observable(subscribe)

    return operator


class _Guard(Generic[_T, _R]):
    """One subscription: the source feeds an inlet, the hook turns the inlet into what the observer sees."""

    def __init__(
        self,
        hook: Hook[_T, _R],
        on_error: Callable[[Exception], None],
        name: str,
        fallback: Callable[[_T], _R] | None,
        observer: abc.ObserverBase[_R],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        self._hook = hook
        self._tell = on_error
        self._name = name
        self._fallback = fallback
        self._observer = observer
        self._scheduler = scheduler
        self._hooked = SerialDisposable()
        self._inlet: Subject[_T] | None = None
        self._items = 0
        self._emitted = 0
        self._failures = 0
        self._source_done = False
        self._downstream_error: Exception | None = None

    def run(self, source: Observable[_T]) -> abc.DisposableBase:
        self._apply()
        subscription = source.subscribe(
            self._next, self._observer.on_error, self._completed, scheduler=self._scheduler
        )
        return CompositeDisposable(subscription, self._hooked)

    def _apply(self) -> None:
        inlet: Subject[_T] = Subject()
        # Set before the hook subscribes, and compared in its callbacks: a stale stream must not speak.
        self._inlet = inlet
        self._items = 0
        stream = self._hook(inlet)
        if not isinstance(stream, Observable):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's
            raise TypeError(f"the {self._name} must return an Observable, not {type(stream).__name__}")

        def forward(value: _R) -> None:
            self._emitted += 1
            try:
                self._observer.on_next(value)
            except Exception as error:
                # It will come back to us through the hook; it is not the hook's failure.
                self._downstream_error = error
                raise

        def failed(error: Exception) -> None:
            if self._inlet is inlet:
                self._failed(error)

        def completed() -> None:
            if self._inlet is inlet:
                self._observer.on_completed()

        subscription = SingleAssignmentDisposable()
        self._hooked.disposable = subscription
        subscription.disposable = stream.subscribe(forward, failed, completed, scheduler=self._scheduler)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        had_items = self._items > 0
        self._inlet = None
        self._tell(error)
        if self._source_done:
            self._observer.on_completed()
        elif had_items:
            self._reapply()

    def _reapply(self) -> None:
        try:
            self._apply()
        except Exception as error:  # noqa: BLE001 - whatever the hook raises, the observer is told
            self._observer.on_error(error)

    def _next(self, item: _T) -> None:
        if self._inlet is None:
            self._reapply()
        inlet = self._inlet
        if inlet is None:  # it failed again while it was applied; already told
            self._stand_in(item)
            return
        self._items += 1
        failures, emitted = self._failures, self._emitted
        try:
            inlet.on_next(item)
        except Exception as error:
            if error is self._downstream_error:
                self._downstream_error = None
                raise
            if self._inlet is inlet:
                self._failed(error)
        if self._failures > failures and self._emitted == emitted:
            self._stand_in(item)

    def _stand_in(self, item: _T) -> None:
        if self._fallback is not None:
            self._observer.on_next(self._fallback(item))

    def _completed(self) -> None:
        self._source_done = True
        inlet = self._inlet
        if inlet is None:
            self._observer.on_completed()
            return
        try:
            inlet.on_completed()
        except Exception as error:
            if error is self._downstream_error:
                raise
            if self._inlet is inlet:
                self._failed(error)
