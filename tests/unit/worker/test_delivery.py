"""Delivery: progress is appended, an end is finished with its events, the spool keeps what is left."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest

from reactive_worker.errors import ConfigurationError, SupabaseError, UnreachableError
from reactive_worker.models import Outcome, TodoEvent
from reactive_worker.worker.delivery import Delivery
from reactive_worker.worker.spool import Spool

A, B = str(uuid.uuid4()), str(uuid.uuid4())


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
        self.lost: frozenset[str] = frozenset()

    async def append(self, worker_id: str, events: Any) -> frozenset[str]:
        await self._answer()
        self.calls.append(("append", [(event.todolist_id, event.seq) for event in events]))
        return self.lost

    async def finish(self, worker_id: str, results: Any) -> list[tuple[str, str, str | None]]:
        await self._answer()
        self.calls.append(("finish", [(row["todolist_id"], len(row["events"])) for row in results]))
        return [(row["todolist_id"], "finished", row["kind"]) for row in results]

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
    store.lost = frozenset({A})
    result = await Delivery(store, "w").store_batch([said(A, 2)])  # type: ignore[arg-type]
    assert result.lost == {A}


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
    assert [path.name for path in tmp_path.iterdir()] == ["broken.spool.json"]
    assert "cannot be read" in caplog.text


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
