"""`token mint` and `token show`."""

from __future__ import annotations

import json
from pathlib import Path

import jwt
import pytest

from reactive_worker.access.tokens import LOCAL_JWT_SECRET, mint_token
from tests.unit.cli.conftest import Command


@pytest.fixture(autouse=True)
def no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUPABASE_JWT_SECRET", raising=False)


SECRET = "canary-secret-with-at-least-thirty-two-bytes"


def test_the_secret_comes_from_the_environment_and_never_shows(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_JWT_SECRET", SECRET)
    monkeypatch.setenv("SUPABASE_URL", "https://abc.supabase.co")
    result = command("token", "mint", "--expires", "2h", "--log-level", "DEBUG")
    assert result.code == 0
    claims = jwt.decode(result.out.strip(), SECRET, algorithms=["HS256"])
    assert (claims["role"], claims["exp"] - claims["iat"]) == ("reactive_worker", 7200)
    assert "a token for role reactive_worker, valid until" in result.error
    assert SECRET not in result.out + result.err


def test_json(command: Command, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    result = command(
        "token", "mint", "--secret-file", "secret", "--role", "authenticated", "--sub", "ann", "--json"
    )
    told = json.loads(result.out)
    assert (told["role"], set(told)) == ("authenticated", {"token", "role", "expires_at"})
    assert jwt.decode(told["token"], SECRET, algorithms=["HS256"])["sub"] == "ann"


def test_only_a_local_project_has_a_secret_by_default(command: Command) -> None:
    for url in ("https://abc.supabase.co", "", "http://127.0.0.1.evil.example", "http://[broken"):
        result = command("token", "mint", "--url", url)
        assert (result.code, result.out) == (2, "")
        assert "set SUPABASE_JWT_SECRET" in result.error
    result = command("token", "mint", "--url", "http://127.0.0.1:54321")
    assert jwt.decode(result.out.strip(), LOCAL_JWT_SECRET, algorithms=["HS256"])["role"] == "reactive_worker"


def test_no_option_takes_a_secret(command: Command) -> None:
    """Arguments show up in `ps`."""
    result = command("token", "mint", "--help")
    options = {word.strip("[],") for word in result.out.split() if word.startswith(("--", "[--"))}
    assert not {option for option in options if "key" in option or "secret" in option} - {"--secret-file"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--expires", "soon"), "must be a number with s, m, h, d or w"),
        (("--expires", "0"), "at least a second"),
        (("--secret-file", "missing"), "cannot read missing"),
        (("--secret-file", "short"), "at least 32 bytes"),
    ],
)
def test_what_is_wrong_is_said(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    (tmp_path / "short").write_text("canary")
    result = command("token", "mint", "--url", "http://localhost:1", *arguments)
    assert result.code == 2
    assert words in result.error
    assert "canary" not in result.error


def test_show(command: Command, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(mint_token(SECRET, expires_in=60, now=1_800_000_000))
    assert command("token", "show", "token").out == (
        "a token for role reactive_worker, valid until 2027-01-15 08:01:00 UTC\n"
    )
    (tmp_path / "token").write_text("sb_secret_x")
    assert "no JSON web token" in command("token", "show", "token").error
