"""Which clock an operator lives by."""

from __future__ import annotations

from reactivex import abc
from reactivex.scheduler import TimeoutScheduler


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
