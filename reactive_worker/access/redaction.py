"""Keys never show: what looks like one, and every one we were given, is replaced in text that leaves.

Two nets, because each has holes. Patterns find keys nobody told us about, and those inside URLs and headers.
The keys in use are replaced by value, for a key need not look like one: a self-hosted project may use any
text.
"""

from __future__ import annotations

import base64
import logging
import re
import threading
from typing import Any
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"

#: Shorter values are no keys, and replacing them would garble every text.
_SHORTEST_KEY = 8

_SECRETS = (
    # JSON web tokens: Supabase's legacy service_role and anon keys, and users' sessions. A header alone
    # counts.
    re.compile(r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}"),
    # Supabase keys of the new kind (secret only: a publishable key is public), Supabase access tokens.
    re.compile(r"(?<![A-Za-z0-9])sb_secret_[A-Za-z0-9_-]+"),
    re.compile(r"(?<![A-Za-z0-9])sbp_[A-Za-z0-9]{16,}"),
    # OpenAI, Anthropic and others.
    re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{6,}"),
    # GitHub, Slack, AWS, Google.
    re.compile(r"(?<![A-Za-z0-9])(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{16,}"),
    re.compile(r"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{8,}"),
    re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    re.compile(r"(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{20,}"),
    # Hugging Face, Groq, xAI: letters and digits; `hf_hub_download` is no key, hence a digit or the length.
    re.compile(r"(?<![A-Za-z0-9])(?:hf_|gsk_|xai-)(?=[A-Za-z]*[0-9]|[A-Za-z0-9]{16})[A-Za-z0-9]{8,}"),
    # GitLab.
    re.compile(r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_.-]{8,}"),
)

#: Names in front of what nobody else may read, in URLs, connection strings, environments, calls and JSON.
_LABELS = (
    r"(?:password|passwd|passphrase|secret|private[_-]?key|api[_-]?key"
    r"|(?:access|refresh|auth|worker)[_-]?token)"
)
#: A quote that may itself be escaped, for JSON inside of JSON.
_QUOTE = r"\\{0,4}[\"']"
#: A value without quotes. Backslashes before a quote belong to the text around it.
_BARE = r"(?:[^\s&\"'>\\]|\\+(?![\"'\\]))+"

# The label stays, what follows it goes. Limits keep the search linear; nobody's credentials are longer.
_LABELLED = (
    # Passwords in URLs. People forget to encode "/" and "@" in them, so the last "@" ends one. A number and a
    # slash after http://host: are a port and a path.
    re.compile(
        r"((?<![A-Za-z0-9])(?:(?:https?|wss?)://[^\s/:@]{0,200}:(?!\d{1,5}[/?#])"
        r"|(?!https?:|wss?:)[a-z][a-z0-9+.-]{0,30}://[^\s/:@]{0,200}:))[^\s\"'<>]{1,500}(?=@)",
        re.IGNORECASE,
    ),
    # The same with quotes in them.
    re.compile(
        r"((?<![A-Za-z0-9])[a-z][a-z0-9+.-]{0,30}://[^\s/:@]{0,200}:)[^\s/@]{1,500}(?=@)", re.IGNORECASE
    ),
    re.compile(r"((?<![A-Za-z0-9])bearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE),
    # The header with any scheme: Basic, Token, Digest.
    re.compile(
        r"(authorization[\"']?\s{0,4}[:=,]\s{0,4}b?[\"']?(?:[a-z][a-z0-9-]{1,30}\s{1,4})?)[^\s\"',]{4,}",
        re.IGNORECASE,
    ),
    # Realtime takes the key in its URL; websockets logs that.
    re.compile(rf"({_LABELS}\s{{0,4}}=\s{{0,4}})(?!{_QUOTE}){_BARE}", re.IGNORECASE),
    # A header: x-api-key.
    re.compile(rf"(api-key:\s{{0,4}})(?!{_QUOTE}){_BARE}", re.IGNORECASE),
    # In quotes, as Python and JSON write it: blanks belong to it.
    re.compile(rf"({_LABELS}(?:{_QUOTE})?\s{{0,4}}[:=]\s{{0,4}}{_QUOTE})[^\"'\\]{{1,500}}", re.IGNORECASE),
    # httpx quotes what it cannot send, mostly a key that was copied with a line break in it.
    re.compile(r"(Illegal header value b?['\"])[^'\"]+"),
)

#: Loggers of libraries that write whole URLs, headers or frames at DEBUG. A filter of a logger is asked for
#: its own records only, not for those of its children, hence each by name.
_TALKATIVE = (
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpx",
    "hpack.hpack",
    "hpack.table",
    "realtime._async.channel",
    "realtime._async.client",
    "realtime._async.push",
    "uvicorn.access",
    "uvicorn.error",
    "websockets.client",
    "websockets.server",
)

#: Basic authentication without its header's name: letters that hold ``user:password``.
_BASIC = re.compile(r"((?<![A-Za-z0-9])basic\s+)([A-Za-z0-9+/]{4,500}={0,2})", re.IGNORECASE)

_lock = threading.Lock()
_known: tuple[str, ...] = ()


def keep_secret(*values: str) -> None:
    """From now on, replace these values in everything `redact` sees; empty and very short ones are ignored.

    >>> keep_secret("a-key-that-looks-like-nothing")
    >>> redact("refused: a-key-that-looks-like-nothing")
    'refused: [redacted]'
    """
    global _known
    with _lock:
        found = set(_known)
        for value in values:
            if len(value) >= _SHORTEST_KEY:
                # As it is, in a URL, and in the repr of a header that cannot be sent.
                found |= {value, quote(value, safe=""), quote_plus(value), repr(value)[1:-1]}
        # The longest first: one key may begin another.
        _known = tuple(sorted(found, key=len, reverse=True))


def redact(text: str) -> str:
    """Replace what is, or looks like, a key with ``[redacted]``.

    The keys this process was given, JWTs, ``sb_secret_...``, ``sk-...``, tokens of a few large services,
    credentials in headers and URLs, and what follows ``password=``, ``api_key=`` and the like.

    Parameters
    ----------
    text:
        Any text; redacting it again changes nothing.

    >>> redact("401 for key sb_secret_abc123")
    '401 for key [redacted]'
    """
    for value in _known:
        text = text.replace(value, REDACTED)
    for pattern in _SECRETS:
        text = pattern.sub(REDACTED, text)
    for pattern in _LABELLED:
        text = pattern.sub(rf"\g<1>{REDACTED}", text)
    return _BASIC.sub(_without_credentials, text)


def _without_credentials(found: re.Match[str]) -> str:
    """Basic credentials go, "basic authentication" stays."""
    letters = found[2].rstrip("=")
    try:
        pair = base64.b64decode(letters + "=" * (-len(letters) % 4)).decode()
    except ValueError:  # no base64, or bytes that are no text
        return found[0]
    return f"{found[1]}{REDACTED}" if ":" in pair and pair.isprintable() else found[0]


class RedactingFilter(logging.Filter):
    """Rewrites a record whose message holds a key, before any handler sees it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True: nothing is dropped."""
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a record that cannot be formatted is reported by the handler
            return True
        clean = redact(message)
        if clean != message:
            record.msg, record.args = clean, None
        return True


_FILTER = RedactingFilter()


def guard_library_logs() -> None:
    """Let no key through the loggers of the libraries underneath, whatever logging the program configures.

    websockets logs the URL it connects to, which holds the key, and hpack every header. Repeating it is
    harmless.
    """
    for name in _TALKATIVE:
        logger: Any = logging.getLogger(name)
        if _FILTER not in logger.filters:
            logger.addFilter(_FILTER)
