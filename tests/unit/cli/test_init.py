"""`init` writes what works at once, never over anything of the user's, and may be run again for ever."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest

from reactive_worker.access.env_file import read_env_file
from reactive_worker.cli import project
from reactive_worker.cli.project import MANIFEST, source_files
from reactive_worker.local.keys import Keys
from tests.unit.cli.conftest import Command, Result


def results(result: Result) -> dict[str, str]:
    assert result.code == 0, result.err
    return {json.loads(line)["file"]: json.loads(line)["result"] for line in result.out.splitlines()}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_folder_gets_a_whole_project(command: Command, tmp_path: Path) -> None:
    result = command("init", "project")
    assert result.code == 0
    written = tree(tmp_path / "project")
    for file, name in source_files():
        assert written[name] == file.read_bytes()
    assert set(written) - {name for _, name in source_files()} == {
        "agents.py",
        ".env",
        ".gitignore",
        MANIFEST,
    }
    ast.parse(written["agents.py"])
    assert b".env\n" in written[".gitignore"]
    assert read_env_file(tmp_path / "project" / ".env") == {
        "SUPABASE_URL": "http://127.0.0.1:54321",
        "SUPABASE_SERVICE_ROLE_KEY": Keys.default().service_role_key,
        "DEFAULT_AGENT_TYPE": "hello",
    }
    for words in ("in project", "reactive-worker dev", "run agents:hello", "supabase db push"):
        assert words in result.out
    assert max(len(line) for line in result.out.splitlines()) <= 80


def test_repeating_it_changes_nothing(command: Command, tmp_path: Path) -> None:
    command("init", "--json")
    before = tree(tmp_path)
    assert set(results(command("init", "--json")).values()) == {"unchanged"}
    assert tree(tmp_path) == before


def test_what_the_user_made_of_it_is_kept(command: Command, tmp_path: Path) -> None:
    command("init")
    for name in ("agents.py", ".env", ".gitignore", "supabase/optional/tenants.sql", "env.example"):
        (tmp_path / name).write_text("mine")
    before = tree(tmp_path)
    found = results(command("init", "--json"))
    assert found["supabase/optional/tenants.sql"] == found["env.example"] == "kept"
    assert tree(tmp_path) == before
    assert "supabase/optional/tenants.sql  (you have changed it" in command("init").out
    found = results(command("init", "--force", "--json"))
    assert found["env.example"] == "replaced"
    # Those were never ours.
    assert [(tmp_path / name).read_text() for name in ("agents.py", ".env", ".gitignore")] == ["mine"] * 3


def test_an_upgrade_needs_no_force(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command("init")
    new = tmp_path / "new.sql"
    new.write_text("-- a new version")
    old = source_files()
    upgraded = [(new if name.endswith("tenants.sql") else file, name) for file, name in old]
    upgraded.append((new, "supabase/migrations/20990101000000_more.sql"))
    monkeypatch.setattr(project, "source_files", lambda: upgraded)
    for expected in ({"updated", "created", "unchanged"}, {"unchanged"}):
        assert set(results(command("init", "--json")).values()) == expected
    assert (tmp_path / "supabase/optional/tenants.sql").read_text() == "-- a new version"


@pytest.mark.parametrize("own", ["config.toml", "seed.sql"])
def test_a_project_that_is_there_gets_migrations_and_options_only(
    command: Command, tmp_path: Path, own: str
) -> None:
    migrations = tmp_path / "supabase" / "migrations"
    migrations.mkdir(parents=True)
    (tmp_path / "supabase" / own).write_text("# mine")
    (migrations / "20200101000000_tickets.sql").write_text("create table tickets ();")
    before = tree(tmp_path)
    for options in ((), (), ("--force",)):
        result = command("init", *options)
        assert result.code == 0
        assert "--include-all" not in result.out
        after = tree(tmp_path)
        assert {name: after[name] for name in before} == before
        assert {os.path.dirname(name) for name in set(after) - set(before)} == {
            "supabase/migrations",
            "supabase/optional",
        }


def test_migrations_of_the_project_that_are_newer_need_a_word(command: Command, tmp_path: Path) -> None:
    migrations = tmp_path / "supabase" / "migrations"
    migrations.mkdir(parents=True)
    (tmp_path / "supabase" / "config.toml").write_text("# mine")
    (migrations / "20991231000000_tickets.sql").write_text("create table tickets ();")
    assert "supabase db push --include-all" in command("init").out


def test_a_target_that_is_no_directory(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = command("init", "file")
    assert result.code == 2
    assert "file is no directory" in result.error
