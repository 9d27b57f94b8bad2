"""docs/settings.md is what the settings say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from reactive_worker.cli.app import build_parser
from reactive_worker.cli.settings_page import markdown, option
from reactive_worker.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), (
        "python -m reactive_worker.cli.settings_page > docs/settings.md"
    )


@pytest.mark.parametrize("name", [name for name in Settings.__dataclass_fields__ if option(name)])
def test_every_option_of_the_page_exists(name: str) -> None:
    value = "DEBUG" if name == "log_level" else "1"
    build_parser().parse_args(["run", "module:attribute", option(name), value])
