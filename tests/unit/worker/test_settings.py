"""Settings: one precedence, unset is not default, every mistake has its own line."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from reactive_worker.access.env_file import read_env_file
from reactive_worker.access.project import check_url
from reactive_worker.access.tokens import mint_token
from reactive_worker.errors import ConfigurationError
from reactive_worker.settings import Settings


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "SUPABASE_URL",
        "SUPABASE_SERVICE_ROLE_KEY",
        "SUPABASE_ANON_KEY",
        "DEFAULT_POLLING_INTERVAL",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_options_win_over_environment_over_file_over_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(
        "DEFAULT_POLLING_INTERVAL=7\nSUPABASE_URL=http://file\nREACTIVE_WORKER_LEASE=44\n"
    )
    monkeypatch.setenv("SUPABASE_URL", "http://environment/")
    monkeypatch.setenv("REACTIVE_WORKER_LEASE", "55")
    settings = Settings.load(lease=66.0)
    assert settings.polling_interval == 7
    assert settings.url == "http://environment"
    assert settings.lease == 66
    assert settings.concurrency == 10


def test_the_best_key_wins_and_never_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_ANON_KEY", "weak-key")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", "strong-key")
    settings = Settings.load()
    assert settings.key == "strong-key"
    assert "strong-key" not in repr(settings)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("SUPABASE_URL http://x", "line 1"),
        ("A=1\nSUPABASE_URL", "SUPABASE_URL has no value"),
        ("DEFAULT_POLLING_INTERVAL=often", "DEFAULT_POLLING_INTERVAL must be a number, not 'often'"),
        ("DEFAULT_POLLING_INTERVAL=-1", "polling-interval must be a positive number"),
        ("DEFAULT_POLLING_INTERVAL=nan", "polling-interval must be a positive number"),
        ("REACTIVE_WORKER_CONCURRENCY=0", "concurrency must be at least 1"),
        ("REACTIVE_WORKER_LEASE=10\nREACTIVE_WORKER_HEARTBEAT=9", "at most half the lease"),
        ("LOG_LEVEL=LOUD", "log level must be one of"),
        ("REACTIVE_WORKER_PUSH=fast", "push must be one of auto, changes, broadcast, both, not 'fast'"),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / ".env").write_text(content)
    with pytest.raises(ConfigurationError, match=words):
        Settings.load()


def test_a_file_that_was_asked_for_must_exist() -> None:
    with pytest.raises(ConfigurationError, match="no such env file"):
        Settings.load(env_file="nowhere.env")


@pytest.mark.parametrize(
    "url", ["localhost:54321", "ftp://x", "http://", "http://x y", "http://x:99999", "http://x/rest/v1"]
)
def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="SUPABASE_URL"):
        check_url(url)


def test_what_is_missing_says_where_to_get_it() -> None:
    with pytest.raises(ConfigurationError, match=r"no SUPABASE_URL.*reactive-worker dev"):
        Settings().require_connection()
    with pytest.raises(ConfigurationError, match="SUPABASE_SERVICE_ROLE_KEY"):
        Settings(url="http://x").require_connection()


def jwt_of(role: str) -> str:
    return mint_token("a-secret-with-at-least-thirty-two-bytes", role=role, expires_in=60)


def test_a_worker_takes_a_token_beside_any_key_of_the_project(tmp_path: Path) -> None:
    token = jwt_of("reactive_worker")
    settings = Settings(url="http://x", key="sb_publishable_x", worker_token=token)
    assert settings.worker_credentials().headers() == {
        "apikey": "sb_publishable_x",
        "Authorization": f"Bearer {token}",
    }
    assert token not in repr(settings)
    # Clients do not take it: it may do nothing of theirs.
    assert settings.require_connection().key == "sb_publishable_x"
    # Alone it is the key as well, where the gateway lets it.
    assert Settings(url="http://x", worker_token=token).worker_credentials().apikey == token
    assert Settings(url="http://x", key=token).worker_credentials().headers()["apikey"] == token
    (tmp_path / "token").write_text(token)
    assert Settings(url="http://x", worker_token_file="token").worker_credentials().token() == token


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no Supabase key"),
        ({"worker_token": "sb_secret_x"}, "the worker token is no JWT"),
        ({"worker_token": "a b"}, "the worker token contains blanks"),
        ({"worker_token": jwt_of("x"), "key": "a b"}, "the Supabase key contains blanks"),
        ({"worker_token": "x", "worker_token_file": "y"}, "not both"),
        ({"worker_token_file": "y"}, "cannot read y"),
    ],
)
def test_credentials_that_cannot_be_used(options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        Settings(url="http://x", **options).worker_credentials()  # type: ignore[arg-type]
    assert "sb_secret" not in str(caught.value)


def test_a_key_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("key-in-a-file\n")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY_FILE", "key")
    assert Settings.load().key == "key-in-a-file"
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", "said-outright")
    assert Settings.load().key == "said-outright"


def test_a_key_in_the_wrong_place_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REACTIVE_WORKER_LEASE", "sb_secret_abc")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    assert "sb_secret_abc" not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        check_url("postgresql://postgres:hunter22@db.abc.supabase.co/postgres")
    assert "hunter22" not in str(caught.value)


def test_the_heartbeat_follows_the_lease_unless_it_is_set() -> None:
    assert Settings(lease=15).heartbeat_interval == 5
    assert replace(Settings(), lease=6).heartbeat_interval == 2
    assert Settings(lease=15, heartbeat=7).heartbeat_interval == 7
    with pytest.raises(ConfigurationError, match=r"heartbeat \(8 s\) must be at most half the lease"):
        Settings(lease=15, heartbeat=8)


def test_a_line_that_is_no_setting_is_told_whatever_the_logging(tmp_path: Path) -> None:
    (tmp_path / "x.env").write_text("A=1\nno setting\n")
    logging.disable(logging.CRITICAL)
    try:
        with pytest.raises(ConfigurationError, match="line 2"):
            read_env_file(tmp_path / "x.env")
        assert logging.root.manager.disable == logging.CRITICAL
    finally:
        logging.disable(logging.NOTSET)
