"""Whatever a row says is shown as text: no control, no override, no second line, and nothing hidden."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactive_worker.access.safe_text import safe_json, safe_text

#: Any text a row can hold, and halves of characters, which only Python can.
ANYTHING = st.text(st.characters(), max_size=200)
NASTY = st.text(
    st.sampled_from("a\x00\x07\x1b\x7f\x9b\n\r\t\x85\u200b\u200d\u2028\u202e\u2066\ufeff\U000e0041\ud800")
)


def unsafe(text: str) -> set[str]:
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, 한국어, ünïcode 👍🏽", "plain, 한국어, ünïcode 👍🏽"),
        ("\x1b]0;title\x07", "\\u001b]0;title\\u0007"),
        ("\x9b31m", "\\u009b31m"),
        ("one\r\ntwo\u2028three\x85four\tfive", "one  two three four five"),
        ("\u202eexe.txt\u2069", "\\u202eexe.txt\\u2069"),
        ("\U000e0041", "\\udb40\\udc41"),
        ("half \ud83d", "half \\ud83d"),
        ("می\u200cخواهم", "میخواهم"),
        ("a\xa0b", "a\xa0b"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert safe_text(text) == shown


def test_lines_are_kept_for_those_who_want_them() -> None:
    assert safe_text("a\r\n\tb\x1b\u2028c", lines=True) == "a\n\n\tb\\u001b\nc"


def test_anything_has_a_text() -> None:
    assert safe_text(None) == "None"


@given(ANYTHING | NASTY)
@settings(deadline=None)
def test_nothing_unsafe_is_left_of_any_text(text: str) -> None:
    assert unsafe(safe_text(text)) == set()
    assert unsafe(safe_text(text, lines=True)) <= {"\n", "\t"}
    assert safe_text(safe_text(text)) == safe_text(text)


@given(
    st.recursive(
        ANYTHING | NASTY | st.integers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY, inner, max_size=3),
        max_leaves=5,
    )
)
@settings(deadline=None)
def test_json_stays_what_it_was(value: object) -> None:
    line = safe_json(value)
    assert unsafe(line) == set()
    assert json.loads(line) == json.loads(json.dumps(value))


def test_json_keeps_letters_and_takes_a_default() -> None:
    assert safe_json({"q": "한국어\u202e", "at": 1j}, default=str) == '{"q": "한국어\\u202e", "at": "1j"}'
