"""`init` copies a whole project, never over anything of the user's."""

from __future__ import annotations

import json
from pathlib import Path

from reactive_worker.cli.project import source_files
from tests.unit.cli.conftest import Command


def test_it_copies_migrations_config_seed_and_env(command: Command, tmp_path: Path) -> None:
    result = command("init", "project")
    assert result.code == 0
    copied = {str(path.relative_to(tmp_path / "project")) for path in (tmp_path / "project").rglob("*.*")}
    assert {"env.example", "supabase/config.toml", "supabase/seed.sql"} <= copied
    assert any(name.startswith("supabase/migrations/") for name in copied)
    assert "supabase/optional/anon_demo.sql" in copied
    for file, name in source_files():
        assert (tmp_path / "project" / name).read_bytes() == file.read_bytes()
    assert "supabase db push" in result.out


def test_repeating_it_changes_nothing(command: Command) -> None:
    command("init", "--json")
    result = command("init", "--json")
    assert result.code == 0
    assert {json.loads(line)["result"] for line in result.out.splitlines()} == {"unchanged"}


def test_a_file_that_differs_stops_it_before_anything_is_written(command: Command, tmp_path: Path) -> None:
    (tmp_path / "supabase").mkdir()
    (tmp_path / "supabase" / "seed.sql").write_text("mine")
    result = command("init")
    assert result.code == 2
    assert "supabase/seed.sql is there already and differs" in result.error
    assert not (tmp_path / "env.example").exists()
    assert (tmp_path / "supabase" / "seed.sql").read_text() == "mine"


def test_force_overwrites(command: Command, tmp_path: Path) -> None:
    (tmp_path / "env.example").write_text("mine")
    result = command("init", "--force", "--json")
    assert result.code == 0
    results = {json.loads(line)["file"]: json.loads(line)["result"] for line in result.out.splitlines()}
    assert results["env.example"] == "replaced"
    assert (tmp_path / "env.example").read_text() != "mine"


def test_a_target_that_is_no_directory(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = command("init", "file")
    assert result.code == 2
    assert "file is no directory" in result.error
