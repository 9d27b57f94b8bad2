"""Help and prompts fit a terminal of 80 columns."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import pytest

from reactive_worker.cli.app import build_parser


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for child in action.choices.values():
                yield from parsers(child)


@pytest.mark.parametrize("parser", [*parsers(build_parser())], ids=lambda parser: parser.prog)
def test_help_fits(parser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = [line for line in parser.format_help().splitlines() if len(line) > 80]
    assert not long
