"""Whether a URL and a key can be a Supabase project's, before anything is sent."""

from __future__ import annotations

from urllib.parse import urlsplit

from reactive_worker.access.redaction import redact
from reactive_worker.errors import ConfigurationError


def check_url(url: str) -> str:
    """Return `url` when it can be a Supabase project URL; raise ConfigurationError otherwise."""
    if not url:
        raise ConfigurationError(
            "no SUPABASE_URL: set it in the environment or .env, for example "
            "SUPABASE_URL=http://127.0.0.1:54321 (`reactive-worker dev` starts a local Supabase there)"
        )
    try:
        parts = urlsplit(url)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_ok = urlsplit(""), False
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or not port_ok
        or any(c.isspace() for c in url)
    ):
        raise ConfigurationError(
            f"SUPABASE_URL is malformed: {redact(url)!r} (expected https://<project>.supabase.co)"
        )
    if parts.path not in ("", "/") or parts.query:
        raise ConfigurationError(f"SUPABASE_URL must be the project URL without a path: {redact(url)!r}")
    return url


def check_secret(what: str, value: str) -> None:
    """Raise ConfigurationError when a key or token cannot be sent as a header; `what` names it."""
    if not value.isascii() or any(c.isspace() for c in value):
        raise ConfigurationError(f"{what} contains blanks or non-ASCII characters: copy it again")
