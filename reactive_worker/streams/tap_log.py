"""See what flows past."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable, abc

_T = TypeVar("_T")


def tap_log(
    name: str,
    *,
    logger: logging.Logger | None = None,
    level: int = logging.DEBUG,
    describe: Callable[[_T], object] = repr,
) -> Callable[[Observable[_T]], Observable[_T]]:
    """Log what passes, and change nothing.

    ::

        source   --a-----b--|
        result   --a-----b--|
        log        a     b  completed

    Parameters
    ----------
    name:
        What the stream is called in the log.
    logger:
        Default ``reactive_worker.streams``.
    level:
        Of items, completion and disposal; an error is logged one step higher than a warning, as an error.
    describe:
        What to log of an item; called only when the level is on. When it raises, that is logged in its place.

    Returns
    -------
    An operator that passes on everything unchanged.

    Raises
    ------
    Nothing.

    Example
    -------
    >>> import sys
    >>> from reactivex.subject import Subject
    >>> log = logging.getLogger("tap_log example")
    >>> log.addHandler(logging.StreamHandler(sys.stdout)); log.setLevel(logging.INFO)
    >>> numbers = Subject()
    >>> _ = numbers.pipe(tap_log("numbers", logger=log, level=logging.INFO)).subscribe()
    >>> numbers.on_next(7)
    numbers: 7
    """
    log = logger or logging.getLogger("reactive_worker.streams")

    def operator(source: Observable[_T]) -> Observable[_T]:
        def subscribe(
            observer: abc.ObserverBase[_T], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            def on_next(value: _T) -> None:
                if log.isEnabledFor(level):
                    try:
                        text = describe(value)
                    except Exception as error:  # noqa: BLE001 - looking must not change what is looked at
                        text = f"cannot be described: {error!r}"
                    log.log(level, "%s: %s", name, text)
                observer.on_next(value)

            def on_error(error: Exception) -> None:
                log.error("%s: ended by %r", name, error)
                observer.on_error(error)

            def on_completed() -> None:
                log.log(level, "%s: completed", name)
                observer.on_completed()

            return source.subscribe(on_next, on_error, on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator
