"""What a worker makes of the answers to its heartbeats: small duties, each with a memory of its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta

from reactivex.subject import Subject

from reactive_worker.backoff import Backoff
from reactive_worker.errors import ReactiveWorkerError
from reactive_worker.store.duty import Duty
from reactive_worker.store.heartbeat import HeartbeatAnswer, RunKey
from reactive_worker.store.store import TodoStore
from reactive_worker.worker.held import Held
from reactive_worker.worker.runs import Runs
from reactive_worker.worker.steering import SteeringFeed
from reactive_worker.worker.telemetry import (
    HandBackFailed,
    LeaseLost,
    RegistrationFailed,
    TasksHandedBack,
    Telemetry,
)

#: Seconds until the database is asked again about a signal it does not know of yet, and how long in all.
SIGNAL_PAUSE = 0.02
SIGNAL_PATIENCE = timedelta(seconds=5)
#: Pace of registering again.
REGISTER = Backoff(0.2, 10.0)


class Signals(Duty):
    """Asks what a touch of the mailbox was about, and again if its notification came before it was visible.

    Parameters
    ----------
    beat_now:
        Sends a heartbeat.
    """

    def __init__(self, beat_now: Callable[[], None]) -> None:
        super().__init__("signals")
        self._beat_now = beat_now
        self._at: datetime | None = None
        self._again = False

    def heard(self, at: datetime | None) -> None:
        """Push told that the mailbox was touched at `at`, database time."""
        self._at = at
        self._beat_now()

    def answered(self, answer: HeartbeatAnswer) -> None:
        """A heartbeat was answered: did it see what was heard?"""
        if self._at is None:
            return
        if answer.signal_at is not None and answer.signal_at >= self._at:
            self._at = None
        elif answer.now is None or answer.now - self._at < SIGNAL_PATIENCE:
            self._again = True
            self.wake()

    async def turn(self) -> None:
        """Ask again, a moment after an answer that did not know yet."""
        if self._again:
            self._again = False
            await asyncio.sleep(SIGNAL_PAUSE)
            self._beat_now()


class NextDeath(Duty):
    """Sweeps in the moment another worker's lease ends, unless a heartbeat says that it was renewed.

    Parameters
    ----------
    sweep:
        Asks for a sweep now.
    """

    def __init__(self, sweep: Callable[[], None]) -> None:
        super().__init__("next death")
        self._sweep = sweep
        self._expected: datetime | None = None
        self._at: float | None = None

    def answered(self, answer: HeartbeatAnswer) -> None:
        """A heartbeat was answered: whose lease ends next?"""
        ends, now = answer.next_lease_end, answer.now
        if ends is None or now is None or ends == self._expected:
            return
        self._expected = ends
        # Spread, so that a fleet does not sweep in one instant; at least a moment, if it is overdue already.
        left = max((ends - now).total_seconds(), 0.3) + random.uniform(0.05, 0.3)
        self._at = asyncio.get_running_loop().time() + left
        self.wake()

    async def turn(self) -> float | None:
        """Sweep if a lease has ended by now."""
        if self._at is None:
            return None
        left = self._at - asyncio.get_running_loop().time()
        if left > 0:
            return left
        # Forgotten, so that the next heartbeat expects it anew if this sweep may not call it dead yet.
        self._at = self._expected = None
        self._sweep()
        return None


class Strays(Duty):
    """Hands back rows whose claim was answered into the void: ours in the database, run by nobody.

    Parameters
    ----------
    store, worker_id:
        Where to, and as whom.
    held:
        The runs this worker knows of.
    telemetry:
        Told of what is handed back.
    """

    def __init__(self, store: TodoStore, worker_id: str, held: Held, telemetry: Telemetry) -> None:
        super().__init__("strays")
        self._store = store
        self._worker_id = worker_id
        self._held = held
        self._telemetry = telemetry
        self._nobodys: list[RunKey] = []
        #: False once ended tasks wait in the spool: strays to the database, and not to be given away.
        self.may_hand_back = True

    def answered(self, stray: Collection[RunKey]) -> None:
        """A heartbeat named runs that were not in flight when it was sent."""
        if self._nobodys or not self.may_hand_back:
            return
        self._nobodys = [key for key in stray if self._held.get(*key) is None]
        if self._nobodys:
            self.wake()

    async def turn(self) -> None:
        """Hand back what nobody runs."""
        if self._nobodys:
            await self.hand_back(self._nobodys, "task(s) that were claimed but never arrived here")
            self._nobodys = []

    async def hand_back(self, runs: Collection[RunKey], why: str) -> None:
        """Make rows pending again, no failure counted; what cannot be handed back now is named again."""
        self._telemetry.emit(TasksHandedBack(len(runs), why))
        try:
            await self._store.release(self._worker_id, runs)
        except ReactiveWorkerError as error:
            self._telemetry.emit(HandBackFailed(len(runs), str(error)))


class Registration(Duty):
    """Registers again, for as long as it takes, once the database does not know this worker any more.

    Parameters
    ----------
    register:
        Makes the worker known; raises what the store raises.
    telemetry:
        Told of tries that failed.
    """

    def __init__(self, register: Callable[[], Awaitable[None]], telemetry: Telemetry) -> None:
        super().__init__("registration")
        self._register = register
        self._telemetry = telemetry
        self.is_wanted = False
        self._failures = 0

    def again(self) -> None:
        """The worker is not known any more."""
        self.is_wanted = True
        self.wake()

    async def turn(self) -> float | None:
        """Register, if that is wanted; try again after a pause that grows."""
        if not self.is_wanted:
            return None
        try:
            await self._register()
        except ReactiveWorkerError as error:
            self._failures += 1
            self._telemetry.emit(RegistrationFailed(str(error)))
            return REGISTER.delay(self._failures)
        self.is_wanted = False
        self._failures = 0
        return None


class Lease:
    """Tells each part what the answer to a heartbeat means for it.

    Parameters
    ----------
    held, runs, steering:
        What is in flight here.
    signals, strays, registration:
        The duties an answer may wake.
    telemetry:
        Told when the lease was lost.

    Attributes
    ----------
    sweeps:
        Sweep now: another worker's lease has ended. Hot.
    orders:
        The state somebody wants this worker in, with each answer: running, paused or draining. Hot.
    """

    def __init__(
        self,
        held: Held,
        runs: Runs,
        steering: SteeringFeed,
        signals: Signals,
        strays: Strays,
        registration: Registration,
        telemetry: Telemetry,
    ) -> None:
        self._held = held
        self._runs = runs
        self._steering = steering
        self._signals = signals
        self._strays = strays
        self._registration = registration
        self._telemetry = telemetry
        self.sweeps: Subject[None] = Subject()
        self.orders: Subject[str] = Subject()
        self._next_death = NextDeath(lambda: self.sweeps.on_next(None))

    @property
    def duties(self) -> Sequence[Duty]:
        """What goes on between heartbeats."""
        return (self._signals, self._next_death, self._strays, self._registration, self._steering)

    def answered(self, answer: HeartbeatAnswer) -> None:
        """A heartbeat was answered."""
        if not answer.known:
            self._lost()
            return
        self._signals.answered(answer)
        self._runs.cancel(answer.cancel)
        self._steering.fetch([key for key in answer.steer if self._held.get(*key) is not None])
        # Ended runs are left alone: their end was stored after the heartbeat was sampled.
        self._runs.lose(answer.lost)
        # A claim under way may be about to tell us of them.
        if not self._held.is_claiming:
            self._strays.answered(answer.stray)
        self._next_death.answered(answer)
        self.orders.on_next(answer.desired_state)

    def _lost(self) -> None:
        if self._registration.is_wanted:
            return
        runs = self._held.in_flight()
        self._telemetry.emit(LeaseLost(len(runs)))
        self._runs.lose(runs)
        for key in runs:
            self._held.drop(*key)
        self._registration.again()
