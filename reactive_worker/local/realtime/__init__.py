"""A Realtime server over a real PostgreSQL: the Phoenix channel protocol, and changes read from the log."""

from __future__ import annotations

from reactive_worker.local.realtime.server import RealtimeServer
from reactive_worker.local.realtime.timings import Pacing, Timings

__all__ = ["Pacing", "RealtimeServer", "Timings"]
