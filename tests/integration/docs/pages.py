"""Reading the documentation as a program: its blocks of code, and what stands in comments for the tests.

A block runs unless a comment right above it says why it cannot::

    <!-- shown: needs a hosted project -->

What a block needs and a reader does not want to see stands in a comment, too, and runs first::

    <!-- first
    context = FakeContext()
    -->

``<!-- raises: RetryLater -->`` says that a block ends with that exception. A block whose first line is
```` ```python title="shout.py" ```` is also written to that file, for the commands that follow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```\s*?$", re.DOTALL | re.MULTILINE)
_COMMENTS = re.compile(r"(?:<!--(?:(?!-->).)*-->\s*)+\Z", re.DOTALL)
_COMMENT = re.compile(r"<!--\s*(?P<word>[a-z]+):?(?P<rest>.*?)-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block of code."""

    page: str
    #: Of its first line of code, counted from 1.
    line: int
    language: str
    code: str
    title: str
    #: Why it is only shown; empty: it runs.
    shown: str
    #: Code that runs before it.
    first: str
    #: Name of the exception it ends with.
    raises: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every page that may hold code, relative to the checkout."""
    found = [ROOT / "README.md", *sorted(ROOT.glob("examples/*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
    return [str(page.relative_to(ROOT)) for page in found]


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [_block(page, text, found) for found in _FENCE.finditer(text)]


def _block(page: str, text: str, found: re.Match[str]) -> Block:
    above = _COMMENTS.search(text[: found.start()])
    said = {
        comment["word"]: comment["rest"].strip("\n").rstrip()
        for comment in _COMMENT.finditer(above.group() if above else "")
    }
    language, _, rest = found["info"].strip().partition(" ")
    title = re.search(r'title="([^"]+)"', rest)
    return Block(
        page=page,
        line=text.count("\n", 0, found.start("code")) + 1,
        language=language,
        code=found["code"],
        title=title[1] if title else "",
        shown=said.get("shown", "").strip(),
        first=said.get("first", ""),
        raises=said.get("raises", "").strip(),
    )
