"""A user's operators over events, past which outcomes go."""

from __future__ import annotations

from collections.abc import Callable

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable
from reactivex.subject import Subject

from reactive_worker.models import TodoEvent

Operator = Callable[[Observable[TodoEvent]], Observable[TodoEvent]]


def beside_outcomes(operator: Operator) -> Operator:
    """Apply `operator` to what executors say, and let the event that carries an outcome go past it.

    ::

        source   --a--b--X--|       X carries an outcome
        operator filter(is_b)
        result   -----b--X--|

    A filter may drop what is reported, never that a task has ended. Synchronous operators keep the order.
    The result ends with the source, whatever the operator does.
    """

    def apply(source: Observable[TodoEvent]) -> Observable[TodoEvent]:
        def subscribe(
            observer: abc.ObserverBase[TodoEvent], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            inlet: Subject[TodoEvent] = Subject()

            def on_next(event: TodoEvent) -> None:
                if event.outcome is None:
                    inlet.on_next(event)
                else:
                    observer.on_next(event)

            def on_completed() -> None:
                inlet.on_completed()
                observer.on_completed()

            operated = operator(inlet).subscribe(observer.on_next, observer.on_error, scheduler=scheduler)
            return CompositeDisposable(
                operated, source.subscribe(on_next, observer.on_error, on_completed, scheduler=scheduler)
            )

        return Observable(subscribe)

    return apply
