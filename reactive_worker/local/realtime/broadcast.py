"""Messages between the members of a channel."""

from __future__ import annotations

from typing import Protocol

from reactive_worker.local.realtime.rates import MessageRate
from reactive_worker.local.realtime.rooms import Room
from reactive_worker.local.realtime.serializer import Raw, UserBroadcast

#: Largest broadcast payload, in bytes.
LARGEST_PAYLOAD = 3_000_500

Payload = Raw | UserBroadcast


class Member(Protocol):
    """A channel, as far as broadcasts go."""

    def receive(self, payload: Payload) -> None:
        """Take a broadcast."""
        ...

    def overload(self) -> None:
        """More messages pass than the project may have: end."""
        ...


class BroadcastHub:
    """Who is in which room.

    Parameters
    ----------
    rate:
        Counts what passes.
    """

    def __init__(self, rate: MessageRate) -> None:
        self.rate = rate
        self._members: dict[Room, dict[Member, None]] = {}

    def join(self, room: Room, member: Member) -> None:
        """Let a channel receive what is sent to its room."""
        self._members.setdefault(room, {})[member] = None

    def leave(self, room: Room, member: Member) -> None:
        """End that; harmless when it never began."""
        members = self._members.get(room, {})
        members.pop(member, None)
        if not members:
            self._members.pop(room, None)

    def publish(self, room: Room, payload: Payload, *, leave_out: Member | None = None) -> None:
        """Give a message to all members of a room.

        Over the limit the sender is not told, and each receiver is put out of its channel instead.

        Parameters
        ----------
        payload:
            A whole broadcast payload as JSON, or one that is passed on as it came.
        leave_out:
            The sender, when it does not want its own messages back.
        """
        self.rate.count()
        for member in tuple(self._members.get(room, ())):
            if member is leave_out:
                continue
            if self.rate.exceeded:
                member.overload()
            else:
                self.rate.count()
                member.receive(payload)

    def publish_stored(self, room: Room, message: UserBroadcast) -> None:
        """Give a message of the database to all members of a room; over the limit it is lost, in silence."""
        if not self.rate.exceeded:
            self.publish(room, message)
