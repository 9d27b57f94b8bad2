"""A hot observable whose subscribers are guarded each by itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

from reactivex import abc
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from reactive_worker.errors import ConfigurationError
from reactive_worker.worker.telemetry import Emit, SubscriberRaised, described

T = TypeVar("T")


class Fanout(Subject[T]):
    """Hands each item to every subscriber; one that raises costs neither the others nor its own next item.

    Parameters
    ----------
    name:
        What it is called when a subscriber raised.
    emit:
        Where that is told.

    Example
    -------
    >>> numbers: Fanout[int] = Fanout("numbers", lambda event: print(event))
    >>> _ = numbers.subscribe(lambda n: print(1 // n)), numbers.subscribe(print)
    >>> numbers.on_next(0)
    a subscriber of numbers raised: ZeroDivisionError: integer division or modulo by zero
    0
    """

    def __init__(self, name: str, emit: Emit) -> None:
        super().__init__()
        self._name = name
        self._emit = emit
        self._sinks: dict[str, Callable[[T], object]] = {}

    def add_sink(
        self, name: str, observer: abc.ObserverBase[T] | Callable[[T], object]
    ) -> abc.DisposableBase:
        """Hand each item to `observer` as well, for as long as what is returned is not disposed of.

        Raises
        ------
        ConfigurationError
            There is a sink of this name, or `observer` is a coroutine function: nobody would await it.
        """
        take: Callable[[T], object] = observer if callable(observer) else observer.on_next
        if name in self._sinks:
            raise ConfigurationError(f"there is a sink {name!r} already")
        if inspect.iscoroutinefunction(take):
            raise ConfigurationError(
                f"the sink {name!r} is a coroutine function, which nothing here awaits: "
                "hand events to a queue (queue.put_nowait) and await that"
            )
        self._sinks[name] = take

        def remove() -> None:
            self._sinks.pop(name, None)

        return Disposable(remove)

    def on_next(self, value: T) -> None:
        """Hand `value` to everybody, in the order they came; sinks last."""
        with self.lock:
            observers = list(self.observers)
        for observer in observers:
            self._hand(self._name, observer.on_next, value)
        for name, take in list(self._sinks.items()):
            self._hand(f"sink {name!r}", take, value)

    def _hand(self, name: str, take: Callable[[T], object], value: T) -> None:
        try:
            take(value)
        except Exception as error:  # noqa: BLE001 - a user's code, about an event that others wait for
            self._emit(SubscriberRaised(name, described(error)))
