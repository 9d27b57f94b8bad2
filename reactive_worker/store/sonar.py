"""The sonar: the worker writes a probe and must hear it back the way it hears new rows.

A socket can look alive while nothing arrives through it (a dropped publication, a dead poller, a rate limit:
the real server tells nobody). Only an echo proves that push works.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import datetime

from reactive_worker.errors import ReactiveWorkerError
from reactive_worker.models import PushState, parse_time
from reactive_worker.store.realtime import RealtimeLink

logger = logging.getLogger(__name__)

#: Seconds to wait for an echo. The real server answers within 0.6 s; a loaded one within a few seconds.
ECHO_TIMEOUT = 10.0


class Sonar:
    """Probes the push channel each `interval` seconds, and sooner when in doubt.

    Parameters
    ----------
    link:
        The subscription that must hear the worker's own `worker_mailbox` row.
    touch:
        Writes the probe; returns what the echo will carry as `probe_at`.
    interval:
        Seconds between probes while all is well; jittered by a tenth.
    echo_timeout:
        Seconds after which a missing echo means deaf.
    """

    def __init__(
        self,
        link: RealtimeLink,
        touch: Callable[[], Awaitable[str]],
        *,
        interval: float = 60.0,
        echo_timeout: float = ECHO_TIMEOUT,
    ) -> None:
        self._link = link
        self._touch = touch
        self._interval = interval
        self._echo_timeout = echo_timeout
        self._wanted = asyncio.Event()
        self._heard = asyncio.Event()
        self._sent: datetime | None = None
        self._last_heard: datetime | None = None

    def ready(self) -> None:
        """A subscription has become live: prove it."""
        self._wanted.set()

    def doubt(self) -> None:
        """Something came by a sweep that push should have told: probe now."""
        if self._link.health.state is PushState.HEALTHY:
            self._wanted.set()

    def echo(self, probe_at: object) -> None:
        """The worker's own mailbox row came through Realtime."""
        if probe_at is None:
            return
        self._last_heard = parse_time(probe_at, "probe_at")
        if self._sent is not None and self._last_heard >= self._sent:
            self._heard.set()

    async def run(self) -> None:
        """Probe for ever; ends by cancellation only."""
        while True:
            try:
                async with asyncio.timeout(self._interval * random.uniform(0.9, 1.1)):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            if self._link.subscriptions:
                await self._probe()

    async def _probe(self) -> None:
        self._heard.clear()
        subscription = self._link.subscriptions
        try:
            self._sent = None
            self._sent = parse_time(await self._touch(), "probe_at")
        except ReactiveWorkerError as error:
            # The database is away: that says nothing about push. The next probe comes by itself.
            logger.debug("sonar: the probe could not be written: %s", error)
            return
        # The echo may have overtaken the answer to the write.
        if self._last_heard is not None and self._last_heard >= self._sent:
            self._heard.set()
        try:
            async with asyncio.timeout(self._echo_timeout):
                await self._heard.wait()
        except TimeoutError:
            if self._link.subscriptions == subscription:
                self._link.mark_deaf(f"a probe was not heard within {self._echo_timeout:g} s")
        else:
            if self._link.subscriptions == subscription:
                self._link.mark_healthy("a probe was heard")
