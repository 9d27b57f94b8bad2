"""Who is there: a small list of tracked members for each topic, and the changes to it."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

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
        self._tracked: dict[str, dict[Watcher, tuple[str, dict[str, Any]]]] = {}
        self._watchers: dict[str, dict[Watcher, None]] = {}

    def watch(self, topic: str, watcher: Watcher) -> None:
        """Tell a channel of changes from now on."""
        self._watchers.setdefault(topic, {})[watcher] = None

    def state(self, topic: str) -> Metas:
        """Everybody who is there now, by key."""
        found: Metas = {}
        for key, meta in self._tracked.get(topic, {}).values():
            found.setdefault(key, {"metas": []})["metas"].append(meta)
        return found

    def track(self, topic: str, watcher: Watcher, key: str, payload: Mapping[str, Any]) -> None:
        """Put a member on the list, or replace what it said before."""
        tracked = self._tracked.setdefault(topic, {})
        before = tracked.get(watcher)
        meta: dict[str, Any] = {**payload, "phx_ref": secrets.token_urlsafe(12)}
        leaves: Metas = {}
        if before is not None:
            meta["phx_ref_prev"] = before[1]["phx_ref"]
            leaves = {before[0]: {"metas": [before[1]]}}
        tracked[watcher] = (key, meta)
        self._tell(topic, {key: {"metas": [meta]}}, leaves)

    def untrack(self, topic: str, watcher: Watcher) -> None:
        """Take a member off the list; harmless when it is not on it."""
        tracked = self._tracked.get(topic, {})
        entry = tracked.pop(watcher, None)
        if not tracked:
            self._tracked.pop(topic, None)
        if entry is not None:
            self._tell(topic, {}, {entry[0]: {"metas": [entry[1]]}})

    def leave(self, topic: str, watcher: Watcher) -> None:
        """Forget a channel: it is told of nothing more, and the others of its departure."""
        watchers = self._watchers.get(topic, {})
        watchers.pop(watcher, None)
        if not watchers:
            self._watchers.pop(topic, None)
        self.untrack(topic, watcher)

    def _tell(self, topic: str, joins: Metas, leaves: Metas) -> None:
        for watcher in tuple(self._watchers.get(topic, ())):
            watcher.presence_diff(joins, leaves)
