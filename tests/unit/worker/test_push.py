"""Push: which way is chosen, what a hint says, what counts as proof; with links driven by the test."""

from __future__ import annotations

import asyncio
import doctest
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from reactive_worker.access.credentials import Credentials
from reactive_worker.errors import ConfigurationError, UnreachableError
from reactive_worker.models import Candidate, PushHealth, PushState, SweepResult
from reactive_worker.store import telemetry
from reactive_worker.store.push import channel as push
from reactive_worker.store.push import hints, links
from reactive_worker.store.push import mode as modes
from reactive_worker.store.push.link import Link
from reactive_worker.testing.workers import eventually

NOW = datetime(2026, 11, 3, 9, 0, tzinfo=UTC)
ROW = {"id": "7d0c3f6e-0000-4000-8000-000000000001", "priority": 3, "attempt": 1, "owner_id": None}


def test_the_examples_are_true() -> None:
    for module in (hints, modes, push):
        assert doctest.testmod(module).failed == 0


# -- what a hint says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"agent_type": "a", "todos": {}},
        {"agent_type": "a", "todos": ["x"]},
        {"agent_type": "a", "todos": [], "more": "2"},
    ],
)
def test_what_is_no_hint_is_refused(payload: Any) -> None:
    with pytest.raises(ValueError, match=r"not a message|must be an object"):
        hints.hinted_rows(payload)


@pytest.mark.parametrize("agent_type", ["a b", "Grüße", "a*", "x\n", "", "\U0001f600" * 100])
def test_an_odd_agent_type_has_a_short_topic_of_plain_characters(agent_type: str) -> None:
    topic = hints.todolist_topic(agent_type)
    assert topic.isascii()
    assert len(topic) < 255 - len("realtime:")
    assert " " not in topic
    assert topic != hints.todolist_topic("a")


# -- which way -----------------------------------------------------------------------------------------------


def decide(state: PushState = PushState.CONNECTING, seconds: float = 0.0, **given: Any) -> modes.Choice:
    health = PushHealth(state, NOW - timedelta(seconds=seconds), "so it is")
    return modes.choose(**{"sent": True, "reason": "", "health": health, "refusal": "", "now": NOW, **given})


@pytest.mark.parametrize(
    ("choice", "both", "words"),
    [
        (decide(PushState.HEALTHY, 900), False, ""),
        (decide(seconds=1), False, ""),
        (decide(health=None), False, ""),
        (decide(seconds=6), True, "cannot be joined yet (so it is)"),
        (decide(seconds=6, why="as before"), True, "as before"),
        (decide(PushState.DEAF), True, "do not arrive (so it is)"),
        (decide(seconds=1, refusal="Unauthorized: no"), True, "refuses this worker (Unauthorized: no)"),
    ],
)
def test_changes_are_opened_beside_broadcast_only_while_it_is_not_proven(
    choice: modes.Choice, both: bool, words: str
) -> None:
    assert choice.modes == ({"broadcast", "changes"} if both else {"broadcast"})
    assert words in choice.why
    assert bool(choice.why) == both


# -- a whole push channel ------------------------------------------------------------------------------------


