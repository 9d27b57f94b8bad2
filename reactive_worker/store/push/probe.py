"""A probe of push: the worker writes a probe and must hear it back the way it hears new rows.

A socket can look alive while nothing arrives through it (a dropped publication, a dead poller, a rate limit:
the real server tells nobody). Only an echo proves that push works. One probe goes all the ways there are, and
each way is judged by its own echo.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime

from reactive_worker.backoff import spread
from reactive_worker.errors import ReactiveWorkerError
from reactive_worker.models import PushState, parse_time
from reactive_worker.store.duty import Duty
from reactive_worker.store.push.link import Link

logger = logging.getLogger(__name__)

#: Seconds to wait for an echo. The real server answers within 0.6 s; a loaded one within a few seconds.
ECHO_TIMEOUT = 10.0


class Probe(Duty):
    """Probes push each `interval` seconds, and sooner when in doubt.

    Parameters
    ----------
    links:
        The links in use now: each must hear the worker's own `worker_mailbox` row.
    touch:
        Writes the probe; returns what the echo will carry as `probe_at`.
    interval:
        Seconds between probes while all is well; jittered by a tenth.
    echo_timeout:
        Seconds after which a missing echo means deaf.
    """

    def __init__(
        self,
        links: Callable[[], Collection[Link]],
        touch: Callable[[], Awaitable[str]],
        *,
        interval: float = 60.0,
        echo_timeout: float = ECHO_TIMEOUT,
    ) -> None:
        super().__init__("probe")
        self._links = links
        self._touch = touch
        self._interval = interval
        #: Seconds after which a missing echo means deaf.
        self.echo_timeout = echo_timeout
        self._sent: datetime | None = None
        self._last_heard: dict[Link, datetime] = {}
        self._waiting: dict[Link, asyncio.Event] = {}

    def ready(self) -> None:
        """A subscription has become live: prove it."""
        self.wake()

    def doubt(self) -> None:
        """Something came by a sweep that push should have told: probe now."""
        if any(link.health.state is PushState.HEALTHY for link in self._links()):
            self.wake()

    def echo(self, link: Link, probe_at: object) -> None:
        """The worker's own mailbox row came through `link`."""
        if probe_at is None:
            return
        self._last_heard[link] = parse_time(probe_at, "probe_at")
        self._notice(link)

    async def turn(self) -> float:
        """Probe what is live now."""
        live = [link for link in self._links() if link.is_live]
        if live:
            await self._probe(live)
        return spread(self._interval, 0.1)

    async def _probe(self, links: Collection[Link]) -> None:
        self._waiting = {link: asyncio.Event() for link in links}
        self._last_heard = {link: at for link, at in self._last_heard.items() if link in self._waiting}
        subscriptions = {link: link.subscriptions for link in links}
        try:
            self._sent = None
            self._sent = parse_time(await self._touch(), "probe_at")
        except ReactiveWorkerError as error:
            # The database is away: that says nothing about push. The next probe comes by itself.
            logger.debug("the probe could not be written: %s", error)
            return
        # Not one after the other: the quick way shall not wait for the verdict on the slow one.
        await asyncio.gather(*(self._judge(link, subscriptions[link]) for link in links))

    async def _judge(self, link: Link, subscription: int) -> None:
        # The echo may have overtaken the answer to the write.
        self._notice(link)
        try:
            async with asyncio.timeout(self.echo_timeout):
                await self._waiting[link].wait()
        except TimeoutError:
            if link.is_live and link.subscriptions == subscription:
                link.mark_deaf(f"a probe was not heard within {self.echo_timeout:g} s")
        else:
            if link.is_live and link.subscriptions == subscription:
                link.mark_healthy("a probe was heard")

    def _notice(self, link: Link) -> None:
        heard, waiting = self._last_heard.get(link), self._waiting.get(link)
        if waiting is not None and self._sent is not None and heard is not None and heard >= self._sent:
            waiting.set()
