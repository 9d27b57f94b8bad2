"""Keys never show: what looks like one, and every one we were given, is replaced in text that leaves.

Two nets, because each has holes. Patterns find keys nobody told us about, and those inside URLs and headers.
The keys in use are replaced by value, for a key need not look like one: a self-hosted project may use any
text.
"""

from __future__ import annotations

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
)

# The label stays, what follows it goes.
_LABELLED = (
    # Limits keep the search linear; nobody's credentials are longer.
    re.compile(
        r"((?<![A-Za-z0-9])[a-z][a-z0-9+.-]{0,30}://[^\s/:@]{0,200}:)[^\s/@]{1,500}(?=@)", re.IGNORECASE
    ),
    re.compile(r"((?<![A-Za-z0-9])bearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE),
    # Realtime takes the key in its URL; websockets logs that.
    re.compile(r"((?<![A-Za-z0-9])(?:apikey|access_token)=)[^\s&\"'>]+", re.IGNORECASE),
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
    bearer tokens, keys and passwords in URLs.

    >>> redact("401 for key sb_secret_abc123")
    '401 for key [redacted]'
    """
    for value in _known:
        text = text.replace(value, REDACTED)
    for pattern in _SECRETS:
        text = pattern.sub(REDACTED, text)
    for pattern in _LABELLED:
        text = pattern.sub(rf"\g<1>{REDACTED}", text)
    return text


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
