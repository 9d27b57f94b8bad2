"""A supabase/ folder is found and its settings are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from reactive_worker.errors import ConfigurationError
from reactive_worker.local.project import AuthSettings, find_project, size_in_bytes


def make(folder: Path, config: str = "", **migrations: str) -> Path:
    (folder / "supabase" / "migrations").mkdir(parents=True)
    if config:
        (folder / "supabase" / "config.toml").write_text(config)
    for name, text in migrations.items():
        (folder / "supabase" / "migrations" / f"{name.lstrip('_')}.sql").write_text(text)
    return folder


def test_the_packaged_project_is_the_default() -> None:
    project = find_project()
    assert project.migrations()
    assert project.schemas[0] == "public"
    assert project.max_rows == 1000


def test_migrations_come_in_the_order_of_their_versions(tmp_path: Path) -> None:
    make(tmp_path, _20260102_b="", _20260101_a="", notes="not a migration")
    found = find_project(tmp_path).migrations()
    assert [(m.version, m.name) for m in found] == [("20260101", "a"), ("20260102", "b")]


def test_two_files_with_one_version_are_refused(tmp_path: Path) -> None:
    make(tmp_path, _1_a="", _1_b="")
    with pytest.raises(ConfigurationError, match="two migrations have version 1"):
        find_project(tmp_path).migrations()


def test_settings_of_config_toml(tmp_path: Path) -> None:
    make(
        tmp_path,
        '[api]\nschemas = ["api"]\nmax_rows = 5\n[db.seed]\nsql_paths = ["./seeds/*.sql"]\n',
    )
    (tmp_path / "supabase" / "seeds").mkdir()
    (tmp_path / "supabase" / "seeds" / "one.sql").write_text("select 1")
    project = find_project(tmp_path)
    assert project.schemas == ("api",)
    assert project.max_rows == 5
    assert [path.name for path in project.seed_files()] == ["one.sql"]


def test_seeding_can_be_switched_off(tmp_path: Path) -> None:
    make(tmp_path, "[db.seed]\nenabled = false\n")
    (tmp_path / "supabase" / "seed.sql").write_text("select 1")
    assert find_project(tmp_path).seed_files() == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[api", "cannot be read"),
        ("api = 1", "api must be a table"),
        ("[api]\nschemas = 'public'", "api.schemas"),
        ("[api]\nmax_rows = 0", "api.max_rows"),
    ],
)
def test_a_config_that_cannot_be_used_is_named(tmp_path: Path, config: str, message: str) -> None:
    make(tmp_path, config)
    with pytest.raises(ConfigurationError, match=message) as caught:
        find_project(tmp_path)
    assert "config.toml" in str(caught.value)


def test_a_folder_without_supabase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="reactive-worker init"):
        find_project(tmp_path)


def test_who_may_sign_up(tmp_path: Path) -> None:
    assert find_project(make(tmp_path / "usual")).auth == AuthSettings()
    config = (
        "[auth]\nenable_signup = false\nenable_anonymous_sign_ins = true\njwt_expiry = 60\n"
        "minimum_password_length = 10\nrefresh_token_reuse_interval = 5\n"
        "[auth.email]\nenable_confirmations = true\n"
    )
    assert find_project(make(tmp_path / "own", config)).auth == AuthSettings(
        signup=False,
        anonymous=True,
        confirmations=True,
        jwt_expiry=60,
        reuse_interval=5,
        minimum_password_length=10,
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("50MiB", 50 * 2**20),
        ("1KB", 1000),
        ("1.5gb", 1_500_000_000),
        ("10 MB", 10_000_000),
        (1024, 1024),
        ("12", 12),
        ("much", None),
        ("1XB", None),
        (True, None),
        (-1, None),
        (None, None),
    ],
)
def test_sizes(text: object, size: int | None) -> None:
    assert size_in_bytes(text) == size


def test_the_size_of_files(tmp_path: Path) -> None:
    config = '[storage]\nfile_size_limit = "1MiB"\n'
    assert find_project(make(tmp_path / "own", config)).file_size_limit == 2**20
    with pytest.raises(ConfigurationError, match="file_size_limit must be a size"):
        find_project(make(tmp_path / "odd", '[storage]\nfile_size_limit = "big"\n'))
