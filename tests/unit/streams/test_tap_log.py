"""`tap_log`: looking changes nothing."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from reactive_worker.streams import tap_log
from reactive_worker.testing.marbles import VirtualTime


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_everything_is_logged_and_passes_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "reactive_worker.streams")
    time = VirtualTime()
    result = time.observe(time.hot("-a-b-|").pipe(tap_log("letters", describe=str.upper)))
    time.run()
    assert result.messages == time.messages("-a-b-|")
    assert lines(caplog) == [
        ("DEBUG", "letters: A"),
        ("DEBUG", "letters: B"),
        ("DEBUG", "letters: completed"),
    ]


def test_errors_are_logged_as_errors(caplog: pytest.LogCaptureFixture) -> None:
    time = VirtualTime()
    error = RuntimeError("broke")
    result = time.observe(time.hot("-#", error=error).pipe(tap_log("letters")))
    time.run()
    assert result.error is error
    assert lines(caplog) == [("ERROR", "letters: ended by RuntimeError('broke')")]


def test_nothing_is_described_that_nobody_reads() -> None:
    def describe(value: Any) -> str:
        raise AssertionError("it was described")

    time = VirtualTime()
    quiet = logging.getLogger("test_tap_log.quiet")
    quiet.setLevel(logging.WARNING)
    result = time.observe(time.hot("-a|").pipe(tap_log("letters", logger=quiet, describe=describe)))
    time.run()
    assert result.messages == time.messages("-a|")


def test_a_description_that_raises_is_logged_in_its_place(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    time = VirtualTime()
    numbers = time.hot("-0|").pipe(tap_log("numbers", level=logging.INFO, describe=lambda n: 1 // n))
    result = time.observe(numbers)
    time.run()
    assert result.completed
    assert "cannot be described: ZeroDivisionError" in lines(caplog)[0][1]
