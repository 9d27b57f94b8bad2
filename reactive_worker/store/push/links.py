"""Which links push goes by, kept open, and how well they do together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime

from reactivex.subject import Subject

from reactive_worker.errors import ReactiveWorkerError, UnreachableError
from reactive_worker.models import PushHealth, PushState
from reactive_worker.store.duty import Duty
from reactive_worker.store.push.link import Link
from reactive_worker.store.push.mode import BROADCAST, FIXED, ONLY_BROADCAST, Choice, choose
from reactive_worker.store.telemetry import Emit, PushModeChosen, PushModeDoubted

logger = logging.getLogger(__name__)

#: Seconds between looks at the links, should none of them say anything.
LOOK_INTERVAL = 1.0
#: Seconds after which a database that does not broadcast is asked again: somebody may have migrated it.
ASK_AGAIN = 300.0

#: Asks the database whether it sends broadcasts, and if not, why.
AskSent = Callable[[], Awaitable[tuple[bool, str]]]


class Links(Duty):
    """Opens and closes links as the mode says; push is as healthy as the healthiest of them.

    Parameters
    ----------
    mode:
        ``changes``, ``broadcast``, ``both``, or ``auto``: see `store.push.mode.choose`.
    open:
        Makes the link of a mode, not yet started.
    ask:
        Asks the database whether it sends broadcasts.
    emit:
        Where telemetry goes.
    """

    def __init__(self, mode: str, open: Callable[[str], Link], ask: AskSent, emit: Emit) -> None:
        super().__init__("push")
        self._mode = mode
        self._open = open
        self._ask = ask
        self._emit = emit
        self._links: dict[str, Link] = {}
        self._choice = FIXED.get(mode)
        #: Whether the database sends, and why not; None while it has not answered.
        self._sent: tuple[bool, str] | None = None
        self._ask_at = 0.0
        #: The state now, since when, why, and by which mode.
        self.health = PushHealth(PushState.CONNECTING, datetime.now(UTC), "not started")
        #: Each change of its state, hot.
        self.health_changes: Subject[PushHealth] = Subject()

    def __call__(self) -> Collection[Link]:
        """The links in use now."""
        return tuple(self._links.values())

    def never_broadcast(self, why: str) -> None:
        """Broadcast cannot be had, whatever the database says."""
        self._sent, self._ask_at = (False, why), float("inf")

    def changed(self) -> None:
        """A link's health has changed."""
        self._assess()
        self.wake()

    async def turn(self) -> float:
        """Keep the links of the chosen modes running; raises when one died, which none ever may."""
        if self._mode == "auto":
            await self._choose()
        elif not self._links and self._choice is not None:
            await self._keep(self._choice.modes)
        for link in self._links.values():
            if link.task is not None and link.task.done():
                link.task.result()
                raise RuntimeError(f"the supervision of {link.name} ended")
        return LOOK_INTERVAL

    async def stop(self) -> None:
        """Leave all channels, and wait until nothing is left."""
        try:
            await super().stop()
        finally:
            for link in self._links.values():
                await link.stop()

    async def _choose(self) -> None:
        if (self._sent is None or not self._sent[0]) and asyncio.get_running_loop().time() >= self._ask_at:
            await self._ask_database()
        # Not answered yet: a join will tell.
        sent, reason = self._sent or (True, "")
        link = self._links.get(BROADCAST)
        choice = choose(
            sent=sent,
            reason=reason,
            health=None if link is None else link.health,
            refusal="" if link is None else link.refusal,
            now=datetime.now(UTC),
            why=self._choice.why if self._choice is not None else "",
        )
        await self._keep(choice.modes)
        if choice != self._choice:
            self._report(choice, first=self._choice is None)
            self._choice = choice
            self._assess()

    async def _ask_database(self) -> None:
        pause = ASK_AGAIN
        try:
            self._sent = await self._ask()
        except UnreachableError as error:
            logger.debug("cannot ask whether broadcasts are sent: %s", error)
            pause = 5.0
        except ReactiveWorkerError as error:
            self._sent = (False, f"the database does not say whether it sends broadcasts: {error}")
        self._ask_at = asyncio.get_running_loop().time() + pause

    def _report(self, choice: Choice, *, first: bool) -> None:
        modes = tuple(sorted(choice.modes))
        if choice == ONLY_BROADCAST:
            self._emit(PushModeChosen(modes, "broadcast" if first else "broadcast again"))
        elif BROADCAST in choice.modes:
            self._emit(PushModeDoubted(modes, choice.why))
        else:
            self._emit(PushModeChosen(modes, f"changes: {choice.why}"))

    async def _keep(self, modes: Collection[str]) -> None:
        for mode in modes:
            if mode not in self._links:
                link = self._links[mode] = self._open(mode)
                await link.start()
        for mode in set(self._links) - set(modes):
            await self._links[mode].stop()
            del self._links[mode]

    def _assess(self) -> None:
        found = {
            state: [mode for mode, link in self._links.items() if link.health.state is state]
            for state in PushState
        }
        state = next((s for s in (PushState.HEALTHY, PushState.DEAF) if found[s]), PushState.CONNECTING)
        modes = found[state]
        detail = self._links[modes[0]].health.detail if modes else ""
        if self._choice is not None and self._choice.why:
            detail = f"{detail}; not by broadcast alone: {self._choice.why}"
        mode = "" if state is not PushState.HEALTHY else modes[0] if len(modes) == 1 else "both"
        changed = state is not self.health.state
        since = datetime.now(UTC) if changed else self.health.since
        self.health = PushHealth(state, since, detail, mode)
        if changed:
            self.health_changes.on_next(self.health)
