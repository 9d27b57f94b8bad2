"""What the demo digests: the given files or texts, by default the README, cut into pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reactive_worker.errors import ConfigurationError

#: The demo shows a stream: fewer tasks than this show nothing.
LEAST = 3
MOST = 9
#: Words below which a section is joined to the one before.
_SMALL = 25


@dataclass(frozen=True, slots=True)
class Piece:
    """One task of the demo."""

    title: str
    text: str
    sentences: int = 3


def pieces(arguments: Sequence[str]) -> list[Piece]:
    """Between 3 and 9 pieces of what was given; raises ConfigurationError when there is nothing to read."""
    found: list[Piece] = []
    for argument in arguments:
        path = Path(argument)
        # A text longer than a path may be makes stat() fail, and is a text.
        if len(argument) < 1000 and path.is_file():
            found.append(Piece(path.name, _read(path)))
        elif len(argument.split()) == 1 and ("/" in argument or path.suffix):
            raise ConfigurationError(f"no such file: {argument}")
        else:
            found.append(Piece("text", argument))
    if not arguments:
        found = [Piece("README", _readme())]
    if len(found) < LEAST:
        found = [section for piece in found for section in _sections(piece)]
    if not any(piece.text.split() for piece in found):
        raise ConfigurationError("there is nothing to read in what was given")
    whole = "\n\n".join(piece.text for piece in found)
    for sentences in range(1, LEAST + 1 - len(found)):
        found.append(Piece(f"all of it in {sentences}", whole, sentences))
    return found[:MOST]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None


def _readme() -> str:
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file() and (checkout / "README.md").is_file():
        return _read(checkout / "README.md")
    from importlib import metadata

    # In an installation the README travels as the package's long description.
    return str(metadata.metadata("reactive-worker").json.get("description") or __doc__)


def _sections(piece: Piece) -> list[Piece]:
    """A Markdown text by its headings; sections with little prose join the one before."""
    from reactive_worker.executors.digest import plain_text

    parts = re.split(r"^#{1,3} +(.+)$", piece.text, flags=re.MULTILINE)
    sections = [Piece(piece.title, parts[0])] if parts[0].strip() else []
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        if len(plain_text(text).split()) < _SMALL:
            if sections:
                last = sections[-1]
                sections[-1] = Piece(last.title, f"{last.text}\n\n{text}")
        else:
            sections.append(Piece(title.strip(" #`*"), text))
    return sections
