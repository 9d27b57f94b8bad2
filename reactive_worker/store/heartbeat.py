"""The heartbeat thread: keeps the worker's lease while executors block the event loop.

An executor that computes for twenty seconds blocks the loop; a heartbeat that shared it would let the lease
run out and the task would run twice. So the heartbeat has a thread and a connection of its own. The other
side of that coin: a worker whose loop never comes back would hold its tasks for ever. So the thread watches
the loop, logs where it is stuck, and past a limit lets the lease go.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import httpx
from reactivex.subject import Subject

from reactive_worker.access.credentials import Credentials
from reactive_worker.access.redaction import redact
from reactive_worker.errors import ConfigurationError, InvalidTaskError
from reactive_worker.models import parse_time
from reactive_worker.store.telemetry import (
    Emit,
    HeartbeatDied,
    HeartbeatMissed,
    HeartbeatRefused,
    LeaseLetGo,
    LoopStalled,
    TelemetryEvent,
)
from reactive_worker.store.translate import expired_text

#: Seconds between looks at the event loop, and how long it may be silent before its stack is logged.
WATCH_INTERVAL = 1.0
STALL_NOTICE = 2.0

#: One run: the id of a task, and its attempt.
RunKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds a lease lasts, between renewals, and of a blocked event loop until it is let go (0: never)."""

    lease: float
    heartbeat: float
    stall_limit: float


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says of itself with each heartbeat."""

    in_flight: Sequence[RunKey] = ()
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class HeartbeatAnswer:
    """What a heartbeat learned; handled in the event loop."""

    #: False: the worker is not known any more, all its tasks are others' now.
    known: bool
    cancel: tuple[RunKey, ...] = ()
    lost: tuple[RunKey, ...] = ()
    #: Rows the database says are ours and that were not in flight when asked.
    stray: tuple[RunKey, ...] = ()
    #: When the lease of some other worker ends, database time; None when there is no other.
    next_lease_end: datetime | None = None
    #: The database's time when it answered.
    now: datetime | None = None
    desired_state: str = "running"
    #: When the mailbox was last touched, as far as this answer knows.
    signal_at: datetime | None = None
    #: Runs to which messages wait to be read.
    steer: tuple[RunKey, ...] = ()


def read_answer(data: Any, in_flight: Sequence[RunKey]) -> HeartbeatAnswer:
    """Read what `heartbeat_worker` answered to a report of these runs.

    An id alone says nothing about a run: it may have ended, and run again, while the answer was on its way.
    So ids are read as the attempts that were reported.

    Raises
    ------
    ValueError, TypeError, KeyError, InvalidTaskError
        It is no such answer.

    Example
    -------
    >>> read_answer({"known": True, "lost": ["a"]}, [("a", 2), ("b", 1)]).lost
    (('a', 2),)
    """
    if not isinstance(data, dict) or not isinstance(data.get("known"), bool):  # pyright: ignore[reportUnknownMemberType] - foreign data
        raise ValueError("no answer of heartbeat_worker")
    told = cast("dict[str, Any]", data)
    attempts: dict[str, list[int]] = {}
    for id, attempt in in_flight:
        attempts.setdefault(id, []).append(attempt)

    def runs(name: str) -> tuple[RunKey, ...]:
        found: list[RunKey] = []
        for one in cast("Iterable[Any]", told.get(name) or ()):
            if isinstance(one, str):
                found.extend((one, attempt) for attempt in attempts.get(one, ()))
            else:
                found.append((str(one["id"]), int(one["attempt"])))
        return tuple(found)

    return HeartbeatAnswer(
        known=told["known"],
        cancel=runs("cancel"),
        lost=runs("lost"),
        stray=runs("stray"),
        next_lease_end=_time(told.get("next_lease_end")),
        now=_time(told.get("now")),
        desired_state=str(told.get("desired_state") or "running"),
        signal_at=_time(told.get("signal_at")),
        steer=runs("steer"),
    )


class Heartbeat:
    """Renews one worker's lease from a thread: a duty whose turn is one heartbeat.

    Parameters
    ----------
    url, credentials:
        Project URL, and what the worker identifies itself with.
    worker_id:
        The registered worker.
    pace:
        Seconds: the lease, between renewals, and how long the event loop may be blocked.
    report:
        Called from the thread: what is in flight now, and what `workers list` shows.
    emit:
        Where telemetry goes; called from the thread.

    Attributes
    ----------
    answers:
        What each heartbeat learned; hot, in the event loop.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        worker_id: str,
        pace: Pace,
        report: Callable[[], Report],
        emit: Emit,
    ) -> None:
        self._project = url.rstrip("/")
        self._url = f"{self._project}/rest/v1/rpc/heartbeat_worker"
        self._credentials = credentials
        self._worker_id = worker_id
        self._pace = pace
        self._report = report
        self._emit = emit
        self.answers: Subject[HeartbeatAnswer] = Subject()
        self._stop = threading.Event()
        self._now = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        # When the tick was sent that the loop has not answered yet; None when all are answered.
        self._unanswered_since: float | None = None
        self._stalled = False
        self._let_go = False
        # Said once, and not again until a heartbeat is answered: an outage is one event.
        self._reported: TelemetryEvent | None = None
        self._ended: asyncio.Future[None] | None = None

    @property
    def ended(self) -> asyncio.Future[None]:
        """Done when the thread has ended, with what it died of."""
        if self._ended is None:
            raise RuntimeError("the heartbeat was not started")
        return self._ended

    async def start(self) -> None:
        """Start the thread; the first heartbeat is sent at once."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._loop_thread = threading.get_ident()
        # A daemon: a worker that is killed by an exception elsewhere must not hang in its heartbeat.
        self._thread = threading.Thread(target=self._run, name="reactive-worker-lease", daemon=True)
        self._thread.start()

    def beat_now(self) -> None:
        """Ask for a heartbeat at once (the mailbox said there is something to ask about)."""
        self._now.set()

    async def stop(self) -> None:
        """End the thread and wait for it; the lease is left to `unregister_worker`."""
        self._stop.set()
        self._now.set()
        if self._ended is not None:
            # At most one request away. Not join(), which would block the loop, nor asyncio's own thread
            # pool, which may be full of blocking executors.
            await asyncio.wait([self._ended])
            if not self._ended.cancelled():
                self._ended.exception()  # told by whoever watches `ended`

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            timeout = max(1.0, self._pace.lease / 3)
            with httpx.Client(timeout=timeout) as http:
                # The first one at once: it also tells whose lease ends next.
                due = time.monotonic()
                while True:
                    asked = self._now.wait(min(WATCH_INTERVAL, max(0.0, due - time.monotonic())))
                    self._now.clear()
                    if self._stop.is_set():
                        return
                    may_renew = self._watch_loop()
                    if asked or time.monotonic() >= due:
                        pause = self.turn(http) if may_renew else self._pace.heartbeat
                        due = time.monotonic() + pause
        except BaseException as problem:  # noqa: BLE001 - a dead heartbeat must never look healthy
            error = problem
            self._emit(HeartbeatDied(f"{type(problem).__name__}: {redact(str(problem))}"))
        finally:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: BaseException | None) -> None:
        if self._ended is None or self._ended.done():
            return
        if error is None:
            self._ended.set_result(None)
        elif isinstance(error, Exception):
            self._ended.set_exception(error)
        else:
            self._ended.set_exception(RuntimeError(f"the heartbeat thread ended: {error!r}"))

    def turn(self, http: httpx.Client) -> float:
        """Send one heartbeat; returns seconds until the next."""
        report = self._report()
        body = {
            "p_worker_id": self._worker_id,
            "p_lease_seconds": self._pace.lease,
            "p_in_flight": [{"id": id, "attempt": attempt} for id, attempt in report.in_flight],
            "p_info": dict(report.info),
        }
        # A missed heartbeat is tried again soon: after an outage every worker must have renewed its
        # lease before any other may call it dead.
        retry = min(1.0, self._pace.heartbeat / 2) * random.uniform(0.5, 1.0)
        try:
            answer = http.post(self._url, json=body, headers=self._credentials.headers())
            if not answer.is_success:
                self._say(HeartbeatRefused(self._refusal(answer)))
                return retry
            # A gateway's page, a cut body: whatever is no answer of the function says nothing of the lease.
            learned = read_answer(answer.json(), report.in_flight)
        except (httpx.HTTPError, ConfigurationError) as error:
            self._say(HeartbeatMissed(redact(str(error)) or type(error).__name__))
            return retry
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, InvalidTaskError) as error:
            what = f"{type(error).__name__}: {redact(str(error))}"
            self._say(HeartbeatMissed(f"something else answered ({what})"))
            return retry
        self._reported = None
        self._tell(learned)
        return self._pace.heartbeat

    def _say(self, event: TelemetryEvent) -> None:
        if type(event) is not type(self._reported):
            self._emit(event)
        self._reported = event

    def _refusal(self, answer: httpx.Response) -> str:
        text = redact(answer.text[:300])
        if answer.status_code == 401 and "expired" in text.lower():
            return expired_text(self._project, text, self._credentials)
        return f"HTTP {answer.status_code} {text}"

    def _watch_loop(self) -> bool:
        """Look whether the event loop answers; False when it has not for longer than the limit."""
        now = time.monotonic()
        if self._unanswered_since is None:
            self._stalled = self._let_go = False
            self._unanswered_since = now
            self._tell(None)
            return True
        silent = now - self._unanswered_since
        if silent > STALL_NOTICE and not self._stalled:
            self._stalled = True
            self._emit(LoopStalled(silent, self._loop_stack()))
        limit = self._pace.stall_limit
        if not limit or silent <= limit:
            return True
        if not self._let_go:
            self._let_go = True
            self._emit(LeaseLetGo(silent, limit))
        return False

    def _tell(self, answer: HeartbeatAnswer | None) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(self._in_loop, answer)

    def _in_loop(self, answer: HeartbeatAnswer | None) -> None:
        self._unanswered_since = None
        if answer is not None:
            self.answers.on_next(answer)

    def _loop_stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)  # pyright: ignore[reportPrivateUsage] - the only way to see another thread's stack
        return "".join(traceback.format_stack(frame)[-12:]) if frame is not None else "(no stack)"


def _time(value: object) -> datetime | None:
    return None if value is None else parse_time(value, "a time of the database")
