"""What the demo reads, and what its digest finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from reactive_worker.cli.demo_texts import LEAST, MOST, pieces
from reactive_worker.errors import ConfigurationError
from reactive_worker.executors.digest import digest, plain_text

TEXT = """# Tides

The moon pulls the water of the oceans and so makes the tides. Twice a day the water rises and falls.

```python
ignored = "code is no prose and must never be quoted in a digest"
```

| a | table | is | no | prose |

- Fishermen of the [northern](https://example.org) islands know the tides by heart.
- The **moon** also slows the earth a little every year by the friction of the tides.
"""


def test_the_readme_is_the_default() -> None:
    assert LEAST <= len(pieces([])) <= MOST


def test_few_texts_are_filled_up_and_many_are_cut(tmp_path: Path) -> None:
    assert len(pieces(["one sentence about the moon"])) == LEAST
    files = [tmp_path / f"{number}.md" for number in range(12)]
    for file in files:
        file.write_text(TEXT)
    assert [piece.title for piece in pieces([str(file) for file in files])] == [
        f"{n}.md" for n in range(MOST)
    ]


def test_a_missing_file_is_told_from_a_text() -> None:
    with pytest.raises(ConfigurationError, match=r"no such file: nowhere\.md"):
        pieces(["nowhere.md"])
    with pytest.raises(ConfigurationError, match="nothing to read"):
        pieces([" "])


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text"):
        pieces([str(tmp_path / "x.bin")])


def test_a_digest_quotes_prose_only_in_its_order() -> None:
    found = digest(TEXT, sentences=2)
    assert len(found.sentences) == 2
    prose = " ".join(plain_text(TEXT).split())
    places = [prose.index(sentence) for sentence in found.sentences]
    assert places == sorted(places)
    assert {"tides", "moon"} <= {word for word, _ in found.keywords[:3]}
    assert "ignored" not in prose
    assert "table" not in prose


@pytest.mark.parametrize(
    "text", ["", "   ", "word", "# heading", "漢字。漢字。", "." * 10_000, "a b c d. " * 5000]
)
def test_any_text_has_a_digest(text: str) -> None:
    digest(text)
