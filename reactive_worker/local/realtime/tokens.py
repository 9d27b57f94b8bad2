"""Which tokens Realtime accepts, and what it says about the others.

Realtime judges tokens more strictly than PostgREST (no clock skew, `role` and `exp` required) and words its
refusals differently, so it does not share the REST part's verification.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import jwt

TokenProblem = Literal["malformed", "signature", "expired", "claims"]

_JOIN_CODES: dict[TokenProblem, str] = {
    "malformed": "MalformedJWT",
    "signature": "JwtSignatureError",
    "expired": "InvalidJWTToken",
    "claims": "InvalidJWTToken",
}


class KeyRing(Protocol):
    """The project's keys, as far as Realtime needs them."""

    @property
    def jwt_secret(self) -> str: ...
    @property
    def publishable_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def anon_key(self) -> str: ...
    @property
    def service_role_key(self) -> str: ...


class TokenError(Exception):
    """A token that is not accepted. The texts never contain the token."""

    def __init__(self, problem: TokenProblem, text: str, *, handshake: str | None = None) -> None:
        super().__init__(text)
        self.problem: TokenProblem = problem
        #: Said when a joined channel gets this token.
        self.system_text = ":signature_error" if problem == "signature" else text
        #: Said to a join.
        self.join_reason = f"{_JOIN_CODES[problem]}: {text}"
        #: Said to a WebSocket handshake.
        self.handshake_text = handshake or text


@dataclass(frozen=True)
class Token:
    """An accepted token."""

    text: str
    claims: Mapping[str, Any]
    role: str
    #: Seconds since 1970.
    expires_at: int

    def remaining(self, now: float | None = None) -> float:
        """Seconds until it expires (negative: since)."""
        return self.expires_at - (time.time() if now is None else now)


def api_key_token(keys: KeyRing, key: str) -> str:
    """The JWT behind a new-style key, as the API gateway swaps it in; anything else stays as it is."""
    if key == keys.secret_key:
        return keys.service_role_key
    if key == keys.publishable_key:
        return keys.anon_key
    return key


def expired(seconds: float) -> TokenError:
    """The refusal of a token that expired this many seconds ago."""
    return TokenError(
        "expired", f"Token has expired {max(0, int(seconds))} seconds ago", handshake="Token has expired"
    )


def verify(keys: KeyRing, text: str) -> Token:
    """Check signature, expiry and required claims.

    Raises
    ------
    TokenError
        With the texts Realtime uses for this problem.
    """
    malformed = TokenError("malformed", "The token provided is not a valid JWT")
    try:
        claims: dict[str, Any] = jwt.decode(
            text,
            keys.jwt_secret,
            algorithms=["HS256", "HS384", "HS512"],
            # Expiry is judged below, in its own words; audience and the like are not Realtime's business.
            options={
                "verify_aud": False,
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
    except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError) as error:
        raise TokenError("signature", "Failed to validate JWT signature") from error
    except (jwt.InvalidTokenError, RecursionError, UnicodeError) as error:
        # PyJWT does not take a header into account that nests without end.
        raise malformed from error
    role, expires_at = claims.get("role"), claims.get("exp")
    if not isinstance(role, str) or not isinstance(expires_at, int) or isinstance(expires_at, bool):
        raise TokenError("claims", "Fields `role` and `exp` are required in JWT")
    token = Token(text, claims, role, expires_at)
    if (left := token.remaining()) <= 0:
        raise expired(-left)
    return token
