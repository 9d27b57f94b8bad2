"""Who is there: a small list of tracked members for each room, and the changes to it."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from reactive_worker.local.realtime.rooms import Room

#: A client may track or untrack this often in this many seconds.
MOST_CALLS = 5
CALLS_WINDOW = 30.0

Metas = dict[str, dict[str, list[dict[str, Any]]]]


class Watcher(Protocol):
    """A channel that is told of arrivals and departures."""

    def presence_diff(self, joins: Metas, leaves: Metas) -> None:
        """Take a change of the list."""
        ...


class CallLimit:
    """Counts a client's calls in a sliding window."""

    def __init__(self) -> None:
        self._calls: deque[float] = deque()

    def exceeded(self, now: float | None = None) -> bool:
        """Count one more call; whether it was one too many."""
        moment = time.monotonic() if now is None else now
        while self._calls and moment - self._calls[0] >= CALLS_WINDOW:
            self._calls.popleft()
        self._calls.append(moment)
        return len(self._calls) > MOST_CALLS


class PresenceHub:
    """Tracked members and watchers of every topic."""

    def __init__(self) -> None:
        self._tracked: dict[Room, dict[Watcher, tuple[str, dict[str, Any]]]] = {}
        self._watchers: dict[Room, dict[Watcher, None]] = {}

    def watch(self, room: Room, watcher: Watcher) -> None:
        """Tell a channel of changes from now on."""
        self._watchers.setdefault(room, {})[watcher] = None

    def state(self, room: Room) -> Metas:
        """Everybody who is there now, by key."""
        found: Metas = {}
        for key, meta in self._tracked.get(room, {}).values():
            found.setdefault(key, {"metas": []})["metas"].append(meta)
        return found

    def track(self, room: Room, watcher: Watcher, key: str, payload: Mapping[str, Any]) -> None:
        """Put a member on the list, or replace what it said before."""
        tracked = self._tracked.setdefault(room, {})
        before = tracked.get(watcher)
        meta: dict[str, Any] = {**payload, "phx_ref": secrets.token_urlsafe(12)}
        leaves: Metas = {}
        if before is not None:
            meta["phx_ref_prev"] = before[1]["phx_ref"]
            leaves = {before[0]: {"metas": [before[1]]}}
        tracked[watcher] = (key, meta)
        self._tell(room, {key: {"metas": [meta]}}, leaves)

    def untrack(self, room: Room, watcher: Watcher) -> None:
        """Take a member off the list; harmless when it is not on it."""
        tracked = self._tracked.get(room, {})
        entry = tracked.pop(watcher, None)
        if not tracked:
            self._tracked.pop(room, None)
        if entry is not None:
            self._tell(room, {}, {entry[0]: {"metas": [entry[1]]}})

    def leave(self, room: Room, watcher: Watcher) -> None:
        """Forget a channel: it is told of nothing more, and the others of its departure."""
        watchers = self._watchers.get(room, {})
        watchers.pop(watcher, None)
        if not watchers:
            self._watchers.pop(room, None)
        self.untrack(room, watcher)

    def _tell(self, room: Room, joins: Metas, leaves: Metas) -> None:
        for watcher in tuple(self._watchers.get(room, ())):
            watcher.presence_diff(joins, leaves)
