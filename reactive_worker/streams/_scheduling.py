"""Which clock an operator lives by."""

from __future__ import annotations

import time
from collections.abc import Callable

from reactivex import abc
from reactivex.scheduler import TimeoutScheduler, VirtualTimeScheduler


def choose_scheduler(
    given: abc.SchedulerBase | None, subscribed: abc.SchedulerBase | None
) -> abc.SchedulerBase:
    """The scheduler given to the operator, else the subscription's, else RxPY's own default for timers.

    The default runs callbacks on timer threads; it is there so that a line typed into a shell works. A worker
    subscribes with the scheduler of its event loop, and then every callback runs on that one thread: that is
    why no operator here has a lock. The scheduler must not run actions inside `schedule` itself (RxPY's
    ImmediateScheduler does): operators count on being called back later.
    """
    return given or subscribed or TimeoutScheduler.singleton()


def ticks(clock: abc.SchedulerBase) -> Callable[[], float]:
    """Seconds by a clock that only goes forward, to measure what has passed.

    What a scheduler calls `now` is the wall clock: set forward by an hour it would end every wait at once,
    and set back it would make every wait an hour longer. Virtual time is the exception: tests move it.

    >>> from reactivex.scheduler import HistoricalScheduler
    >>> now = ticks(HistoricalScheduler())
    >>> now() == now()
    True
    """
    if isinstance(clock, VirtualTimeScheduler):
        return lambda: clock.now.timestamp()
    return time.monotonic
