"""env.example names every setting with its real default, and is itself a valid .env."""

from __future__ import annotations

from pathlib import Path

import pytest

from reactive_worker.settings import Settings, read_env_file

FILE = Path(__file__).parents[3] / "env.example"
LINES = {
    name.removeprefix("# "): value
    for name, equals, value in (line.partition("=") for line in FILE.read_text().splitlines())
    if equals and name.removeprefix("# ").isidentifier()
}


def test_it_parses() -> None:
    assert read_env_file(FILE) == {"SUPABASE_URL": "", "SUPABASE_SERVICE_ROLE_KEY": ""}


@pytest.mark.parametrize("name", sorted(Settings.__dataclass_fields__))
def test_every_setting_is_there_with_its_default(name: str) -> None:
    spec = Settings.__dataclass_fields__[name]
    variable = spec.metadata["env"][0]
    assert variable in LINES
    if name not in ("url", "key", "agent_type"):
        shown = LINES[variable]
        assert (float(shown) if shown and isinstance(spec.default, int | float) else shown) == (
            spec.default if spec.default is not None else "0"
        )
