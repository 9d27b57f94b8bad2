"""Every delay of the Realtime server in one place, with the values measured on the real one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: ``fast``: a change waits at most 20 ms. ``hosted``: as long as on a hosted project.
Pacing = Literal["fast", "hosted"]


@dataclass(frozen=True)
class Timings:
    """Delays in seconds. Tests shorten them; the defaults are the real server's unless said otherwise."""

    #: Wait after a poll that found nothing (``hosted``: 0.5).
    idle_interval: float = 0.02
    #: Wait after a poll that delivered something.
    busy_interval: float = 0.0
    #: A socket that sends nothing for this long is closed with code 1000.
    idle_timeout: float = 60.0
    #: A refused handshake is answered this late. The real server takes 2 s; a wrong key in development
    #: should not.
    handshake_refusal_delay: float = 0.0
    #: A new token re-creates the channel's subscription this much later.
    token_refresh_delay: float = 1.0
    #: How often the set of published tables is compared with what subscriptions were made for.
    publication_check: float = 60.0
    #: A token is verified again at least this often.
    token_check: float = 300.0
    #: The replication slot is given up this long after the last subscription ended.
    linger: float = 10.0
    #: Waits between attempts to reach a database that is down: first and longest.
    reconnect_first: float = 0.1
    reconnect_longest: float = 2.0
    #: The same for the stream of messages, which a hosted project waits for much longer.
    messages_reconnect_first: float = 0.1
    messages_reconnect_longest: float = 2.0
    #: How long a join of a private channel waits for that stream to open, so that nothing sent after it is
    #: answered is lost. The real server does not wait.
    messages_patience: float = 5.0
    #: How long a member that asked to be told (`replication_ready`) waits before its channel is closed.
    replication_ready: float = 60.0
    #: How often tomorrow's partition of `realtime.messages` is looked after.
    partition_check: float = 4 * 3600.0

    @classmethod
    def of(cls, pacing: Pacing) -> Timings:
        """The timings of a pacing.

        Raises
        ------
        ValueError
            There is no such pacing.
        """
        if pacing == "fast":
            return cls()
        if pacing == "hosted":
            return cls(
                idle_interval=0.5,
                handshake_refusal_delay=2.0,
                messages_reconnect_first=5.0,
                messages_reconnect_longest=300.0,
            )
        raise ValueError(f"pacing must be 'fast' or 'hosted', not {pacing!r}")
