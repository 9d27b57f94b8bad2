"""Candidates wait while something says so."""

from __future__ import annotations

from collections.abc import Callable

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable

from reactive_worker.models import Candidate
from reactive_worker.streams._shelves import Shelves


def pause_while(
    paused: Observable[bool], *, capacity: int = 10_000, scheduler: abc.SchedulerBase | None = None
) -> Callable[[Observable[Candidate]], Observable[Candidate]]:
    """Hold candidates while `paused` is true, and let them go, best first, when it is not.

    ::

        source   --a--b--c-----d--e--|
        paused   ---T-------F---------
        result   --a--------bc-d--e--|

    Parameters
    ----------
    paused:
        The last value counts; not paused before the first. When it ends it stays as it was. Its errors are
        the stream's.
    capacity:
        How many are held at most; beyond it the worst is dropped, and a later sweep offers it again.
    scheduler:
        Handed on to the source and to `paused`.

    Returns
    -------
    An operator. When the source completes while it is paused, what is held is still waited for.

    Raises
    ------
    ValueError
        When `capacity` is below 1.

    Example
    -------
    >>> from reactivex.subject import BehaviorSubject, Subject
    >>> from reactive_worker.testing.marbles import candidate
    >>> office_closed, rows = BehaviorSubject(True), Subject()
    >>> _ = rows.pipe(pause_while(office_closed)).subscribe(lambda c: print(c.id))
    >>> rows.on_next(candidate("a", priority=1)); rows.on_next(candidate("b", priority=2))
    >>> office_closed.on_next(False)
    b
    a
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, not {capacity!r}")

    def operator(source: Observable[Candidate]) -> Observable[Candidate]:
        def subscribe(
            observer: abc.ObserverBase[Candidate], scheduler_: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            held = Shelves(capacity)
            is_paused = releasing = source_done = False

            def on_next(candidate: Candidate) -> None:
                # Behind those being let go, too: they came first, or are better.
                if is_paused or len(held):
                    held.put(None, candidate)
                    release()
                else:
                    observer.on_next(candidate)

            def on_paused(value: bool) -> None:
                nonlocal is_paused
                is_paused = value
                release()

            def release() -> None:
                nonlocal releasing
                if releasing:
                    return
                releasing = True
                try:
                    # It may be paused again by what is let go.
                    while not is_paused and (candidate := held.take(None)) is not None:
                        observer.on_next(candidate)
                finally:
                    releasing = False
                complete_when_empty()

            def on_completed() -> None:
                nonlocal source_done
                source_done = True
                complete_when_empty()

            def complete_when_empty() -> None:
                if source_done and not len(held) and not releasing:
                    observer.on_completed()

            upstream = scheduler or scheduler_
            return CompositeDisposable(
                paused.subscribe(on_paused, observer.on_error, scheduler=upstream),
                source.subscribe(on_next, observer.on_error, on_completed, scheduler=upstream),
            )

        return Observable(subscribe)

    return operator
