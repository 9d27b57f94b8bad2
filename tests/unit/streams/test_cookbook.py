"""The operators guide holds what it promises. (Its blocks run with those of all other pages.)"""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = Path(__file__).parents[3] / "docs" / "operators.md"


def test_there_are_ten_recipes() -> None:
    assert len(re.findall(r"^### \d+\. ", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)) == 10
