"""Reading JSON from strangers."""

from __future__ import annotations

import pytest

from reactive_worker.local.json_text import MAX_DEPTH, read_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null, true]}', {"a": [1, 2.5, None, True]}),
        (b'"\xc3\xa9"', "é"),
        (r'"\ud83d\ude00"', "😀"),
        (r'"\\ud800"', r"\ud800"),
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, None),
        ("[" + ",".join(["[{}]"] * 1000) + "]", [[{}]] * 1000),
        ("1e999", float("inf")),
    ],
)
def test_json_is_read(text: str | bytes, value: object) -> None:
    found = read_json(text)
    if value is not None:
        assert found == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "NaN",
        "[Infinity]",
        "[-Infinity]",
        b"\xff",
        r'"\ud800"',
        r'{"\udc00\ud800": 1}',
        r'"\uD83D x \uDE00"',
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        '{"a":' * 900 + "1" + "}" * 900,
        "[" * 1_000_000,
        "9" * 100_000,
    ],
)
def test_what_is_no_json_for_everybody_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        read_json(text)


def test_numbers_that_cannot_be_written_again_can_be_refused() -> None:
    assert read_json("[1e308, -2.5, 10]", finite=True) == [1e308, -2.5, 10]
    for text in ("1e999", "[-1e999]"):
        with pytest.raises(ValueError):
            read_json(text, finite=True)
