"""docs/settings.md, env.example and the options of `run` are what the settings say of themselves."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from reactive_worker.access.env_file import read_env_file
from reactive_worker.cli.app import build_parser
from reactive_worker.cli.settings_page import env_example, markdown
from reactive_worker.settings import Settings, option_of

ROOT = Path(__file__).parents[2]
OPTIONS = [spec for spec in fields(Settings) if option_of(spec)]


@pytest.mark.parametrize(("file", "made"), [("docs/settings.md", markdown), ("env.example", env_example)])
def test_what_is_written_is_up_to_date(file: str, made: Any) -> None:
    assert (ROOT / file).read_text(encoding="utf-8") == made(), "python -m reactive_worker.cli.settings_page"


@pytest.mark.parametrize("spec", OPTIONS, ids=lambda spec: spec.name)
def test_every_setting_with_an_option_is_an_option_of_run(spec: Any) -> None:
    value = "DEBUG" if spec.name == "log_level" else "1"
    args = build_parser().parse_args(["run", "module:attribute", option_of(spec), value])
    assert str(getattr(args, spec.name)).removesuffix(".0") == value


def test_env_example_is_a_valid_env_file_with_every_variable_and_default(tmp_path: Path) -> None:
    assert read_env_file(ROOT / "env.example") == {"SUPABASE_URL": "", "SUPABASE_SERVICE_ROLE_KEY": ""}
    lines = (ROOT / "env.example").read_text().splitlines()
    for spec in fields(Settings):
        variable = spec.metadata["env"][0]
        (line,) = [one for one in lines if one.removeprefix("# ").startswith(f"{variable}=")][:1]
        # Taken as it stands there, it changes nothing.
        (tmp_path / ".env").write_text(line.removeprefix("# "))
        loaded = Settings.load(tmp_path / ".env")
        assert getattr(loaded, spec.name) == spec.default
