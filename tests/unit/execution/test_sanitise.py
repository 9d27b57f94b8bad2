"""Redaction, storable text, bounded error records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_worker.execution.sanitise import (
    MESSAGE_LIMIT,
    TRACEBACK_LIMIT,
    describe,
    error_record,
    redact,
    shorten,
    storable,
    without_nul,
)

JWT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0."
    "EGIM96RAZx35lJzdJsyH-qQwv8Hdp7fsn3W0"
)


@pytest.mark.parametrize(
    "secret",
    [
        JWT,
        JWT.rsplit(".", 1)[0],
        "sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz",
        "sbp_0102030405060708090a0b0c0d0e0f1011121314",
        "sk-abcdefghijklmnop",
        "sk-proj-abc_DEF-123456789012345678901234567890",
        "sk-ant-api03-abcdefghijklmnop",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "github_pat_11ABCDEFG0123456789_abcdefghijkl",
        "xoxb-123456789012-abcdefghijkl",
        "AKIAIOSFODNN7EXAMPLE",
        "AIzaSyA-abcdefghijklmnopqrstuvwxyz012345",
    ],
)
@pytest.mark.parametrize("around", ["{}", "key={},", "apikey_{} ", '{{"k": "{}"}}', "({})\n", "'{}'"])
def test_keys_are_taken_out_wherever_they_stand(secret: str, around: str) -> None:
    redacted = redact(around.format(secret))
    assert secret not in redacted
    assert redacted == around.format("[redacted]")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://postgres:hunter2@db:5432/x", "postgresql://postgres:[redacted]@db:5432/x"),
        ("redis://:hunter2@cache", "redis://:[redacted]@cache"),
        ("Authorization: Bearer abcdef0123456789", "Authorization: Bearer [redacted]"),
        (f"two: {JWT} {JWT}", "two: [redacted] [redacted]"),
    ],
)
def test_labelled_secrets_keep_their_label(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "task-force-one and risk-assessment",
        "https://example.org:8080/path?x=1",
        "sb_publishable_ACJWlzQHlZjBrEguHvfOxg",
        "a bearer of news",
        "user@example.org",
        "eye",
        "File /srv/sk/a.py, line 3",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("unit", ["a.", "eyJ", "://:", "sk-", "a", "bearer ", "a:b@"])
@pytest.mark.timeout(30)
def test_hostile_text_costs_no_time(unit: str) -> None:
    # A pattern that backtracks would need minutes for these.
    redact(unit * 40_000)


@given(st.text(st.characters(codec=None)))
def test_storable_text_can_be_stored(text: str) -> None:
    stored = storable(text)
    stored.encode("utf-8")
    assert "\0" not in stored
    assert len(stored) == len(text)


def test_nul_is_replaced_in_nested_json() -> None:
    value = {"a\0": ["b\0", {"c": "\0"}], "n": 1, "none": None, "yes": True}
    assert without_nul(value) == {
        "a\ufffd": ["b\ufffd", {"c": "\ufffd"}],
        "n": 1,
        "none": None,
        "yes": True,
    }


def test_shorten_keeps_short_texts_and_marks_long_ones() -> None:
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "ab…"


def _deep(levels: int) -> None:
    if levels:
        _deep(levels - 1)
    raise ValueError("bottom " + JWT)


def test_an_error_record_keeps_the_end_of_the_traceback() -> None:
    with pytest.raises(ValueError) as caught:
        _deep(40)
    record = error_record(caught.value)
    assert record["type"] == "ValueError"
    assert record["message"] == "bottom [redacted]"
    assert len(record["traceback"]) <= TRACEBACK_LIMIT + 2
    assert record["traceback"].endswith("ValueError: bottom [redacted]\n")
    assert JWT not in record["traceback"]


def test_a_key_cut_in_two_by_the_limit_is_not_left_half() -> None:
    message = "x" * (MESSAGE_LIMIT - 40) + " " + JWT
    assert "eyJ" not in describe(ValueError(message))


def _caused() -> None:
    try:
        raise KeyError("the cause")
    except KeyError as error:
        raise RuntimeError("the effect") from error


def test_causes_are_part_of_the_record() -> None:
    with pytest.raises(RuntimeError) as caught:
        _caused()
    assert "the cause" in error_record(caught.value)["traceback"]
    assert error_record(caught.value, kind="timeout")["type"] == "timeout"
