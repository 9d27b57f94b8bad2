"""The event queue an executor gets: a real a2a EventQueue whose events leave as rows of `events`."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from a2a.server.events import EventQueue
from a2a.types import Task

from reactive_worker.errors import LeaseLostError
from reactive_worker.execution.conversation import Conversation, new_conversation
from reactive_worker.execution.ledger import Stopping
from reactive_worker.execution.turn import Limits, Turn
from reactive_worker.execution.wire import Event
from reactive_worker.models import EventType, Outcome, Todo, TodoEvent

# An executor that publishes in a tight loop never lets anything else run, because recording does not wait.
# Letting go of the loop now and then costs nothing and keeps the sink's 20 ms timer honest.
_YIELD_EVERY = 32

#: Seconds an AUTH_REQUIRED is held back: an executor that parks returns in the same breath, one that waits
#: for the login to happen elsewhere must be seen by then.
AUTH_HOLD = 0.1


def utc_now() -> datetime:
    return datetime.now(UTC)


class TodoEventQueue(EventQueue):
    """Takes an executor's events: checked, serialised and recorded in the call, in the order of the calls.

    May be called from several coroutines and from any thread.

    Parameters
    ----------
    todo:
        The claimed row.
    emit:
        Called with every TodoEvent, in order, on the event loop this queue was made on.
    gate:
        Awaited by those who await `enqueue_event`; returns when there is room. None: there always is.
    conversation:
        What the run starts from; by default a new task.
    limits:
        Sizes of events and output.
    clock:
        Wall clock for statuses without a timestamp.
    auth_hold:
        Seconds to hold an AUTH_REQUIRED back while it is open whether `execute()` returns with it.
    """

    def __init__(
        self,
        todo: Todo,
        emit: Callable[[TodoEvent], None],
        gate: Callable[[], Awaitable[None]] | None = None,
        *,
        conversation: Conversation | None = None,
        limits: Limits | None = None,
        clock: Callable[[], datetime] = utc_now,
        auth_hold: float = AUTH_HOLD,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._emit = emit
        self._gate = gate
        self._auth_hold = auth_hold
        self._auth_timer: asyncio.TimerHandle | None = None
        # Held while an event is checked and put in line: call order is event order, whoever calls.
        self._lock = threading.Lock()
        self._pending: deque[TodoEvent] = deque()
        self._lost: str | None = None
        self._published = 0
        self.turn = Turn(
            todo,
            conversation or new_conversation(todo),
            self._pending.append,
            now=clock,
            limits=limits or Limits(),
        )

    def enqueue_event(  # pyright: ignore[reportIncompatibleMethodOverride] - a coroutine to every caller
        self, event: Event
    ) -> Coroutine[Any, Any, None]:
        """Record an event at once; await the result to wait while there is no room.

        A plain method on purpose: executors written for early SDK versions call it without `await`, and a
        coroutine would lose their events.

        Raises
        ------
        LeaseLostError
            The task is another worker's now; nothing of this run is stored any more.
        EventRefusedError
            This event cannot be stored (a ValueError: too large, NaN, no state, no artifact id).
        InvalidAgentResponseError, InvalidParamsError
            The executor broke the A2A protocol; the task has failed.
        """
        try:
            with self._lock:
                self._raise_if_lost()
                self.turn.publish(event)
        finally:
            # Also after an error: a broken protocol is recorded as the end of the run.
            self._deliver()
        return _Recorded(self._room)

    # -- for the runner: on the loop's thread --------------------------------------------------------------

    @property
    def outcome(self) -> Outcome | None:
        """How the run ended; None while it goes on."""
        return self.turn.outcome

    def snapshot(self) -> Task:
        """The Task as this run has made it so far."""
        with self._lock:
            return self.turn.ledger.fold.snapshot()

    def stopping(self, stopping: Stopping) -> None:
        """The run is being stopped: from now on FAILED and CANCELED mean the stop."""
        with self._lock:
            self.turn.ledger.stopping = stopping

    def note(self, event_type: EventType, data: Mapping[str, Any], text: str | None) -> None:
        """Record an event of the worker's own; nothing once the run has ended or is lost."""
        with self._lock:
            if self._lost is None:
                self.turn.ledger.note(event_type, data, text)
        self._drain()

    def returned(self) -> None:
        """`execute()` returned."""
        self._conclude(self.turn.returned)

    def raised(self, outcome: Outcome) -> None:
        """`execute()` raised, which means `outcome`."""
        self._conclude(lambda: self.turn.raised(outcome))

    def stopped(self, stopping: Stopping) -> None:
        """The run was stopped by a cancel or a time-out."""
        self._conclude(lambda: self.turn.stopped(stopping))

    def lose(self, why: str) -> None:
        """Store nothing more; whoever publishes gets a LeaseLostError."""
        with self._lock:
            if self.turn.outcome is None and self._lost is None:
                self._lost = why
                self._pending.clear()
        self._cancel_timer()

    def _conclude(self, end: Callable[[], None]) -> None:
        with self._lock:
            if self._lost is None:
                end()
        self._cancel_timer()
        self._drain()

    # -- delivery ------------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        if threading.get_ident() == self._thread:
            self._drain()
            return
        try:
            self._loop.call_soon_threadsafe(self._drain)
        except RuntimeError as closed:
            raise LeaseLostError(
                "The worker has stopped; nothing of this run is stored any more."
            ) from closed

    def _drain(self) -> None:
        # Only ever on the loop's thread. An event from another thread may be taken along here, before its own
        # callback runs; the order in the line is what counts.
        while self._pending:
            try:
                event = self._pending.popleft()
            except IndexError:  # lose() in between
                return
            self._emit(event)
        if self.turn.ledger.waits_in_public and self._auth_timer is None:
            self._auth_timer = self._loop.call_later(self._auth_hold, self._show_parked)

    def _show_parked(self) -> None:
        self._auth_timer = None
        with self._lock:
            if self._lost is None and self.turn.ledger.waits_in_public:
                self.turn.ledger.flush()
        self._drain()

    def _cancel_timer(self) -> None:
        if self._auth_timer is not None:
            self._auth_timer.cancel()
            self._auth_timer = None

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise LeaseLostError(self._lost)

    async def _room(self) -> None:
        if threading.get_ident() == self._thread:
            self._published += 1
            if self._published % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
            if self._gate is not None:
                await self._gate()
        elif self._gate is not None:
            # A thread with an event loop of its own: the gate belongs to ours.
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_awaited(self._gate), self._loop))
        self._raise_if_lost()


async def _awaited(gate: Callable[[], Awaitable[None]]) -> None:
    await gate()


class _Recorded(Coroutine[Any, Any, None]):
    """What `enqueue_event` returns: a coroutine to those who want one, and no warning if nobody does.

    `create_task` and `run_coroutine_threadsafe` insist on a coroutine; a real one would warn that it was
    never awaited. This one makes the real one on first use.
    """

    __slots__ = ("_inner", "_wait")

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._wait = wait
        self._inner: Coroutine[Any, Any, None] | None = None

    def _started(self) -> Coroutine[Any, Any, None]:
        if self._inner is None:
            self._inner = self._wait()
        return self._inner

    def __await__(self) -> Generator[Any, Any, None]:
        return self._started().__await__()

    def send(self, value: Any, /) -> Any:
        return self._started().send(value)

    def throw(
        self,
        typ: BaseException | type[BaseException],
        val: object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any:
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        return self._started().throw(error if tb is None else error.with_traceback(tb))

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()
