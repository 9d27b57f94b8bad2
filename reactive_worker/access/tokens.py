"""JSON web tokens: making one for the worker role, and reading what one says without trusting it.

PyJWT does the signing. The supabase client needs it anyway, so it costs no installation, and it knows the
asymmetric signing keys of newer projects, which a few lines of our own would not.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import jwt

from reactive_worker.errors import ConfigurationError

#: The database role of workers: see docs/security.md.
WORKER_ROLE = "reactive_worker"

#: Of `supabase start` and `reactive-worker dev`, on every machine the same.
LOCAL_JWT_SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"  # noqa: S105 - published by the CLI

#: Supabase and RFC 7518 demand as many bytes for HS256.
_SHORTEST_SECRET = 32


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What a token says about itself; nobody has checked its signature."""

    role: str
    expires_at: datetime | None

    def __str__(self) -> str:
        until = f", valid until {self.expires_at:%Y-%m-%d %H:%M:%S} UTC" if self.expires_at else ""
        return f"a token for role {self.role or '(none)'}{until}"


def read_token(token: str) -> TokenFacts | None:
    """What `token` says about itself, or None when it is no JWT (an ``sb_...`` key is none).

    >>> read_token("sb_secret_x") is None
    True
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return None
    role, expires_at = claims.get("role"), claims.get("exp")
    moment: datetime | None = None
    if isinstance(expires_at, int | float) and 0 <= expires_at < 253_402_300_800:
        moment = datetime.fromtimestamp(expires_at, UTC)
    return TokenFacts(role if isinstance(role, str) else "", moment)


def mint_token(
    secret: str,
    *,
    role: str = WORKER_ROLE,
    expires_in: float,
    subject: str | None = None,
    now: float | None = None,
) -> str:
    """Sign a token that lets its bearer be `role`.

    Parameters
    ----------
    secret:
        The project's JWT secret, or one of its signing keys with the private part: a JSON Web Key, or a list
        of them, of which the first is taken (`supabase gen signing-key` makes one).
    role:
        The database role PostgREST and Realtime switch to.
    expires_in:
        Seconds until it is refused.
    subject:
        Claim ``sub``: the user's id, for tokens of the role ``authenticated``.
    now:
        Seconds since 1970; the clock by default.

    Raises
    ------
    ConfigurationError
        Secret, role or life cannot be used.

    Example
    -------
    >>> token = mint_token("a-secret-with-at-least-thirty-two-bytes", expires_in=3600)
    >>> read_token(token).role
    'reactive_worker'
    """
    if not role or not role.isprintable():
        raise ConfigurationError("a token needs a role, for example reactive_worker")
    if not 1 <= expires_in <= 3_153_600_000:
        raise ConfigurationError("a token lives for at least a second and at most a hundred years")
    issued = int(time.time() if now is None else now)
    claims: dict[str, Any] = {
        "iss": "reactive-worker",
        "role": role,
        "iat": issued,
        # Realtime wants a whole number.
        "exp": issued + int(expires_in),
    }
    if subject is not None:
        claims["sub"] = subject
    key, algorithm, key_id = _signing_key(secret.strip())
    with warnings.catch_warnings():
        # PyJWT warns of keys it finds too short for SHA-512 or RSA; ours are measured above and below.
        warnings.simplefilter("ignore")
        return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": key_id} if key_id else None)


def _signing_key(secret: str) -> tuple[Any, str, str | None]:
    if secret[:1] in ("{", "["):
        return _web_key(secret)
    if len(secret.encode()) < _SHORTEST_SECRET:
        raise ConfigurationError(
            f"a JWT secret has at least {_SHORTEST_SECRET} bytes, this one has {len(secret.encode())}: "
            "copy it again from the project's settings (API, JWT keys)"
        )
    return secret, "HS256", None


def _web_key(text: str) -> tuple[Any, str, str | None]:
    # `from None`: the causes may quote the key.
    try:
        found: Any = json.loads(text)
    except ValueError:
        raise ConfigurationError("the signing key begins like JSON and is none: copy it again") from None
    if isinstance(found, list):
        found = cast("list[Any]", found)[0] if found else None
    if not isinstance(found, Mapping):
        raise ConfigurationError("a signing key must be a JSON Web Key: an object with kty, kid and so on")
    fields = dict(cast("Mapping[str, Any]", found))
    if fields.get("kty") != "oct" and "d" not in fields:
        raise ConfigurationError("this is a public key: signing needs the private one, with its member d")
    try:
        key = jwt.PyJWK.from_dict(fields)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise ConfigurationError("the signing key is no JSON Web Key that can be used for signing") from None
    return key.key, key.algorithm_name, key.key_id
