"""Who hears whom: a topic as its members share it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Room:
    """Members of one topic that hear each other: the private and the public channel of a name are two."""

    #: With its ``realtime:`` prefix.
    topic: str
    private: bool = False
