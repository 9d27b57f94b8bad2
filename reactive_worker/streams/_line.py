"""A line to the store: one call at a time, and a rest after one that failed."""

from __future__ import annotations

from collections.abc import Callable

from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import Disposable, SerialDisposable, SingleAssignmentDisposable

from reactive_worker.backoff import Backoff
from reactive_worker.streams._answers import BatchResult


class Line:
    """One of the lines of a `sink`.

    Parameters
    ----------
    backoff:
        How long it rests after failures in a row.
    clock:
        Runs its timer.
    upstream:
        Handed to what it subscribes.
    """

    def __init__(
        self, backoff: Backoff, clock: abc.SchedulerBase, upstream: abc.SchedulerBase | None
    ) -> None:
        self._backoff = backoff
        self._clock = clock
        self._upstream = upstream
        #: Disposing of it ends the call under way, or the rest.
        self.doing = SerialDisposable()
        self.busy = False
        self._resting = False
        #: Failures since anything was stored.
        self.tries = 0

    @property
    def free(self) -> bool:
        """Whether something may be sent now."""
        return not self.busy and not self._resting

    def send(
        self,
        call: Callable[[], Observable[BatchResult]],
        answered: Callable[[BatchResult], None],
        failed: Callable[[Exception], None],
        then: Callable[[], None],
    ) -> None:
        """Call the store; `then` comes after either answer, when the line is free again."""
        self.busy = True
        subscription = SingleAssignmentDisposable()
        self.doing.disposable = subscription
        answers: list[BatchResult] = []

        def done(tell: Callable[[], None]) -> None:
            tell()
            # Only now: whoever was told may say something more, and must not have this sent again.
            self.busy = False
            then()

        def completed() -> None:
            if answers:
                done(lambda: answered(answers[0]))
            else:
                done(lambda: failed(RuntimeError("the store ended without an answer")))

        try:
            stream = call()
        except Exception as error:  # noqa: BLE001 - a store that cannot even start is one that refuses
            # Python forgets the name at the end of this block.
            refusal = error
            done(lambda: failed(refusal))
            return
        subscription.disposable = stream.pipe(ops.take(1)).subscribe(
            answers.append,
            lambda error: done(lambda: failed(error)),
            completed,
            scheduler=self._upstream,
        )

    def rest(self, then: Callable[[], None]) -> None:
        """The store refused for now: send nothing for a while."""
        self.tries += 1
        self._resting = True

        def over(_: abc.SchedulerBase, __: object = None) -> None:
            self._resting = False
            then()

        self.doing.disposable = self._clock.schedule_relative(self._backoff.delay(self.tries), over)

    def wake(self) -> None:
        """Something was stored: there is no reason to rest any more."""
        self.tries = 0
        if self._resting:
            self._resting = False
            self.doing.disposable = Disposable()
