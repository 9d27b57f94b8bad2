"""No key in any text that leaves: by its looks, by its value, and in the logs of the libraries underneath."""

from __future__ import annotations

import json
import logging
from urllib.parse import urlencode

import pytest

from reactive_worker.access import redaction
from reactive_worker.access.credentials import Credentials, TokenFile, read_secret_file
from reactive_worker.access.redaction import keep_secret, redact
from reactive_worker.errors import ConfigurationError

ODD = "an odd/key+of=its own"


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", ())


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("key eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoieCJ9.abc here", "key [redacted] here"),
        ("sb_secret_N7UND0UgjKTVK-Uodkm0Hg", "[redacted]"),
        ("GET /x?apikey=whatever-it-is&vsn=1.0.0", "GET /x?apikey=[redacted]&vsn=1.0.0"),
        ("Authorization: Bearer whatever-it-is", "Authorization: Bearer [redacted]"),
        ("postgresql://postgres:hunter22@host/db", "postgresql://postgres:[redacted]@host/db"),
        ("sb_publishable_ is public: sb_publishable_abc", "sb_publishable_ is public: sb_publishable_abc"),
        ("nothing here", "nothing here"),
        ("hf_AbCdEfGhIjKlMnOpQrStUvWxYz123456", "[redacted]"),
        ("gsk_a1b2c3d4e5f6 refused", "[redacted] refused"),
        ("(xai-AbCdEfGhIjKlMnOpQrSt)", "([redacted])"),
        ("glpat-x_y-z1234567890", "[redacted]"),
        ("hf_hub_download(gsk_x, xai-ready)", "hf_hub_download(gsk_x, xai-ready)"),
        ("host=db password=hunter2 user=me", "host=db password=[redacted] user=me"),
        ("PGPASSWORD=hunter2", "PGPASSWORD=[redacted]"),
        ("OpenAI(api_key='my own key', timeout=3)", "OpenAI(api_key='[redacted]', timeout=3)"),
        ("?api_key=abc&x=1", "?api_key=[redacted]&x=1"),
        ('{"password": "two words", "n": 1}', '{"password": "[redacted]", "n": 1}'),
        (r'"{\"client_secret\": \"abc\"}"', r'"{\"client_secret\": \"[redacted]\"}"'),
        ("x-api-key: abc", "x-api-key: [redacted]"),
        ("wrong password: try again", "wrong password: try again"),
        ("Authorization: Basic dTpw", "Authorization: Basic [redacted]"),
        ("('authorization', 'Token abcdef')", "('authorization', 'Token [redacted]')"),
        ("sent Basic dXNlcjpodW50ZXIy to it", "sent Basic [redacted] to it"),
        ("Basic authentication is needed", "Basic authentication is needed"),
        ("postgres://me:a/b@c@host:5432/db", "postgres://me:[redacted]@host:5432/db"),
        ("postgres://me:1/b@host/db", "postgres://me:[redacted]@host/db"),
        ("https://me:p/q@host/x", "https://me:[redacted]@host/x"),
        ("redis://:it's@host", "redis://:[redacted]@host"),
        ("http://127.0.0.1:54321/users/a@b.c", "http://127.0.0.1:54321/users/a@b.c"),
    ],
)
def test_what_looks_like_a_key_goes(text: str, clean: str) -> None:
    assert redact(text) == clean
    assert redact(clean) == clean


def test_json_around_a_secret_stays_json() -> None:
    for text in ('say "password=abc" twice', "api_key=x\\", 'apikey="a"', "password=a\\'b"):
        assert "abc" not in str(json.loads(redact(json.dumps({"message": text}))))


def test_a_long_text_is_searched_in_one_go() -> None:
    for text in (
        "password" * 6_000,
        "a://" * 10_000,
        "basic " * 10_000,
        "x:" * 20_000,
        "://a:" * 8_000,
        "password=" + "\\" * 99_999,
    ):
        redact(text)


def test_a_key_in_use_goes_however_it_looks_and_is_written() -> None:
    assert ODD in redact(f"refused: {ODD}")
    Credentials(ODD)
    assert redact(f"refused: {ODD}!") == "refused: [redacted]!"
    assert ODD.split()[0] not in redact(f"wss://x/y?{urlencode({'k': ODD})}")


def test_short_values_are_no_keys() -> None:
    keep_secret("", "key")
    assert redact("the key of it") == "the key of it"


def test_one_key_that_begins_another_leaves_nothing_of_it() -> None:
    keep_secret("canary-key", "canary-key-longer")
    assert redact("canary-key-longer") == "[redacted]"


def test_the_libraries_loggers_are_guarded_whatever_logging_is_configured(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Credentials(ODD)
    for name in ("websockets.client", "hpack.hpack", "realtime._async.client", "httpx"):
        caplog.set_level(logging.DEBUG, logger=name)
        logging.getLogger(name).debug("> GET %s", f"/websocket?{urlencode({'apikey': ODD})}")
        logging.getLogger(name).debug("header %r", ("authorization", f"Bearer {ODD}"))
    assert len(caplog.records) == 8
    assert "an" + "+odd" not in caplog.text
    assert ODD not in caplog.text


def test_credentials_show_no_key() -> None:
    assert repr(Credentials("a-canary-key", "a-canary-token")) == "<Credentials: a key of the project>"


def test_a_token_in_a_file_is_read_again_when_it_changes(tmp_path, caplog) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "token"
    with pytest.raises(ConfigurationError, match="cannot read"):
        TokenFile(path)()
    path.write_text("first-token\n")
    token = TokenFile(path)
    assert [token(), token()] == ["first-token", "first-token"]
    path.write_text("the second one")
    assert token() == "the second one"
    path.write_text("")
    assert token() == "the second one", "half-way rewritten"
    assert "is empty" in caplog.text
    path.unlink()
    assert token() == "the second one"
    path.write_text("third-token")
    assert Credentials("k", token).headers() == {"apikey": "k", "Authorization": "Bearer third-token"}
    assert redact("third-token") == "[redacted]"


def test_a_secret_file_that_holds_none(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, words in (("empty", "is empty"), ("binary", "not UTF-8"), ("none", "cannot read")):
        with pytest.raises(ConfigurationError, match=words):
            read_secret_file(tmp_path / name)
