"""The limit on messages per second, against what the real server (v2.129.8) was recorded to do at 280/s."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reactive_worker.local.faults import Faults
from reactive_worker.local.realtime.broadcast import BroadcastHub, Payload
from reactive_worker.local.realtime.rates import MessageRate
from reactive_worker.local.realtime.rooms import Room
from reactive_worker.local.realtime.serializer import Raw, UserBroadcast

FLOOD, PROBE = Room("realtime:rate"), Room("realtime:rs", private=True)

#: Seconds into the recording, and the broadcasts sent in the second that ended then.
SENT = [
    (5.04, 276),
    (6.04, 278),
    (7.04, 280),
    (8.04, 275),
    (9.05, 271),
    (10.05, 280),
    (11.05, 292),
    (12.05, 295),
    (13.05, 293),
    (14.06, 296),
    (15.06, 287),
    (16.06, 285),
    (17.07, 280),
    (18.07, 291),
    (19.07, 293),
    (20.08, 286),
    (21.08, 292),
    (22.08, 271),
    (23.09, 282),
    (24.09, 255),
]
#: When the receiver was put out of its channel; and which of the messages sent once a second were lost.
CLOSED_AT, FIRST_LOST, LAST_LOST = 14.59, 14, 68


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Member:
    def __init__(self, overload: Callable[[], None] = lambda: None) -> None:
        self.heard: list[Payload] = []
        self.overload = overload

    def receive(self, payload: Payload) -> None:
        self.heard.append(payload)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hub(clock: Clock) -> BroadcastHub:
    faults = Faults()
    faults.message_rate_limit = 100
    return BroadcastHub(MessageRate(faults, clock=clock))


def test_a_flood_has_the_recorded_effects(clock: Clock, hub: BroadcastHub) -> None:
    closed: list[float] = []

    def close() -> None:
        closed.append(clock.now)
        hub.leave(FLOOD, receiver)

    sender, receiver, probe = Member(), Member(close), Member()
    hub.join(FLOOD, sender)
    hub.join(FLOOD, receiver)
    hub.join(PROBE, probe)
    events: list[tuple[float, int | None]] = [(1.043 + 1.0035 * number, number) for number in range(97)]
    for end, count in SENT:
        events += [(end - 1 + index / count, None) for index in range(count)]
    for moment, number in sorted(events, key=lambda event: event[0]):
        clock.now = moment
        if number is None:
            hub.publish(FLOOD, Raw("{}"), leave_out=sender)
        else:
            hub.publish_stored(PROBE, UserBroadcast(str(number), b"{}", is_json=True))
    assert len(closed) == 1
    assert abs(closed[0] - CLOSED_AT) < 0.2
    heard = {int(payload.event) for payload in probe.heard if isinstance(payload, UserBroadcast)}
    lost = set(range(97)) - heard
    assert min(lost) == FIRST_LOST
    # The real server counts whole seconds, and some of other members' messages.
    assert abs(max(lost) - LAST_LOST) <= 2
    assert lost == set(range(min(lost), max(lost) + 1))


def test_below_the_limit_nothing_is_lost(clock: Clock, hub: BroadcastHub) -> None:
    probe = Member()
    hub.join(PROBE, probe)
    for number in range(70 * 40):
        clock.now = number / 40
        hub.publish_stored(PROBE, UserBroadcast("wake", b"{}", is_json=True))
    assert len(probe.heard) == 70 * 40
    assert 79 < hub.rate.average < 81


def test_without_a_limit_nothing_is_counted(clock: Clock) -> None:
    hub = BroadcastHub(MessageRate(Faults(), clock=clock))
    probe = Member()
    hub.join(PROBE, probe)
    for _ in range(10_000):
        hub.publish_stored(PROBE, UserBroadcast("wake", b"{}", is_json=True))
    assert len(probe.heard) == 10_000
    assert hub.rate.average == 0
