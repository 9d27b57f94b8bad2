"""Switches that make the embedded Supabase misbehave on purpose, so that a worker's promises can be tested.

The gateway reads them for every request and frame; any thread may set them at any time.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: Things that happen once, to every open socket, as opposed to states that stay switched on.
ActionName = Literal["drop_sockets", "phx_close_all", "phx_error_all", "system_error_all"]

#: Close codes that mean "the connection went away without a close frame": the server just cuts the line.
ABNORMAL_CLOSE = 1006


@dataclass(frozen=True)
class FaultAction:
    """Something to do now, once, to every open Realtime socket or channel."""

    name: ActionName
    #: WebSocket close code (drop_sockets only).
    code: int = ABNORMAL_CLOSE
    #: Text of the system message (system_error_all only).
    message: str = ""


ActionListener = Callable[[FaultAction], None]


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError("must be a number of seconds, 0 or more")
    return float(value)


def _optional_seconds(value: Any) -> float | None:
    return None if value is None else _seconds(value)


def _optional_rate(value: Any) -> float | None:
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= 0
    ):
        raise ValueError("must be a number of messages per second above 0, or null")
    return float(value)


def _window(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError("must be a number of seconds above 0")
    return float(value)


def _offset(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a number of seconds (negative: into the past)")
    return float(value)


def _optional_text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError("must be a text or null")
    return value


def _optional_status(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 400 <= value <= 599:
        raise ValueError("must be an HTTP status from 400 to 599, or null")
    return value


def _close_code(value: Any) -> None:
    known = isinstance(value, int) and (1000 <= value <= 1014 or 3000 <= value <= 4999)
    if not known or value in (1004, 1005):
        raise ValueError(f"fault switch drop_sockets: {value!r} is no WebSocket close code")


_CHECKS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "deaf": (_flag, False),
    "broadcast_deaf": (_flag, False),
    "message_rate_limit": (_optional_rate, None),
    "message_rate_window": (_window, 60.0),
    "stream_gap": (_seconds, 0.0),
    "withhold_system_ok": (_flag, False),
    "system_ok_delay": (_seconds, 0.0),
    "refuse_joins": (_optional_text, None),
    "join_refusal_delay": (_seconds, 5.0),
    "poll_interval": (_optional_seconds, None),
    "idle_interval": (_optional_seconds, None),
    "rest_status": (_optional_status, None),
    "storage_status": (_optional_status, None),
    "swallow": (_flag, False),
    "clock_offset": (_offset, 0.0),
}


class Faults:
    """The switches of one embedded Supabase. All off at first.

    Example
    -------
    >>> faults = Faults()
    >>> faults.deaf = True          # changes are no longer delivered, the sockets stay alive
    >>> faults.drop_sockets(1012)   # every open socket is closed, once
    >>> faults.reset()
    """

    #: Database changes are read and thrown away; sockets, heartbeats and joins go on as if all were well.
    deaf: bool
    #: Messages from the database (`realtime.send`, `broadcast_changes`) are read and thrown away, as when the
    #: server has lost its stream of them; changes, members' own broadcasts and sockets go on.
    broadcast_deaf: bool
    #: Seconds from the answer to a join until messages of the database flow, where their stream is not open
    #: yet; what is sent in between is lost. So a cold or restarted Realtime answers: while this is above 0,
    #: `drop_sockets` closes the stream as well.
    stream_gap: float
    #: Broadcasts per second, sent and received ones counted, above which receivers are put out of their
    #: channel and messages from the database vanish, as on a hosted project over its quota; None: no limit.
    message_rate_limit: float | None
    #: Seconds over which that rate is averaged. A shorter window reacts, and forgives, sooner.
    message_rate_window: float
    #: A join is answered, but the `system` message that says "changes flow now" never comes.
    withhold_system_ok: bool
    #: Seconds between the answer to a join and its `system` ok, on top of the pacing.
    system_ok_delay: float
    #: Reason every join is refused with; None: joins are accepted.
    refuse_joins: str | None
    #: Seconds a refused join keeps its whole socket waiting, as the real server does.
    join_refusal_delay: float
    #: Seconds between two polls of the replication slot; None: as the pacing says.
    poll_interval: float | None
    #: Seconds the poller sleeps after an empty poll; None: as the pacing says.
    idle_interval: float | None
    #: HTTP status every REST request is answered with; None: REST works.
    rest_status: int | None
    #: The same for storage requests, those that need no key included.
    storage_status: int | None
    #: REST requests and socket frames are accepted and never answered.
    swallow: bool
    #: Seconds by which the database's task clock (`reactive_worker_now()`) is ahead, for REST calls.
    clock_offset: float

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._listeners: list[ActionListener] = []
        self.reset()

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            if name not in _CHECKS:
                raise AttributeError(f"no such fault switch: {name}")
            try:
                value = _CHECKS[name][0](value)
            except ValueError as error:
                raise ValueError(f"fault switch {name}: {error}") from None
        object.__setattr__(self, name, value)

    def reset(self) -> None:
        """Switch everything off."""
        with self._lock:
            for name, (_, default) in _CHECKS.items():
                setattr(self, name, default)

    def snapshot(self) -> dict[str, Any]:
        """All switches and their values, read at one moment."""
        with self._lock:
            return {name: getattr(self, name) for name in _CHECKS}

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Set several switches, or trigger actions, by name: what ``POST /_local/faults`` does.

        An action is a key with its argument: ``{"drop_sockets": 1012}``, ``{"phx_close_all": true}``,
        ``{"system_error_all": "text"}``, ``{"reset": true}``. All is checked before anything changes.

        Raises
        ------
        ValueError
            A name is unknown or a value does not fit.
        """
        actions: list[Callable[[], None]] = []
        values: dict[str, Any] = {}
        for name, value in changes.items():
            if name in _CHECKS:
                try:
                    values[name] = _CHECKS[name][0](value)
                except ValueError as error:
                    raise ValueError(f"fault switch {name}: {error}") from None
            elif (action := self._action(name, value)) is not None:
                actions.append(action)
            else:
                raise ValueError(f"no such fault switch: {name}")
        with self._lock:
            if changes.get("reset"):
                self.reset()
            for name, value in values.items():
                setattr(self, name, value)
        for action in actions:
            action()

    def _action(self, name: str, value: Any) -> Callable[[], None] | None:
        if name == "drop_sockets":
            _close_code(value)
            return lambda: self.drop_sockets(value)
        if name == "system_error_all":
            if not isinstance(value, str):
                raise ValueError("fault switch system_error_all: must be the message's text")
            return lambda: self.system_error_all(value)
        if name == "phx_close_all":
            return self.phx_close_all if value else _nothing
        if name == "phx_error_all":
            return self.phx_error_all if value else _nothing
        return _nothing if name == "reset" else None

    def drop_sockets(self, code: int = ABNORMAL_CLOSE) -> None:
        """Close every open Realtime socket.

        Parameters
        ----------
        code:
            WebSocket close code; 1006 cuts the connection without a close frame.

        Raises
        ------
        ValueError
            The code cannot be sent: outside 1000-1014 and 3000-4999.
        """
        _close_code(code)
        self._fire(FaultAction("drop_sockets", code=code))

    def phx_close_all(self) -> None:
        """Send ``phx_close`` to every joined channel and leave it."""
        self._fire(FaultAction("phx_close_all"))

    def phx_error_all(self) -> None:
        """Send ``phx_error`` to every joined channel, as when its server process crashed."""
        self._fire(FaultAction("phx_error_all"))

    def system_error_all(self, message: str) -> None:
        """Send a ``system`` message with status error to every joined channel."""
        self._fire(FaultAction("system_error_all", message=message))

    def subscribe(self, listener: ActionListener) -> Callable[[], None]:
        """Be told of actions, in the thread that triggers them; returns a function that ends it."""
        with self._lock:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return unsubscribe

    def _fire(self, action: FaultAction) -> None:
        with self._lock:
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(action)


def _nothing() -> None:
    """An action that is named but not wanted (``"phx_close_all": false``)."""
