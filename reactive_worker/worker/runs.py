"""The runs of one worker: started by the stream, stopped by news of the lease."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import reactivex
from a2a.server.agent_execution import AgentExecutor
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import SerialDisposable

from reactive_worker.execution.context import ContextFactory, TodoRequestContext
from reactive_worker.execution.run import TaskRun
from reactive_worker.execution.runner import Runner, to_observable
from reactive_worker.models import Todo, TodoEvent
from reactive_worker.store.heartbeat import RunKey
from reactive_worker.worker.held import Held
from reactive_worker.worker.telemetry import RunEnded, TaskLost, Telemetry

ExecutorFor = Callable[[str], AgentExecutor]
RunTask = Callable[[Todo], Observable[TodoEvent]]


class Runs:
    """Runs claimed rows, and knows which run is which.

    Parameters
    ----------
    make_runner:
        Makes the runner of these executors.
    held:
        Learns which executor has ended.
    telemetry:
        Told of runs that ended or were lost.
    """

    def __init__(
        self,
        make_runner: Callable[[ExecutorFor, ContextFactory], Runner],
        held: Held,
        telemetry: Telemetry,
    ) -> None:
        self._make_runner = make_runner
        self._held = held
        self._telemetry = telemetry
        self._runners: list[Runner] = []

    def run(
        self, executors: AgentExecutor | Mapping[str, AgentExecutor], context_factory: ContextFactory | None
    ) -> RunTask:
        """What runs a claimed row with these executors, as `streams.dispatch` takes it."""

        def executor_for(agent_type: str) -> AgentExecutor:
            return executors[agent_type] if isinstance(executors, Mapping) else executors

        runner = self._make_runner(executor_for, context_factory or TodoRequestContext)
        self._runners.append(runner)
        return lambda todo: self._observe(runner, todo)

    @property
    def active(self) -> Sequence[TaskRun]:
        """Runs that still hold a slot."""
        return [run for runner in self._runners for run in runner.runs]

    def find(self, id: str, attempt: int) -> TaskRun | None:
        """The run of this attempt; None when it does not run here."""
        return next((found for one in self._runners if (found := one.find(id, attempt)) is not None), None)

    def cancel(self, runs: Iterable[RunKey]) -> None:
        """Somebody asked for these to be cancelled."""
        for id, attempt in runs:
            run = self.find(id, attempt)
            if run is not None:
                run.cancel("cancelled by request")

    def lose(self, runs: Collection[RunKey]) -> None:
        """These are another worker's now, or nobody's: stop them, store nothing more."""
        for todo in self._held.lose(runs):
            run = self.find(todo.id, todo.attempt)
            if run is not None:
                run.lose()
            self._telemetry.emit(TaskLost(todo.id, todo.attempt))

    def _observe(self, runner: Runner, todo: Todo) -> Observable[TodoEvent]:
        began = time.monotonic()

        def noted(event: TodoEvent) -> None:
            if event.outcome is None:
                return
            held = self._held.get(event.todolist_id, event.attempt)
            if held is not None:
                held.ended = True
            seconds = round(time.monotonic() - began, 3)
            self._telemetry.emit(
                RunEnded(todo.id, todo.attempt, todo.agent_type, event.outcome.kind, seconds)
            )

        return self._after_earlier(todo, to_observable(runner, todo)).pipe(ops.do_action(noted))

    def _after_earlier(self, todo: Todo, events: Observable[TodoEvent]) -> Observable[TodoEvent]:
        """Once no earlier attempt of the same row runs here any more.

        A running row that somebody set back to pending by hand may come back to the worker that runs it: the
        earlier run is lost, for the fence refuses it, and must have ended before the next begins.
        """

        def subscribe(
            observer: abc.ObserverBase[TodoEvent], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            earlier = [run for run in self.active if run.todo.id == todo.id]
            if not earlier:
                return events.subscribe(observer, scheduler=scheduler)
            self.lose([(run.todo.id, run.todo.attempt) for run in earlier])
            running = SerialDisposable()
            waiting = len(earlier)

            def ended(_: BaseException | None) -> None:
                nonlocal waiting
                waiting -= 1
                if not waiting and not running.is_disposed:
                    running.disposable = events.subscribe(observer, scheduler=scheduler)

            for run in earlier:
                run.when_done(ended)
            return running

        return reactivex.create(subscribe)
