"""Delivery: progress is appended, an end is finished with its events, the spool keeps what is left."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reactive_worker.errors import ConfigurationError, DataRefusedError, SupabaseError, UnreachableError
from reactive_worker.models import Outcome, TodoEvent
from reactive_worker.store.store import Written
from reactive_worker.store.translate import is_retryable
from reactive_worker.worker.delivery import Delivery, event_size
from reactive_worker.worker.spool import Spool

A, B = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))


def said(id: str, seq: int, outcome: Outcome | None = None) -> TodoEvent:
    kind = "task_progress" if outcome is None else f"task_{outcome.kind}"
    return TodoEvent(id, 1, kind, {"n": seq}, seq=seq, outcome=outcome)


class Store:
    """Records calls; `error` is raised instead, while `hang` is set nothing is answered."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.error: Exception | None = None
        self.hang = asyncio.Event()
        self.hang.set()
        self.written = Written()

    async def append(self, worker_id: str, events: Any) -> Written:
        await self._answer()
        self.calls.append(("append", [(event.todolist_id, event.seq) for event in events]))
        return self.written

    async def finish(self, worker_id: str, results: Any) -> Written:
        await self._answer()
        self.calls.append(("finish", [(row["todolist_id"], len(row["events"])) for row in results]))
        return self.written

    async def _answer(self) -> None:
        await self.hang.wait()
        if self.error is not None:
            raise self.error


async def test_an_end_takes_all_events_of_its_task_in_the_batch_with_it() -> None:
    store = Store()
    delivery = Delivery(store, "w")  # type: ignore[arg-type]
    batch = [said(A, 2), said(B, 2), said(A, 3, Outcome("completed", output={"text": "x"})), said(B, 3)]
    result = await delivery.store_batch(batch)
    assert store.calls == [("append", [(B, 2), (B, 3)]), ("finish", [(A, 2)])]
    assert result.lost == frozenset()


async def test_lost_tasks_are_told() -> None:
    store = Store()
    store.written = Written(lost=frozenset({(A, 1)}))
    result = await Delivery(store, "w").store_batch([said(A, 2)])  # type: ignore[arg-type]
    assert result.lost == {(A, 1)}


async def test_what_is_busy_or_refused_is_told_with_its_reason() -> None:
    store = Store()
    store.written = Written(busy=frozenset({(A, 1)}), refused={(B, 1): "refused by the project"})
    result = await Delivery(store, "w").store_batch([said(A, 2), said(B, 2)])  # type: ignore[arg-type]
    assert isinstance(result.busy[A, 1], UnreachableError)
    assert (type(result.refused[B, 1]), str(result.refused[B, 1])) == (
        DataRefusedError,
        "refused by the project",
    )
    assert is_retryable(result.busy[A, 1])
    assert not is_retryable(result.refused[B, 1])


async def test_two_attempts_of_a_task_are_never_in_one_call() -> None:
    store = Store()
    late = replace(said(A, 7), attempt=1)
    healthy = [replace(said(A, seq), attempt=2) for seq in (3, 4)]
    await Delivery(store, "w").store_batch([late, healthy[0], said(B, 2), healthy[1]])  # type: ignore[arg-type]
    assert store.calls == [("append", [(A, 7), (B, 2)]), ("append", [(A, 3), (A, 4)])]

    store.calls.clear()
    ends = [replace(said(A, n, Outcome("completed")), attempt=n) for n in (1, 2, 3)]
    await Delivery(store, "w").store_batch(ends)  # type: ignore[arg-type]
    assert [call for call, _ in store.calls] == ["finish"] * 3


@pytest.mark.parametrize(
    ("row", "run"),
    [(A, (A, 4)), ({"id": A}, (A, 4)), ({"id": A, "attempt": 2}, (A, 2)), ({"todolist_id": A}, (A, 4))],
)
def test_an_answer_names_runs_by_id_and_attempt(row: Any, run: tuple[str, int]) -> None:
    assert Written.of({"lost": [row], "busy": [row]}, {A: 4}) == Written(
        lost=frozenset({run}), busy=frozenset({run})
    )


def test_a_refusal_has_its_reason() -> None:
    answer = {"refused": [{"id": A, "attempt": 1, "reason": "no"}, {"todolist_id": B, "attempt": 3}]}
    written = Written.of(answer, {A: 1, B: 3})
    assert written.refused == {(A, 1): "no", (B, 3): "the database gives no reason"}


