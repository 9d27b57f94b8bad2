"""Log lines for people and for collectors."""

from __future__ import annotations

import json
import logging

import pytest

from reactive_worker.access.logs import JsonFormatter, PlainFormatter, log_by_default


def record(**extra: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": "reactive_worker.worker.worker",
            "levelname": "INFO",
            "msg": "claimed %d",
            "args": (3,),
            **extra,
        }
    )


def test_a_line_for_people_drops_our_own_prefix() -> None:
    assert PlainFormatter().format(record()).endswith("INFO     worker.worker   claimed 3")


def test_a_json_line_carries_what_was_passed_as_extra() -> None:
    line = json.loads(JsonFormatter().format(record(action="claimed", todolist_id="x")))
    assert line["message"] == "claimed 3"
    assert line["logger"] == "reactive_worker.worker.worker"
    assert (line["action"], line["todolist_id"]) == ("claimed", "x")


def test_an_exception_is_part_of_the_json_line() -> None:
    try:
        raise ValueError("bad")
    except ValueError as error:
        made = record(exc_info=(type(error), error, error.__traceback__))
    lines = JsonFormatter().format(made).splitlines()
    assert len(lines) == 1
    assert "ValueError: bad" in json.loads(lines[0])["exception"]


def test_a_worker_logs_unless_the_program_has_set_up_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, root = logging.getLogger("reactive_worker"), logging.getLogger()
    monkeypatch.setattr(ours, "handlers", [])
    monkeypatch.setattr(ours, "level", logging.NOTSET)
    monkeypatch.setattr(root, "handlers", [logging.NullHandler()])
    log_by_default("INFO")
    assert ours.handlers == []
    monkeypatch.setattr(root, "handlers", [])
    log_by_default("INFO")
    assert len(ours.handlers) == 1
    assert ours.isEnabledFor(logging.INFO)
    log_by_default("INFO")
    assert len(ours.handlers) == 1
    ours.setLevel(logging.NOTSET)
