"""Telemetry: the documented contract, guarded handlers, and log lines as one subscriber."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from reactive_worker.worker import telemetry
from reactive_worker.worker.telemetry import (
    EVENTS,
    RunEnded,
    Telemetry,
    TelemetryEvent,
    WorkerPaused,
    log_line,
)

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"

SAMPLES: dict[str, Any] = {"str": "x", "int": 1, "float": 1.5, "tuple[str, ...]": ("x",)}


def made(event: type[TelemetryEvent]) -> TelemetryEvent:
    build: Callable[..., TelemetryEvent] = event
    return build(*(SAMPLES[str(field.type)] for field in fields(event)))


def test_the_documented_table_is_the_contract() -> None:
    rows = [line.split("|") for line in OPERATIONS.read_text().splitlines() if line.startswith("| `")]
    documented = {
        row[1].strip(): (row[2].strip(), row[3].strip(), row[4].strip()) for row in rows if len(row) == 6
    }
    contract = {
        f"`{event.action}`": (
            ", ".join(f"`{field.name}`" for field in fields(event)),
            logging.getLevelName(event.level).lower(),
            (event.__doc__ or "").strip().splitlines()[0],
        )
        for event in EVENTS
    }
    assert {name: row for name, row in documented.items() if "." in name} == contract


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.action)
def test_each_event_makes_a_log_line_with_its_fields(
    event: type[TelemetryEvent], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="reactive_worker")
    one = made(event)
    log_line(one)
    (record,) = caplog.records
    assert record.getMessage() == str(one)
    assert "{" not in record.getMessage()
    assert (record.levelno, vars(record)["action"]) == (event.level, event.action)
    assert one.details().items() <= vars(record).items()


def test_names_are_each_there_once() -> None:
    names = [event.action for event in EVENTS]
    assert len(set(names)) == len(names)
    assert all(getattr(telemetry, event.__name__) is event for event in EVENTS)


def test_a_raising_handler_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    bus, told = Telemetry(), list[TelemetryEvent]()

    def raising(event: TelemetryEvent) -> None:
        raise RuntimeError("a metrics server is away")

    bus.attach(raising)
    attached = bus.attach(told.append)
    ended = RunEnded("7", 1, "digest", "completed", 0.5)
    bus.emit(ended)
    bus.emit(WorkerPaused())
    assert told == [ended, WorkerPaused()]
    assert caplog.text.count("a telemetry handler raised") == 2
    attached.dispose()
    bus.emit(WorkerPaused())
    assert len(told) == 2
