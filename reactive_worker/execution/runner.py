"""Runs claimed tasks: an executor for each, a TaskRun around it, and a watch over those that would not
end."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from typing import Any

import reactivex
from a2a.server.agent_execution import AgentExecutor
from a2a.types import SendMessageRequest
from reactivex import Observable, abc
from reactivex.disposable import Disposable

from reactive_worker.backoff import Backoff
from reactive_worker.execution.context import ContextFactory, TodoRequestContext
from reactive_worker.execution.event_queue import AUTH_HOLD, utc_now
from reactive_worker.execution.history import LoadEvents
from reactive_worker.execution.run import TaskRun
from reactive_worker.execution.run_settings import RunSettings
from reactive_worker.execution.turn import Limits
from reactive_worker.models import Todo, TodoEvent

_logger = logging.getLogger(__name__)

#: When a failed task is due again, unless its executor says so itself.
RETRY_BACKOFF = Backoff(1.0, 300.0, jitter="full")


async def _no_events(todolist_id: str) -> Collection[TodoEvent]:
    return ()


class Runner:
    """Starts runs and knows them.

    Parameters
    ----------
    executor_for:
        The executor of an agent type.
    backoff:
        Seconds to wait after so many earlier failures (0: this was the first); by default exponential with
        full jitter, 1 s to 5 min.
    default_timeout:
        Seconds a task may run when its row says nothing; None for no limit.
    cancel_grace:
        Seconds a stopped executor gets to end before it is left behind.
    load_events:
        All events of a task, for one that is continued; by default none.
    sign:
        Gives the files of a request that lie in Storage a url each; what it raises is a failure of the task.
    context_factory:
        Builds the request context; by default `TodoRequestContext`.
    gate:
        Awaited by `enqueue_event`; returns when there is room for more events.
    clock:
        Wall clock for statuses without a timestamp. Timers use the event loop's own time.
    limits:
        Sizes of events and output.
    auth_hold:
        Seconds an AUTH_REQUIRED is held back while `execute()` may still return with it.

    Example
    -------
    >>> runner = Runner(lambda agent_type: EchoExecutor())
    >>> run = runner.start(todo, events.append)
    >>> outcome = await run.wait()
    """

    def __init__(
        self,
        executor_for: Callable[[str], AgentExecutor],
        *,
        backoff: Callable[[int], float] | None = None,
        default_timeout: float | None = None,
        cancel_grace: float = 10.0,
        load_events: LoadEvents = _no_events,
        sign: Callable[[Todo, SendMessageRequest], Awaitable[None]] | None = None,
        context_factory: ContextFactory = TodoRequestContext,
        gate: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], datetime] = utc_now,
        limits: Limits | None = None,
        auth_hold: float = AUTH_HOLD,
    ) -> None:
        if default_timeout is not None and not default_timeout > 0:
            raise ValueError(f"default_timeout is not a positive number of seconds: {default_timeout!r}")
        if not cancel_grace >= 0:
            raise ValueError(f"cancel_grace is not a number of seconds from 0: {cancel_grace!r}")
        self._settings = RunSettings(
            executor_for=executor_for,
            load_events=load_events,
            sign=sign,
            context_factory=context_factory,
            backoff=backoff or (lambda failures: RETRY_BACKOFF.delay(failures + 1)),
            default_timeout=default_timeout,
            cancel_grace=cancel_grace,
            gate=gate,
            clock=clock,
            limits=limits or Limits(),
            auth_hold=auth_hold,
            abandon=self._abandon,
            note_implicit_task=self._note_implicit_task,
        )
        self._runs: dict[tuple[str, int], TaskRun] = {}
        self._abandoned: set[asyncio.Task[Any]] = set()
        #: Runs per agent type whose updates came without a Task before them: fine here, an error under an a2a
        #: server.
        self.implicit_tasks: Counter[str] = Counter()

    @property
    def runs(self) -> Collection[TaskRun]:
        """Runs that still hold a slot. Those with an `outcome` are only cleaning up."""
        return tuple(self._runs.values())

    @property
    def abandoned(self) -> int:
        """Executors left behind after their grace period that have not ended yet."""
        return len(self._abandoned)

    def find(self, todolist_id: str, attempt: int | None = None) -> TaskRun | None:
        """The run of a task, its newest attempt unless one is named; None when it does not run here."""
        found = [
            run
            for (known, number), run in self._runs.items()
            if known == todolist_id and attempt in (None, number)
        ]
        return max(found, key=lambda run: run.todo.attempt, default=None)

    def start(self, todo: Todo, emit: Callable[[TodoEvent], None]) -> TaskRun:
        """Run a claimed row.

        Parameters
        ----------
        todo:
            The row as `claim_todos` returned it.
        emit:
            Called on this event loop with every event, in order; the last one carries the outcome.
        """
        run = TaskRun(self._settings, todo, emit)
        key = (todo.id, todo.attempt)
        self._runs[key] = run
        run.when_done(lambda _: self._forget(key, run))
        return run

    def _forget(self, key: tuple[str, int], run: TaskRun) -> None:
        if self._runs.get(key) is run:
            del self._runs[key]

    def _note_implicit_task(self, agent_type: str) -> None:
        self.implicit_tasks[agent_type] += 1
        if self.implicit_tasks[agent_type] == 1:
            _logger.info(
                "the executor of %s publishes updates without a Task before them; here the row is the task, "
                "an a2a server would refuse that",
                agent_type,
                extra={"action": "implicit_task"},
            )

    def _abandon(self, task: asyncio.Task[Any], name: str) -> None:
        _logger.warning(
            "%s did not stop within %g s and is left behind: %s",
            name,
            self._settings.cancel_grace,
            task.get_name(),
            extra={"action": "executor_abandoned"},
        )
        # asyncio keeps only weak references to tasks: without this one it could vanish half-way.
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)
        task.cancel()
        # `asyncio.run` cancels and then awaits every registered task when it ends; one that will not stop
        # would keep the process alive for ever. It has been reported above, so it may also go without a word.
        # (Documented, for those who extend asyncio.)
        asyncio._unregister_task(task)  # pyright: ignore[reportPrivateUsage] - see above
        task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue] - see above


def to_observable(runner: Runner, todo: Todo) -> Observable[TodoEvent]:
    """The events of one run as a cold observable; subscribing starts the run.

    ::

        subscribe  ──e──e──e──o|      e: event, o: the one with the outcome
        dispose    ──e──e─┘           the run is stopped and stores nothing more

    Completes when the run's slot is free; errors only if the run itself broke. Subscribe on the event loop.
    """

    def subscribe(
        observer: abc.ObserverBase[TodoEvent], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        run = runner.start(todo, observer.on_next)

        def ended(error: BaseException | None) -> None:
            if error is None:
                observer.on_completed()
            elif isinstance(error, Exception):
                observer.on_error(error)
            else:
                observer.on_error(RuntimeError(f"the run of task {todo.id} broke: {error!r}"))

        run.when_done(ended)

        def dispose() -> None:
            run.lose()
            # A run whose outcome is known cannot be lost, only cut short.
            run.release()

        return Disposable(dispose)

    return reactivex.create(subscribe)
