"""The spool: files that cannot be read are set aside, and hold up no other."""

from __future__ import annotations

import json
import logging
import os
import stat
import uuid
from pathlib import Path

import pytest

from reactive_worker.models import Outcome, TodoEvent
from reactive_worker.worker.spool import ASIDE, Spool

A = str(uuid.UUID(int=1))


def end(text: str = "done") -> TodoEvent:
    return TodoEvent(A, 3, "task_completed", {}, seq=7, outcome=Outcome("completed", output={"text": text}))


def good(path: Path) -> dict[str, object]:
    """What stands in a file that was written as it should be."""
    file = Spool(path / "elsewhere").write("w", [end()])
    return json.loads(file.read_text())


def test_what_is_kept_comes_back_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for n in range(12):
        spool.write("w", [end(str(n))])
    found = Spool(tmp_path).batches()
    assert [worker for _, worker, _ in found] == ["w"] * 12
    texts = [event.outcome.output["text"] for _, _, (event,) in found if event.outcome is not None]
    assert texts == [str(n) for n in range(12)]


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_files_are_for_this_user_only(tmp_path: Path, mask: int) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    before = os.umask(mask)
    try:
        path = Spool(tmp_path / "open").write("w", [end()])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


DEEP = 3_000
BROKEN = {
    "deep": '{"worker_id": "w", "events": ' + "[" * DEEP + "]" * DEEP + "}",
    "deep in an event": '{"worker_id": "w", "events": [{"event_data": '
    + "[" * 100_000
    + "]" * 100_000
    + "}]}",
    "empty": "",
    "no JSON": "<html>",
    "a list": "[]",
    "a number": "7",
    "null": "null",
    "a number too long": '{"worker_id": "w", "events": ' + "1" * 5_000 + "}",
    "without events": '{"worker_id": "w"}',
    "without a worker": '{"events": []}',
    "odd events": '{"worker_id": "w", "events": [1, "x"]}',
    "an event of another kind": '{"worker_id": "w", "events": [{"outcome": null, "colour": "red"}]}',
    "an outcome of another kind": '{"worker_id": "w", "events": [{"outcome": {"colour": "red"}}]}',
    "of a later version": '{"version": 2, "worker_id": "w", "events": []}',
    "of no version": '{"version": "x", "worker_id": "w", "events": []}',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_read_is_set_aside_with_one_line(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path)
    spool.write("w", [end("before")])
    (tmp_path / "x-000001.spool.json").write_text(content)
    spool.write("z", [end("after")])
    caplog.set_level(logging.DEBUG)
    assert len(spool.batches()) == 2
    (line,) = caplog.records
    assert (line.levelname, "x-000001.spool.json.unreadable" in line.getMessage()) == ("ERROR", True)
    assert (tmp_path / f"x-000001.spool.json{ASIDE}").read_text() == content
    # The next start says nothing more of it.
    caplog.clear()
    assert len(Spool(tmp_path).batches()) == 2
    assert caplog.records == []


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_cut_anywhere_is_set_aside(tmp_path: Path, share: float) -> None:
    text = json.dumps(good(tmp_path))
    (tmp_path / "cut.spool.json").write_text(text[: int(len(text) * share)])
    assert Spool(tmp_path).batches() == []
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [f"cut.spool.json{ASIDE}"]


def test_a_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    content = good(tmp_path)
    assert content.pop("version") == 1
    (tmp_path / "old.spool.json").write_text(json.dumps(content))
    ((_, worker, events),) = Spool(tmp_path).batches()
    assert (worker, [event.seq for event in events]) == ("w", [7])


def test_bytes_that_are_no_text_are_set_aside(tmp_path: Path) -> None:
    (tmp_path / "x.spool.json").write_bytes(b"\xff\xfe\x00")
    assert Spool(tmp_path).batches() == []
    assert (tmp_path / f"x.spool.json{ASIDE}").exists()
