"""The heartbeat thread: keeps the worker's lease while executors block the event loop.

An executor that computes for twenty seconds blocks the loop; a heartbeat that shared it would let the lease
run out and the task would run twice. So the heartbeat has a thread and a connection of its own. The other
side of that coin: a worker whose loop never comes back would hold its tasks for ever. So the thread watches
the loop, logs where it is stuck, and past a limit lets the lease go.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import httpx

from reactive_worker.access.credentials import Credentials
from reactive_worker.access.redaction import redact
from reactive_worker.errors import ConfigurationError
from reactive_worker.models import parse_time
from reactive_worker.store.translate import expired_text

logger = logging.getLogger(__name__)

#: Seconds between looks at the event loop, and how long it may be silent before its stack is logged.
WATCH_INTERVAL = 1.0
STALL_NOTICE = 2.0


@dataclass(frozen=True, slots=True)
class HeartbeatAnswer:
    """What a heartbeat learned; handled in the event loop."""

    #: False: the worker is not known any more, all its tasks are others' now.
    known: bool
    cancel: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    #: ``(id, attempt)`` of rows the database says are ours and that were not in flight when asked.
    stray: tuple[tuple[str, int], ...] = ()
    #: When the lease of some other worker ends, database time; None when there is no other.
    next_lease_end: datetime | None = None
    #: The database's time when it answered.
    now: datetime | None = None
    desired_state: str = "running"
    #: When the mailbox was last touched, as far as this answer knows.
    signal_at: datetime | None = None
    #: Tasks to which messages wait to be read.
    steer: tuple[str, ...] = ()


class LeaseKeeper:
    """Renews one worker's lease from a thread.

    Parameters
    ----------
    url, key:
        Project URL and worker key.
    worker_id:
        The registered worker.
    lease, heartbeat:
        Seconds the lease lasts, and seconds between renewals.
    stall_limit:
        Seconds the event loop may be blocked before the lease is let go; 0 = for ever.
    in_flight:
        Called from the thread: the ``(id, attempt)`` of every task held now.
    on_answer:
        Called in the event loop with what each heartbeat learned.
    on_stall:
        Called from the thread with the seconds the loop has been stuck, once per stall.
    """

    def __init__(
        self,
        url: str,
        key: str | Credentials,
        worker_id: str,
        *,
        lease: float,
        heartbeat: float,
        stall_limit: float,
        in_flight: Callable[[], Sequence[tuple[str, int]]],
        on_answer: Callable[[HeartbeatAnswer], None],
        info: Callable[[], Mapping[str, Any]] = dict,
        on_stall: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._project = url.rstrip("/")
        self._url = f"{url.rstrip('/')}/rest/v1/rpc/heartbeat_worker"
        self._credentials = Credentials.of(key)
        self._worker_id = worker_id
        self._lease = lease
        self._heartbeat = heartbeat
        self._stall_limit = stall_limit
        self._in_flight = in_flight
        self._on_answer = on_answer
        self._info = info
        self._on_stall = on_stall
        self._ended = asyncio.Event()
        self._stop = threading.Event()
        self._now = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        # When the tick was sent that the loop has not answered yet; None when all are answered.
        self._unanswered_since: float | None = None
        self._stalled = False
        self._let_go = False
        #: What ended the thread, if it died.
        self.error: BaseException | None = None

    @property
    def is_alive(self) -> bool:
        """True while the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; call it in the event loop."""
        self._loop = asyncio.get_running_loop()
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
        if self._thread is not None:
            # At most one request away. Not join(), which would block the loop, nor asyncio's own thread
            # pool, which may be full of blocking executors.
            await self._ended.wait()

    def _run(self) -> None:
        try:
            timeout = max(1.0, self._lease / 3)
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
                        due = time.monotonic() + (self._beat(http) if may_renew else self._heartbeat)
        except BaseException as error:
            # The worker looks at `error` and stops loudly: a dead heartbeat must never look healthy.
            self.error = error
            logger.exception("the heartbeat thread died")
        finally:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._ended.set)

    def _beat(self, http: httpx.Client) -> float:
        """One heartbeat; returns seconds until the next."""
        body = {
            "p_worker_id": self._worker_id,
            "p_lease_seconds": self._lease,
            "p_in_flight": [{"id": id, "attempt": attempt} for id, attempt in self._in_flight()],
            "p_info": dict(self._info()),
        }
        # A missed heartbeat is tried again soon: after an outage every worker must have renewed its
        # lease before any other may call it dead.
        retry = min(1.0, self._heartbeat / 2) * random.uniform(0.5, 1.0)
        try:
            answer = http.post(self._url, json=body, headers=self._credentials.headers())
        except (httpx.HTTPError, ConfigurationError) as error:
            logger.warning("heartbeat not delivered: %s", redact(str(error)) or type(error).__name__)
            return retry
        if answer.status_code != 200:
            self._refused(answer)
            return retry
        data = cast("dict[str, Any]", answer.json())
        self._tell(
            HeartbeatAnswer(
                known=bool(data["known"]),
                cancel=tuple(_id(run) for run in data.get("cancel") or ()),
                lost=tuple(_id(run) for run in data.get("lost") or ()),
                stray=tuple((str(row["id"]), int(row["attempt"])) for row in data.get("stray") or ()),
                next_lease_end=_time(data.get("next_lease_end")),
                now=_time(data.get("now")),
                desired_state=str(data.get("desired_state") or "running"),
                signal_at=_time(data.get("signal_at")),
                steer=tuple(_id(run) for run in data.get("steer") or ()),
            )
        )
        return self._heartbeat

    def _refused(self, answer: httpx.Response) -> None:
        text = redact(answer.text[:300])
        if answer.status_code == 401 and "expired" in text.lower():
            logger.error("heartbeat refused: %s", expired_text(self._project, text, self._credentials))
        else:
            logger.warning("heartbeat refused: HTTP %d %s", answer.status_code, text)

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
            logger.warning(
                "the event loop has been blocked for %.1f s; something in an executor does not await:\n%s",
                silent,
                self._loop_stack(),
            )
            self._on_stall(silent)
        if not self._stall_limit or silent <= self._stall_limit:
            return True
        if not self._let_go:
            self._let_go = True
            logger.error(
                "the event loop has been blocked for %.0f s, past the limit of %.0f s: letting the lease go, "
                "other workers take over",
                silent,
                self._stall_limit,
            )
        return False

    def _tell(self, answer: HeartbeatAnswer | None) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(self._in_loop, answer)

    def _in_loop(self, answer: HeartbeatAnswer | None) -> None:
        self._unanswered_since = None
        if answer is not None:
            self._on_answer(answer)

    def _loop_stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)  # pyright: ignore[reportPrivateUsage] - the only way to see another thread's stack
        return "".join(traceback.format_stack(frame)[-12:]) if frame is not None else "(no stack)"


def _id(run: Mapping[str, Any] | str) -> str:
    """The task of a run, {"id", "attempt"}; an id alone from a database with older functions."""
    return run if isinstance(run, str) else str(run["id"])


def _time(value: object) -> datetime | None:
    return None if value is None else parse_time(value, "a time of the database")
