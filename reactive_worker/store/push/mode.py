"""By which modes push comes when it is left to us: broadcast where that works, else changes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from reactive_worker.models import PushHealth, PushState

BROADCAST = "broadcast"
CHANGES = "changes"

#: A healthy server lets a worker in and echoes a probe within a second.
STANDBY_AFTER = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Choice:
    """The modes to keep open, and why not broadcast alone."""

    modes: frozenset[str]
    why: str = ""


#: What each fixed setting means.
FIXED = {
    "changes": Choice(frozenset({CHANGES})),
    "broadcast": Choice(frozenset({BROADCAST})),
    "both": Choice(frozenset({BROADCAST, CHANGES})),
}
ONLY_BROADCAST = FIXED["broadcast"]


def choose(
    *, sent: bool, reason: str, health: PushHealth | None, refusal: str, now: datetime, why: str = ""
) -> Choice:
    """What ``push = auto`` keeps open.

    Broadcast alone while it is proven. While it is not, changes as well: broadcast goes on being tried, and
    as soon as a probe comes back through it, changes are left again.

    Parameters
    ----------
    sent:
        Whether the database sends broadcasts at all.
    reason:
        Why it does not.
    health:
        Of the broadcast link; None when there is none yet.
    refusal:
        What the server said when it did not let the worker in; empty when it did.
    now:
        The time by the clock that `health.since` is from.
    why:
        What was said last; kept while nothing new is known.

    Example
    -------
    >>> from datetime import UTC
    >>> now = datetime.now(UTC)
    >>> choose(sent=False, reason="no realtime.send", health=None, refusal="", now=now)
    Choice(modes=frozenset({'changes'}), why='no realtime.send')
    """
    if not sent:
        return Choice(frozenset({CHANGES}), reason)
    if health is None or health.state is PushState.HEALTHY:
        return ONLY_BROADCAST
    both = frozenset({BROADCAST, CHANGES})
    if refusal:
        return Choice(both, f"the private channel refuses this worker ({refusal})")
    if health.state is PushState.DEAF:
        return Choice(both, f"broadcasts do not arrive ({health.detail})")
    if now - health.since > STANDBY_AFTER:
        return Choice(both, why or f"broadcast cannot be joined yet ({health.detail})")
    return ONLY_BROADCAST
