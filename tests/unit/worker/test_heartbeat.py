"""The heartbeat's turn: what is an answer, what is not, and that an outage is one event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from reactive_worker.access.credentials import Credentials
from reactive_worker.store.heartbeat import Heartbeat, HeartbeatAnswer, Pace, Report
from reactive_worker.store.telemetry import HeartbeatMissed, HeartbeatRefused, TelemetryEvent

KNOWN = {"known": True, "cancel": ["a"], "lost": [], "stray": [{"id": "s", "attempt": 3}]}


class Bench:
    """A heartbeat whose requests the test answers, one turn at a time, in the test's own thread."""

    def __init__(self, answer: Callable[[], httpx.Response]) -> None:
        self.answer = answer
        self.told: list[TelemetryEvent] = []
        self.learned: list[HeartbeatAnswer] = []
        self.heartbeat = Heartbeat(
            "http://x",
            Credentials("key"),
            "w",
            Pace(lease=30.0, heartbeat=10.0, stall_limit=0.0),
            lambda: Report([("a", 2)], {"pid": 1}),
            self.told.append,
        )
        self.heartbeat._loop = asyncio.get_running_loop()
        self.heartbeat.answers.subscribe(self.learned.append)
        self.http = httpx.Client(transport=httpx.MockTransport(lambda request: self.answer()))

    async def turn(self) -> float:
        pause = self.heartbeat.turn(self.http)
        await asyncio.sleep(0)
        return pause


async def test_an_answer_is_told_in_the_loop_by_id_and_attempt() -> None:
    it = Bench(lambda: httpx.Response(200, json=KNOWN))
    assert await it.turn() == 10.0
    (learned,) = it.learned
    assert learned.cancel == (("a", 2),)
    assert learned.stray == (("s", 3),)
    assert it.told == []


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda: httpx.Response(200, html="<h1>Maintenance</h1>"), id="html"),
        pytest.param(lambda: httpx.Response(200), id="empty"),
        pytest.param(lambda: httpx.Response(204), id="no content"),
        pytest.param(lambda: httpx.Response(200, text='{"known": tr'), id="cut"),
        pytest.param(lambda: httpx.Response(200, json=[]), id="a list"),
        pytest.param(lambda: httpx.Response(200, json={"known": "yes"}), id="another shape"),
        pytest.param(lambda: httpx.Response(200, json={"known": True, "stray": [7]}), id="odd runs"),
        pytest.param(lambda: httpx.Response(200, json={"known": True, "now": "later"}), id="no time"),
        pytest.param(lambda: httpx.Response(200, text="[" * 100_000), id="deep"),
    ],
)
async def test_whatever_is_no_answer_is_as_if_nobody_answered(answer: Callable[[], httpx.Response]) -> None:
    it = Bench(answer)
    for _ in range(3):
        assert await it.turn() <= 1.0
    # An outage is one event, however long it lasts.
    (missed,) = it.told
    assert isinstance(missed, HeartbeatMissed)
    assert it.learned == []
    it.answer = lambda: httpx.Response(200, json=KNOWN)
    assert await it.turn() == 10.0
    it.answer = answer
    await it.turn()
    assert len(it.told) == 2


async def test_a_refusal_is_told_once_and_tried_again() -> None:
    it = Bench(lambda: httpx.Response(401, json={"message": "JWT expired"}))
    for _ in range(3):
        assert await it.turn() <= 1.0
    (refused,) = it.told
    assert isinstance(refused, HeartbeatRefused)
    assert "expired" in refused.error
