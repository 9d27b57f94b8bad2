"""Every block of code in the operators guide runs, each as a program of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[3] / "docs" / "operators.md"
TEXT = GUIDE.read_text(encoding="utf-8")
BLOCKS = [
    (TEXT.count("\n", 0, found.start(1)), found.group(1))
    for found in re.finditer(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
]


@pytest.mark.parametrize(("line", "code"), BLOCKS, ids=[f"line {line}" for line, _ in BLOCKS])
def test_the_block_runs(line: int, code: str) -> None:
    # Empty lines in front, so that a traceback names the line of the guide.
    exec(compile("\n" * line + code, str(GUIDE), "exec"), {"__name__": "guide"})


def test_there_are_ten_recipes() -> None:
    assert len(re.findall(r"^### \d+\. ", TEXT, re.MULTILINE)) == 10
