"""What the store room tells of itself: events of the lease and of push, and the log lines made of them.

The whole contract, with the worker's own events, is `reactive_worker.worker.telemetry`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True)
class TelemetryEvent:
    """One thing that happened to a worker. Subclasses have the fields; they never hold a key or a prompt."""

    #: The event's name, as handlers and log lines show it.
    action: ClassVar[str]
    #: The level of its log line.
    level: ClassVar[int]
    #: Its log line; fields in braces.
    text: ClassVar[str]

    def __init_subclass__(cls, *, action: str, text: str, level: int = logging.INFO) -> None:
        cls.action, cls.text, cls.level = action, text, level

    def details(self) -> dict[str, Any]:
        """The fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __str__(self) -> str:
        return self.text.format(**self.details())


#: Takes an event; it is called where the event happens, the heartbeat's thread included.
Emit = Callable[[TelemetryEvent], None]


def log_line(event: TelemetryEvent) -> None:
    """Write the log line of an event, with its fields as `extra`, on the logger of its room."""
    logger = logging.getLogger(f"reactive_worker.{event.action.partition('.')[0]}")
    if logger.isEnabledFor(event.level):
        logger.log(event.level, "%s", event, extra={"action": event.action, **event.details()})


# -- the lease -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeartbeatMissed(
    TelemetryEvent,
    action="lease.heartbeat_missed",
    level=logging.WARNING,
    text="heartbeat not delivered: {error}",
):
    """A heartbeat was not answered, or by something that is no answer; it is tried again soon."""

    error: str


@dataclass(frozen=True)
class HeartbeatRefused(
    TelemetryEvent,
    action="lease.heartbeat_refused",
    level=logging.WARNING,
    text="heartbeat refused: {error}",
):
    """The API refused a heartbeat; it is tried again soon."""

    error: str


@dataclass(frozen=True)
class LoopStalled(
    TelemetryEvent,
    action="lease.loop_stalled",
    level=logging.WARNING,
    text="the event loop has been blocked for {seconds:.1f} s; "
    "something in an executor does not await:\n{stack}",
):
    """The event loop has not answered for 2 s; told from the heartbeat's thread, once a stall."""

    seconds: float
    stack: str


@dataclass(frozen=True)
class LeaseLetGo(
    TelemetryEvent,
    action="lease.let_go",
    level=logging.ERROR,
    text="the event loop has been blocked for {seconds:.0f} s, past the limit of {limit:.0f} s: "
    "letting the lease go, other workers take over",
):
    """The event loop was blocked past `stall_limit`: the lease is not renewed; told from the thread."""

    seconds: float
    limit: float


@dataclass(frozen=True)
class HeartbeatDied(
    TelemetryEvent,
    action="lease.heartbeat_died",
    level=logging.ERROR,
    text="the heartbeat thread died: {error}",
):
    """The heartbeat's thread died; the worker stops at once. Told from the thread."""

    error: str


# -- push ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinkHealthy(
    TelemetryEvent,
    action="push.link_healthy",
    text="{link} is healthy: {detail}",
):
    """A probe came back through a link."""

    link: str
    detail: str


@dataclass(frozen=True)
class LinkUnhealthy(
    TelemetryEvent,
    action="push.link_unhealthy",
    level=logging.WARNING,
    text="{link} is {state}: {detail}",
):
    """A link is `connecting` again, or `deaf`."""

    link: str
    state: str
    detail: str


@dataclass(frozen=True)
class LinkRebuilt(
    TelemetryEvent,
    action="push.link_rebuilt",
    level=logging.WARNING,
    text="{link}: {reason}; trying again until it works",
):
    """A link's client was thrown away, for a new reason; a new one is built until one works."""

    link: str
    reason: str


@dataclass(frozen=True)
class NotificationUnusable(
    TelemetryEvent,
    action="push.notification_unusable",
    level=logging.ERROR,
    text="a notification of {link} could not be used; the sweep will find what it was about: {error}",
):
    """A notification could not be read or used; the sweep finds what it was about."""

    link: str
    error: str


@dataclass(frozen=True)
class PushModeChosen(
    TelemetryEvent,
    action="push.mode_chosen",
    text="push goes by {how}",
):
    """Which modes push goes by from now on."""

    modes: tuple[str, ...]
    how: str


@dataclass(frozen=True)
class PushModeDoubted(
    TelemetryEvent,
    action="push.mode_doubted",
    level=logging.WARNING,
    text="push goes by changes too until broadcast works: {why}",
):
    """Changes are opened beside broadcast until it works."""

    modes: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class PushMissedRow(
    TelemetryEvent,
    action="push.missed_row",
    text="a sweep found task {todolist_id}, which push has not told: probing",
):
    """A sweep found a row that push should have told of: a probe is sent."""

    todolist_id: str
