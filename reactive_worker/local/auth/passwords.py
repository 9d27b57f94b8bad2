"""Passwords: how they are kept, and which are too weak."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

#: Cost of a new hash: a few milliseconds, as for development.
_COST, _BLOCK, _PARALLEL = 2**12, 8, 1
_MARK = "$scrypt$"
#: Longest password the auth server takes, in bytes.
LONGEST = 72


def hash_password(password: str) -> str:
    """A password as it is kept."""
    salt = secrets.token_bytes(16)
    return f"{_MARK}{_text(salt)}${_text(_derived(password, salt))}"


def is_own(stored: str) -> bool:
    """Whether a kept password is one of `hash_password`; others are PostgreSQL's to judge."""
    return stored.startswith(_MARK)


def matches(password: str, stored: str) -> bool:
    """Whether a password is the one that is kept."""
    salt, _, digest = stored.removeprefix(_MARK).partition("$")
    return hmac.compare_digest(_derived(password, base64.b64decode(salt)), base64.b64decode(digest))


def _derived(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_COST, r=_BLOCK, p=_PARALLEL)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
