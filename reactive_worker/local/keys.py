"""Keys and roles of the embedded Supabase: the same constants as `supabase start`, and what each key may be.

Nothing here is a secret: these are the published development constants of the Supabase CLI, and the
embedded Supabase listens on loopback only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

from reactive_worker.access.tokens import LOCAL_JWT_SECRET

JWT_SECRET = LOCAL_JWT_SECRET
PUBLISHABLE_KEY = "sb_publishable_ACJWlzQHlZjBrEguHvfOxg_3BJgxAaH"
SECRET_KEY = "sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz"  # noqa: S105 - published by the CLI

#: Expiry of the two legacy keys, as the Supabase CLI sets it (November 2032).
LEGACY_KEY_EXPIRY = 1983812996

#: Clock skew PostgREST allows for `exp`, `nbf` and `iat`, in seconds.
CLOCK_SKEW = 30.0

#: Life of a user's token, in seconds, as `supabase start` sets it.
USER_TOKEN_LIFE = 3600.0

ANON_ROLE = "anon"
SERVICE_ROLE = "service_role"


class KeyRefusedError(Exception):
    """A key or token was not accepted.

    Attributes
    ----------
    code:
        PostgREST's error code (``PGRST301``: cannot be decoded or wrong signature, ``PGRST303``: claims
        not valid), or None where the API gateway in front of PostgREST would have refused.
    message, hint:
        Texts for the answer's body. They never contain the key.
    """

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class Identity:
    """Who a request is: the database role to switch to, and the claims its policies may read."""

    role: str
    claims: Mapping[str, Any]

    @property
    def anonymous(self) -> bool:
        """True for the anon role, which gets 401 where others get 403."""
        return self.role == ANON_ROLE


def _legacy_key(role: str, secret: str) -> str:
    # Key order matters: it makes the token byte-identical to what every `supabase start` prints.
    claims = {"iss": "supabase-demo", "role": role, "exp": LEGACY_KEY_EXPIRY}
    return jwt.encode(claims, secret, algorithm="HS256", sort_headers=True)


@dataclass(frozen=True)
class Keys:
    """One project's keys, and the mapping from a request's headers to a role.

    Example
    -------
    >>> keys = Keys.default()
    >>> keys.identify(apikey=keys.secret_key).role
    'service_role'
    """

    jwt_secret: str = field(default=JWT_SECRET, repr=False)
    publishable_key: str = field(default=PUBLISHABLE_KEY, repr=False)
    secret_key: str = field(default=SECRET_KEY, repr=False)
    anon_key: str = field(default="", repr=False)
    service_role_key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not self.anon_key:
            object.__setattr__(self, "anon_key", _legacy_key(ANON_ROLE, self.jwt_secret))
        if not self.service_role_key:
            object.__setattr__(self, "service_role_key", _legacy_key(SERVICE_ROLE, self.jwt_secret))

    @classmethod
    def default(cls) -> Keys:
        """The keys of every local Supabase."""
        return cls()

    def mint(self, claims: Mapping[str, Any]) -> str:
        """Sign any claims with the project's secret.

        Parameters
        ----------
        claims:
            The token's payload, signed as given: no claim is added.
        """
        return jwt.encode(dict(claims), self.jwt_secret, algorithm="HS256", sort_headers=True)

    def mint_user(self, user_id: str, *, expires_in: float = USER_TOKEN_LIFE, **claims: Any) -> str:
        """A signed-in user's token, as the auth server would issue it.

        Parameters
        ----------
        user_id:
            The user's uuid (claim ``sub``, what ``auth.uid()`` returns).
        expires_in:
            Seconds until it expires; negative for a token that already has.
        claims:
            More claims, or other values for the usual ones.
        """
        now = int(time.time())
        payload: dict[str, Any] = {
            "sub": user_id,
            "aud": "authenticated",
            "role": "authenticated",
            "iat": min(now, int(now + expires_in)),
            "exp": int(now + expires_in),
        }
        return self.mint({**payload, **claims})

    def verify(self, token: str) -> dict[str, Any]:
        """Check signature and times of a token and return its claims.

        Raises
        ------
        KeyRefusedError
            Code ``PGRST301`` when it cannot be decoded or the signature is wrong, ``PGRST303`` when it
            has expired, is not valid yet, or its claims are malformed.
        """
        parts = token.count(".") + 1
        if parts != 3:
            raise KeyRefusedError(f"Expected 3 parts in JWT; got {parts}", code="PGRST301")
        try:
            # Audience and the types of sub and jti are not PostgREST's business: a user's token carries
            # aud "authenticated", and nothing configures an audience to compare it with.
            return jwt.decode(
                token,
                self.jwt_secret,
                algorithms=["HS256"],
                leeway=CLOCK_SKEW,
                options={"verify_aud": False, "verify_sub": False, "verify_jti": False},
            )
        except jwt.ExpiredSignatureError as error:
            raise KeyRefusedError("JWT expired", code="PGRST303") from error
        except jwt.ImmatureSignatureError as error:
            text = "JWT issued at future" if "iat" in str(error) else "JWT not yet valid"
            raise KeyRefusedError(text, code="PGRST303") from error
        except jwt.InvalidAlgorithmError as error:
            raise KeyRefusedError("JWT uses another algorithm than HS256", code="PGRST301") from error
        except jwt.DecodeError as error:
            raise KeyRefusedError("JWT cryptographic operation failed", code="PGRST301") from error
        except jwt.InvalidTokenError as error:
            raise KeyRefusedError(f"JWT claims are not valid: {error}", code="PGRST303") from error
        except (RecursionError, OverflowError, UnicodeError) as error:
            # A header that nests without end, a time beyond all numbers: PyJWT takes neither into account.
            raise KeyRefusedError("JWT cryptographic operation failed", code="PGRST301") from error

    def token_identity(self, token: str) -> Identity:
        """The role and claims of a JWT or of one of the project's ``sb_`` keys.

        Raises
        ------
        KeyRefusedError
            The token is neither.
        """
        if token == self.secret_key:
            token = self.service_role_key
        elif token == self.publishable_key:
            token = self.anon_key
        elif token.startswith("sb_"):
            raise KeyRefusedError("Invalid API key", hint="Double check your Supabase API key.")
        claims = self.verify(token)
        role = claims.get("role")
        if isinstance(role, str) and not role.isprintable():
            # PostgreSQL would read it up to a zero byte, as another role.
            raise KeyRefusedError("JWT claims are not valid: role", code="PGRST303")
        # A token without a role is anonymous to PostgREST, but its other claims still reach the policies.
        return Identity(role if isinstance(role, str) and role else ANON_ROLE, claims)

    def identify(self, *, authorization: str | None = None, apikey: str | None = None) -> Identity:
        """Map a request's headers to a role, in the order the local API gateway does.

        A JWT in ``Authorization`` wins; then the ``sb_`` keys; then ``apikey`` as a legacy JWT.

        Parameters
        ----------
        authorization:
            The ``Authorization`` header, with or without the word Bearer.
        apikey:
            The ``apikey`` header or query parameter.

        Raises
        ------
        KeyRefusedError
            No key at all, or one that is not accepted.
        """
        token = _bearer(authorization)
        if token and not token.startswith("sb_"):
            return self.token_identity(token)
        if apikey:
            try:
                return self.token_identity(apikey)
            except KeyRefusedError as error:
                if error.code == "PGRST303":
                    raise
                raise KeyRefusedError(
                    "Invalid API key", hint="Double check your Supabase `anon` or `service_role` API key."
                ) from error
        if token:
            return self.token_identity(token)
        raise KeyRefusedError(
            "No API key found in request",
            hint="No `apikey` request header or url param was found.",
        )


def _bearer(authorization: str | None) -> str:
    """The token of an Authorization header; other schemes than Bearer are no token of ours."""
    words = (authorization or "").split()
    if len(words) == 2 and words[0].lower() == "bearer":
        return words[1]
    # The local gateway forwards a legacy key without the word Bearer.
    return words[0] if len(words) == 1 and words[0].lower() != "bearer" else ""
