"""One run of one task: starts the executor, stops it, and sees to it that it ends exactly once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from a2a.server.agent_execution import AgentExecutor, RequestContext

from reactive_worker.errors import InvalidTaskError
from reactive_worker.execution.context import TodoRequestContext
from reactive_worker.execution.conversation import Conversation, bare_conversation, new_conversation
from reactive_worker.execution.event_queue import TodoEventQueue
from reactive_worker.execution.history import has_history, history_of
from reactive_worker.execution.ledger import Stopping
from reactive_worker.execution.outcome import outcome_of_exception
from reactive_worker.execution.processes import Watched
from reactive_worker.execution.run_settings import SILENT, RunSettings, Stop
from reactive_worker.execution.sanitise import describe, place_of
from reactive_worker.execution.steering import Steering, SteerMessage, noted
from reactive_worker.models import EventType, Outcome, Todo, TodoEvent

_logger = logging.getLogger(__name__)

_OURS = frozenset({__name__, Watched.__module__})


class TaskRun:
    """A running task. All methods belong on the event loop it was started on.

    Ends with exactly one event that carries an outcome, or with none after `lose()` and `release()`.
    """

    def __init__(self, settings: RunSettings, todo: Todo, emit: Callable[[TodoEvent], None]) -> None:
        self.todo = todo
        self._settings = settings
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        # Set whenever there is something to look at: the executor ended, or the run is to be stopped.
        self._wake = asyncio.Event()
        # Set when whoever waits for a stopped executor has no more patience.
        self._hurried = asyncio.Event()
        self._stop: Stop | None = None
        self._stopping: Stopping | None = None
        self._queue: TodoEventQueue | None = None
        self._context: RequestContext | None = None
        self._executor: AgentExecutor | None = None
        self._body: asyncio.Task[BaseException | None] | None = None
        self._steering = Steering(noted(self._note))
        self._task = self._loop.create_task(self._drive(), name=f"run {todo.id}#{todo.attempt}")

    @property
    def outcome(self) -> Outcome | None:
        """How the task ended; None while it runs, and for ever after `lose()` and `release()`.

        May be known before `execute()` has returned: COMPLETED is final when it is published. From then on
        the task is no longer one to renew or to lose, only a slot still taken.
        """
        return None if self._queue is None else self._queue.outcome

    @property
    def done(self) -> bool:
        """True when nothing of this run is left to wait for."""
        return self._task.done()

    async def wait(self) -> Outcome | None:
        """Wait until the run is over and its slot free; returns the outcome, None if there is none to report.

        Cancelling the waiter leaves the run alone.
        """
        await asyncio.shield(self._task)
        return self.outcome

    def when_done(self, callback: Callable[[BaseException | None], None]) -> None:
        """Call back on the loop when the run is over; with an exception only if the run itself broke."""

        def ended(task: asyncio.Task[None]) -> None:
            callback(None if task.cancelled() else task.exception())

        self._task.add_done_callback(ended)

    def cancel(self, reason: str | None = None) -> None:
        """Somebody cancelled the task: `executor.cancel()`, then the coroutine is cancelled, then
        `cancelled`.

        Does nothing once the outcome is known.
        """
        self._request("cancel", Stopping("cancel", reason))

    def lose(self) -> None:
        """The lease is lost, the task is another worker's: stop, store nothing more."""
        if self.outcome is None:
            self._request("lost")

    def release(self) -> None:
        """The worker is stopping: stop, store nothing; the caller hands the row back."""
        self._request("released")

    def steer(self, messages: Collection[SteerMessage]) -> None:
        """Hand messages to the executor, or refuse them if it does not listen."""
        if self.outcome is None and self._stop is None:
            self._steering.deliver(messages)

    def refuse(self, message_id: str, why: str) -> None:
        """Say that a message to this run cannot be handed over."""
        if self.outcome is None and self._stop is None:
            self._steering.refuse(message_id, why)

    def hurry(self) -> None:
        """End the grace period of a stopped executor now: what has not ended is left behind."""
        self._hurried.set()

    # -- the run -------------------------------------------------------------------------------------------

    async def _drive(self) -> None:
        try:
            await self._live()
        except asyncio.CancelledError:
            # The loop is being torn down around us: nobody is there any more to store an end.
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the task needs an end
            self._break(error)
        finally:
            self._steering.close()
            # Also when the loop is being torn down around us.
            if self._body is not None and not self._body.done():
                self._body.cancel()

    async def _live(self) -> None:
        if self.todo.unreadable is not None:
            raise InvalidTaskError(f"this row cannot be read: {self.todo.unreadable}")
        conversation = await self._history()
        queue = self._open(conversation)
        if self._stop in SILENT:
            return
        if self.todo.cancel_requested_at is not None:
            self.cancel()
        if self._prepare(queue, conversation):
            if self._stop is None:
                await self._execute(queue)
            if self._stop is not None:
                await self._halt(queue)
            self._conclude(queue)
        if queue.turn.implicit_task:
            self._settings.note_implicit_task(self.todo.agent_type)

    def _break(self, error: BaseException) -> None:
        """What lies between the claim and the executor's first line, and is none of its doing, went wrong.

        It ends this row as an executor's exception would: a run without an end would stay in progress for as
        long as the worker lives. A run that was to be stopped ends as that.
        """
        if self._stop in SILENT:
            return
        if self.outcome is not None:
            # The end itself could not be handed on: that is for whoever watches this run.
            raise error
        queue = self._queue or self._open(bare_conversation(self.todo))
        if self._stopping is not None:
            queue.stopped(self._stopping)
        else:
            self._fail(queue, error)

    async def _history(self) -> Conversation:
        conversation = await self._conversation()
        if self._settings.sign is not None and self._stop is None:
            await self._settings.sign(self.todo, conversation.request)
        return conversation

    async def _conversation(self) -> Conversation:
        if not has_history(self.todo):
            return new_conversation(self.todo)
        loading = self._loop.create_task(
            history_of(self.todo, self._settings.load_events), name=f"history of {self.todo.id}"
        )
        await self._until(loading)
        if loading.done():
            return loading.result()
        # A run that is stopped before it began needs no history.
        loading.cancel()
        return new_conversation(self.todo)

    def _open(self, conversation: Conversation) -> TodoEventQueue:
        settings = self._settings
        queue = self._queue = TodoEventQueue(
            self.todo,
            self._emit,
            settings.gate,
            conversation=conversation,
            limits=settings.limits,
            clock=settings.clock,
            auth_hold=settings.auth_hold,
        )
        if self._stopping is not None:
            queue.stopping(self._stopping)
        ledger = queue.turn.ledger
        ledger.before_end = lambda outcome: self._steering.conclude(outcome.kind, noted(ledger.note))
        return queue

    def _prepare(self, queue: TodoEventQueue, conversation: Conversation) -> bool:
        """Get executor and context; False when that failed, which is a failure of the task."""
        try:
            self._executor = self._settings.executor_for(self.todo.agent_type)
            self._context = self._settings.context_factory(
                self.todo,
                task=conversation.current_task,
                request=conversation.request,
                reason=conversation.reason,
            )
        except BaseException as error:  # noqa: BLE001 - the user's own code, whatever it raises
            self._fail(queue, error)
            return False
        self._tell_exactly(self._context, conversation)
        if isinstance(self._context, TodoRequestContext):
            self._context.attach(self._steering)
        if self._stop is not None:
            self._tell_threads()
        return True

    async def _execute(self, queue: TodoEventQueue) -> None:
        executor, context = self._parts()
        self._body = self._spawn(lambda: executor.execute(context, queue), "execute")
        timeout = self.todo.timeout_seconds or self._settings.default_timeout
        timer = None
        if timeout:
            text = f"execute() did not end within {timeout:g} s"
            timer = self._loop.call_later(timeout, self._request, "timeout", Stopping("timeout", text))
        try:
            await self._until(self._body)
        finally:
            if timer is not None:
                timer.cancel()

    async def _halt(self, queue: TodoEventQueue) -> None:
        """Stop the executor: ask it, cancel it, wait for it within the grace period, leave it behind."""
        executor, context = self._parts()
        grace = self._settings.cancel_grace
        deadline = self._loop.time() + grace
        tasks: list[asyncio.Task[BaseException | None]] = [] if self._body is None else [self._body]
        if self._stopping is not None and self._stop not in SILENT and queue.outcome is None:
            asking = self._spawn(lambda: self._ask(executor, context, queue), "cancel")
            # Half of the grace for being asked, so that a cancel() that hangs leaves execute() time to clean
            # up.
            await self._patiently([asking], grace / 2)
            tasks.append(asking)
        if self._body is not None:
            self._body.cancel()
        await self._patiently(tasks, deadline - self._loop.time())
        for task in tasks:
            if not task.done():
                self._settings.abandon(task, self._name)
            elif task is not self._body and (error := task.result()) is not None:
                _logger.error(
                    "cancel() of %s raised %s: %s; task %s is stopped all the same",
                    self._name,
                    type(error).__name__,
                    describe(error),
                    self.todo.id,
                    extra=self._extra("cancel_failed"),
                )

    async def _ask(self, executor: AgentExecutor, context: RequestContext, queue: TodoEventQueue) -> None:
        snapshot = queue.snapshot()
        if not isinstance(context, TodoRequestContext):
            context = TodoRequestContext(self.todo, task=snapshot)
        await executor.cancel(context.for_cancel(snapshot), queue)

    def _conclude(self, queue: TodoEventQueue) -> None:
        if self._stopping is not None:
            queue.stopped(self._stopping)
        if self._stop is not None or self._body is None:
            return
        error = self._body.result()
        if error is None:
            queue.returned()
        elif queue.outcome is None:
            self._fail(queue, error)
        else:
            _logger.warning(
                "task %s had ended (%s) when %s raised %s: %s",
                self.todo.id,
                queue.outcome.kind,
                self._name,
                type(error).__name__,
                describe(error),
                extra=self._extra("raised_after_end"),
            )

    def _fail(self, queue: TodoEventQueue, error: BaseException) -> None:
        settings = self._settings
        outcome = outcome_of_exception(error, self.todo, settings.backoff, settings.clock())
        record = outcome.error or {}
        # Asked for by the executor, and counted by nobody: that is no failure.
        later = outcome.kind == "retry" and not outcome.counts_as_failure
        _logger.log(
            logging.INFO if later else logging.ERROR,
            "task %s (%s, attempt %d) %s: %s: %s%s",
            self.todo.id,
            self.todo.agent_type,
            self.todo.attempt,
            "will run again" if later else "failed",
            record.get("type"),
            record.get("message"),
            "" if later or not (place := place_of(error)) else f" ({place})",
            extra=self._extra("task_failed"),
        )
        _logger.debug("%s", record.get("traceback"), extra=self._extra("task_failed"))
        queue.raised(outcome)

    # -- small parts ---------------------------------------------------------------------------------------

    def _request(self, stop: Stop, stopping: Stopping | None = None) -> None:
        if self._task.done():
            return
        if stopping is not None:
            # Too late when another stop came first or the executor has ended; its word stands.
            if self._stop is not None or (self._body is not None and self._body.done()):
                return
            if stop == "cancel" and self.outcome is not None:
                return
            self._stopping = stopping
        self._stop = stop
        if self._queue is not None:
            if stopping is not None:
                self._queue.stopping(stopping)
            else:
                self._queue.lose(
                    "The lease of this task is lost; it is another worker's now."
                    if stop == "lost"
                    else "This worker is stopping and hands the task back."
                )
        self._tell_threads()
        self._wake.set()

    def _note(self, event_type: EventType, data: Mapping[str, Any], text: str | None) -> None:
        if self._queue is not None:
            self._queue.note(event_type, data, text)

    @staticmethod
    def _tell_exactly(context: RequestContext, conversation: Conversation) -> None:
        state = context.call_context.state
        state["task_metadata"] = dict(conversation.fold.metadata)
        state["data_parts"] = conversation.data

    def _tell_threads(self) -> None:
        if isinstance(self._context, TodoRequestContext):
            self._context.request_stop()

    async def _until(self, task: asyncio.Task[Any]) -> None:
        """Wait for a task or for a stop, whichever comes first."""
        task.add_done_callback(lambda _: self._wake.set())
        while not task.done() and self._stop is None:
            self._wake.clear()
            await self._wake.wait()

    async def _patiently(self, tasks: Collection[asyncio.Task[BaseException | None]], timeout: float) -> None:
        """Wait for all `tasks`, `timeout` s at most and no longer than until `hurry`."""
        deadline = self._loop.time() + timeout
        hurried = self._loop.create_task(self._hurried.wait())
        try:
            while (running := [task for task in tasks if not task.done()]) and not hurried.done():
                left = deadline - self._loop.time()
                if left <= 0:
                    return
                await asyncio.wait([*running, hurried], timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurried.cancel()

    def _spawn(self, call: Callable[[], Awaitable[None]], what: str) -> asyncio.Task[BaseException | None]:
        return self._loop.create_task(_caught(call), name=f"{what} {self.todo.id}#{self.todo.attempt}")

    def _parts(self) -> tuple[AgentExecutor, RequestContext]:
        if self._executor is None or self._context is None:
            raise RuntimeError("the run was not prepared")
        return self._executor, self._context

    @property
    def _name(self) -> str:
        return f"{type(self._executor).__qualname__} ({self.todo.agent_type})"

    def _extra(self, action: str) -> dict[str, Any]:
        return {"action": action, "todolist_id": self.todo.id, "attempt": self.todo.attempt}


async def _caught(call: Callable[[], Awaitable[None]]) -> BaseException | None:
    """Run the user's code and return what it raised.

    As a value, because a task that ends with SystemExit or KeyboardInterrupt takes the whole event loop with
    it, and because a task nobody waits for any more must not log that its exception was never retrieved.
    """
    try:
        await Watched(call())
    except BaseException as error:  # noqa: BLE001
        # The first frames are this function and the watch; what is recorded begins with the user's code.
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals.get("__name__") in _OURS:
            trace = trace.tb_next
        return error.with_traceback(trace)
    return None