class FakeLink(Link):
    """A link that joins, hears and fails when the test says so."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.heard: Callable[..., None] = options.get("on_message") or options["on_change"]
        name = "broadcast" if "on_message" in options else "changes"
        super().__init__("", "", name, on_ready=options["on_ready"], on_health=options["on_health"])
        self.stopped = False

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        self.stopped = True
        self.is_live = False

    def join(self) -> None:
        self.refusal = ""
        self.is_live = True
        self.subscriptions += 1
        self._on_ready()


class Bench:
    """A PushChannel on fake links, whose probes are echoed by the ways in `echoing`."""

    def __init__(self, mode: str, sent: Any) -> None:
        self.links: dict[str, list[FakeLink]] = {"broadcast": [], "changes": []}
        self.echoing: set[str] = set()
        self.rows: list[Mapping[str, Any]] = []
        self.times: list[datetime] = []
        self.sweeps = 0
        self.probes = 0
        self.states: list[PushState] = []

        self.sent = sent
        self.push = push.PushChannel(
            self, "w1", ["test"], mode=mode, probe_interval=3600.0, emit=telemetry.log_line
        )
        self.push.probe.echo_timeout = 0.02
        self.push.rows.subscribe(self.rows.append)
        self.push.times.subscribe(self.times.append)
        self.push.catch_up.subscribe(lambda _: self.count())
        self.push.links.health_changes.subscribe(lambda health: self.states.append(health.state))

    @property
    def connection(self) -> Any:
        return SimpleNamespace(url="http://x", credentials=Credentials("key"))

    async def push_ways(self) -> tuple[bool, str]:
        if isinstance(self.sent, Exception):
            raise self.sent
        return self.sent

    def count(self) -> None:
        self.sweeps += 1

    async def touch_probe(self, worker_id: str) -> str:
        self.probes += 1
        at = (NOW + timedelta(seconds=self.probes)).isoformat()
        for way in self.echoing & self.open():
            link = self.link(way)
            if way == "broadcast":
                link.heard("mailbox", {"probe_at": at, "desired_state": "running"})
            else:
                link.heard(push.Change("worker_mailbox", "UPDATE", {"probe_at": at}))
        return at

    def link(self, way: str) -> FakeLink:
        return [link for link in self.links[way] if not link.stopped][-1]

    def open(self) -> set[str]:
        return {way for way, links in self.links.items() if any(not link.stopped for link in links)}

    async def becomes(self, state: PushState, way: str = "") -> None:
        await eventually(lambda: (self.push.health.state, self.push.health.mode) == (state, way), timeout=5)


@asynccontextmanager
async def bench(monkeypatch: pytest.MonkeyPatch, mode: str, sent: Any = (True, "")) -> AsyncGenerator[Bench]:
    made = Bench(mode, sent)

    def make(way: str) -> Callable[..., FakeLink]:
        def link(*arguments: Any, **options: Any) -> FakeLink:
            made.links[way].append(FakeLink(*arguments, **options))
            return made.links[way][-1]

        return link

    monkeypatch.setattr(push, "BroadcastLink", make("broadcast"))
    monkeypatch.setattr(push, "RealtimeLink", make("changes"))
    monkeypatch.setattr(links, "LOOK_INTERVAL", 0.01)
    for duty in made.push.duties:
        await duty.start()
    try:
        yield made
    finally:
        for duty in made.push.duties:
            await duty.stop()
    assert made.open() == set()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("changes", {"changes"}), ("broadcast", {"broadcast"}), ("both", {"broadcast", "changes"})],
)
async def test_a_fixed_way_is_kept_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, mode: str, expected: set[str]
) -> None:
    async with bench(monkeypatch, mode) as it:
        await eventually(lambda: it.open() == expected)
        it.echoing = {"changes"}
        for way in expected:
            it.link(way).join()
        # One of two is enough to be healthy.
        state = PushState.HEALTHY if "changes" in expected else PushState.DEAF
        await it.becomes(state, "changes" if "changes" in expected else "")
        await eventually(lambda: "changes" in expected or it.link("broadcast").health.state is PushState.DEAF)
        assert it.open() == expected
        if mode == "both":
            it.echoing = {"changes", "broadcast"}
            it.link("broadcast").join()
            await it.becomes(PushState.HEALTHY, "both")


async def test_auto_takes_broadcast_falls_back_and_comes_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="reactive_worker")
    async with bench(monkeypatch, "auto") as it:
        await eventually(lambda: it.open() == {"broadcast"})
        it.echoing = {"broadcast"}
        it.link("broadcast").join()
        await it.becomes(PushState.HEALTHY, "broadcast")
        assert it.open() == {"broadcast"}
        # Silence, as after a restart of the database: nobody says so, a probe finds out.
        it.echoing = {"changes"}
        it.push.probe.doubt()
        await eventually(lambda: it.open() == {"broadcast", "changes"})
        it.link("changes").join()
        await it.becomes(PushState.HEALTHY, "changes")
        assert "broadcasts do not arrive (a probe was not heard" in it.push.health.detail
        it.echoing = {"changes", "broadcast"}
        it.link("broadcast").join()
        await it.becomes(PushState.HEALTHY, "broadcast")
        await eventually(lambda: it.open() == {"broadcast"})
        assert it.states == [PushState.HEALTHY, PushState.DEAF, PushState.HEALTHY]
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("push goes")]
    assert said[0] == "push goes by broadcast"
    assert said[1].startswith("push goes by changes too until broadcast works: broadcasts do not arrive")
    assert said[2:] == ["push goes by broadcast again"]


async def test_auto_goes_by_changes_when_the_join_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch, "auto") as it:
        await eventually(lambda: it.open() == {"broadcast"})
        it.link("broadcast")._refuse("Unauthorized: no")
        await eventually(lambda: it.open() == {"broadcast", "changes"})
        it.echoing = {"changes"}
        it.link("changes").join()
        await it.becomes(PushState.HEALTHY, "changes")
        assert "refuses this worker (Unauthorized: no)" in it.push.health.detail


async def test_auto_goes_by_changes_when_the_database_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch, "auto", (False, "no function realtime.send")) as it:
        await eventually(lambda: it.open() == {"changes"})
        it.echoing = {"changes"}
        it.link("changes").join()
        await it.becomes(PushState.HEALTHY, "changes")
        assert "no function realtime.send" in it.push.health.detail
        assert it.links["broadcast"] == []
        # Somebody migrated it meanwhile.
        it.push.links._ask = lambda: asyncio.sleep(0, (True, ""))
        it.push.links._ask_at = 0.0
        await eventually(lambda: it.open() == {"broadcast"})


async def test_a_database_that_cannot_be_asked_yet_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(monkeypatch, "auto", UnreachableError("away")) as it:
        await eventually(lambda: it.open() == {"broadcast"})


async def test_a_hint_becomes_rows_and_more_of_them_a_sweep_without_doubt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(monkeypatch, "broadcast") as it:
        await eventually(lambda: it.open() == {"broadcast"})
        it.echoing = {"broadcast"}
        it.link("broadcast").join()
        await it.becomes(PushState.HEALTHY, "broadcast")
        swept, probed = it.sweeps, it.probes
        made = it.push.health.since + timedelta(seconds=60)
        row = {**ROW, "created_at": made.isoformat(), "available_at": made.isoformat()}
        it.link("broadcast").heard(
            "todos", {"agent_type": "test", "todos": [row], "more": 0, "at": NOW.isoformat()}
        )
        assert (it.sweeps, it.times) == (swept, [NOW])
        candidate = Candidate.from_row(it.rows[0], "realtime")
        assert (candidate.key, candidate.priority, candidate.agent_type) == ((ROW["id"], 1), 3, "test")
        assert candidate.created_at == made
        it.link("broadcast").heard(
            "todos", {"agent_type": "test", "todos": [row], "more": 9_999, "at": NOW.isoformat()}
        )
        assert it.sweeps == swept + 1
        # What the sweep finds then was not told, and that is as it should be.
        row = {**row, "agent_type": "test", "attempt": 0}
        other = Candidate.from_row({**row, "id": ROW["id"][:-1] + "2"})
        later = made + timedelta(seconds=30)
        it.push.compare(SweepResult((other,), None, 0, later))
        await asyncio.sleep(0)
        assert not it.push.probe._woken.is_set()
        # Another one, made later, was told by nobody.
        untold = Candidate.from_row({**row, "id": ROW["id"][:-1] + "3", "created_at": later.isoformat()})
        it.push.compare(SweepResult((untold,), None, 0, later + timedelta(seconds=30)))
        await eventually(lambda: it.probes == probed + 1)


def test_more_types_than_a_socket_has_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    types = [f"t{n}" for n in range(100)]
    store: Any = SimpleNamespace(push_ways=None, touch_probe=None)
    with pytest.raises(ConfigurationError, match="at most 99 agent types"):
        push.PushChannel(store, "w", types, mode="both", probe_interval=1.0, emit=print)
    channel = push.PushChannel(store, "w", types, mode="auto", probe_interval=1.0, emit=print)
    assert channel.links._sent == (False, "a worker has too many agent types for it")
