"""Flags of the documentation and flags of the program: what is written exists, and what exists is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from reactive_worker.cli.app import build_parser
from reactive_worker.cli.commands_page import PAGE, arguments, commands, markdown

ROOT = Path(__file__).parents[3]
PAGES = [
    ROOT / "README.md",
    ROOT / "env.example",
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("examples/*.md")),
]

#: Flags of other programs, by the line of a page they stand in.
OTHERS = {
    "--supabase-url": "pytest tests/conformance",
    "--supabase-service-key": "pytest tests/conformance",
    "--supabase-anon-key": "pytest tests/conformance",
    "--supabase-jwt-secret": "pytest tests/conformance",
    "--region": "supabase projects create",
    "--project-ref": "supabase link",
    "--now": "systemctl enable",
    "--create-home": "useradd",
    "--no-cache-dir": "pip install",
    "--upgrade": "pip install",
    "--submit": "examples/processgpt_server.py",
}

#: Not a marble diagram, which has more dashes or none in front: ``--a--b``.
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z]+(?:-[a-z]+)*(?![\w-])")
COMMANDS = dict(commands(build_parser()))
FLAGS = {path: {o for a in arguments(parser) for o in a.option_strings} for path, parser in COMMANDS.items()}


def called(line: str) -> list[tuple[str, ...]]:
    """The commands that a line calls."""
    words = [tuple(found.split()) for found in re.findall(r"reactive-worker((?: [a-z]+)+)", line)]
    return [word[:n] for word in words for n in (2, 1) if len(word) >= n and word[:n] in COMMANDS]


def unknown(text: str) -> Iterator[str]:
    """Flags that no command has; a line that calls commands may use only theirs."""
    for line in text.splitlines():
        known = set[str]().union(
            *(FLAGS[command] for command in called(line) or COMMANDS), {"--help"}, OTHERS
        )
        yield from (flag for flag in FLAG.findall(line) if flag not in known)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_flag_of_a_page_exists(page: Path) -> None:
    assert list(unknown(page.read_text(encoding="utf-8"))) == []


def test_a_flag_that_is_gone_is_noticed() -> None:
    assert list(unknown("`--default-timeout`")) == ["--default-timeout"]
    assert list(unknown("reactive-worker submit shout hello --concurrency 3")) == ["--concurrency"]
    assert list(unknown("reactive-worker workers list --timeout 3")) == ["--timeout"]
    assert list(unknown("reactive-worker run mine:shout --timeout 3 --help")) == []


def test_every_flag_is_on_the_page_of_the_commands() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), "python -m reactive_worker.cli.commands_page"


@pytest.mark.parametrize("path", [path for path in COMMANDS if path], ids=" ".join)
def test_every_flag_is_explained(path: tuple[str, ...]) -> None:
    without = [
        a.option_strings or a.dest for a in arguments(COMMANDS[path]) if a.option_strings and not a.help
    ]
    assert without == []