def test_sizes_are_about_what_is_sent_and_depth_is_no_matter() -> None:
    small = said(A, 2)
    text = replace(small, event_data={"text": "x" * 100_000})
    accents = replace(small, event_data={"text": "é" * 100_000})
    result = replace(small, outcome=Outcome("completed", output={"text": "x" * 50_000}))
    assert event_size(small) < 1_000
    assert event_size(text) - event_size(small) == pytest.approx(100_000, abs=100)
    assert event_size(accents) - event_size(small) == pytest.approx(200_000, abs=100)
    assert event_size(result) - event_size(small) == pytest.approx(50_000, abs=100)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert event_size(replace(small, event_data={"deep": deep})) > 100_000
    numbers = replace(small, event_data={"numbers": list(range(10_000))})
    assert event_size(numbers) > 10_000


async def test_what_hangs_goes_to_the_spool_once_given_up_and_is_delivered_at_the_next_start(
    tmp_path: Path,
) -> None:
    store = Store()
    store.hang.clear()
    delivery = Delivery(store, "old-worker", Spool(tmp_path))  # type: ignore[arg-type]
    first = asyncio.create_task(delivery.store_batch([said(A, 2)]))
    await asyncio.sleep(0)
    assert delivery.give_up()
    await first
    await delivery.store_batch([said(A, 3, Outcome("completed", output={"text": "late"}))])
    assert store.calls == []

    again = Store()
    await Delivery(again, "new-worker", Spool(tmp_path)).deliver_spooled()  # type: ignore[arg-type]
    assert again.calls == [("append", [(A, 2)]), ("finish", [(A, 1)])]
    assert list(tmp_path.iterdir()) == []


async def test_a_spool_waits_for_a_database_that_is_away_and_survives_one_bad_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Spool(tmp_path).write("old", [said(A, 2)])
    (tmp_path / "broken.spool.json").write_text("{")
    store = Store()
    store.error = UnreachableError("away")
    with pytest.raises(UnreachableError):
        await Delivery(store, "new", Spool(tmp_path)).deliver_spooled()  # type: ignore[arg-type]
    assert len(list(tmp_path.iterdir())) == 2
    store.error = SupabaseError("refused")
    await Delivery(store, "new", Spool(tmp_path)).deliver_spooled()  # type: ignore[arg-type]
    assert len(list(tmp_path.iterdir())) == 2
    store.error = None
    await Delivery(store, "new", Spool(tmp_path)).deliver_spooled()  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["broken.spool.json.unreadable"]
    assert caplog.text.count("cannot be read") == 1


async def test_without_a_spool_there_is_nothing_to_give_up_to() -> None:
    assert not Delivery(Store(), "w").give_up()  # type: ignore[arg-type]


def test_a_spool_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="spool"):
        Spool(tmp_path / "file" / "below")


def test_an_unstorable_end_becomes_a_failure_with_its_cause() -> None:
    event = said(A, 3, Outcome("completed", output={"text": "x"}))
    replacement = Delivery.unstorable(event, ValueError("no such character"))
    assert replacement.id != event.id
    assert replacement.outcome is not None
    assert replacement.outcome.kind == "failed"
    assert "no such character" in replacement.outcome.error["message"]  # type: ignore[index]


@pytest.mark.parametrize("size", [100, 60_000])
async def test_a_413_to_what_is_small_is_weather(size: int) -> None:
    store = Store()
    store.error = DataRefusedError("too large", code="413")
    event = replace(said(A, 2), event_data={"text": "x" * size})
    with pytest.raises(UnreachableError, match="not too large"):
        await Delivery(store, "w").store_batch([event])  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "code"), [(70_000, "413"), (2_000_000, "413"), (10, "22P02"), (10, None)])
async def test_what_is_large_or_refused_for_another_reason_stays_refused(size: int, code: str | None) -> None:
    store = Store()
    store.error = DataRefusedError("refused", code=code)
    event = replace(said(A, 2), event_data={"text": "x" * size})
    with pytest.raises(DataRefusedError):
        await Delivery(store, "w").store_batch([event])  # type: ignore[arg-type]
