"""Keys and roles of the embedded Supabase: the same constants as `supabase start`, and what each key may be.

Nothing here is a secret: these are the published development constants of the Supabase CLI, and the
embedded Supabase listens on loopback only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

from reactive_worker.access.tokens import LOCAL_JWT_SECRET
from reactive_worker.local.claims import claims_problem

JWT_SECRET = LOCAL_JWT_SECRET
PUBLISHABLE_KEY = "sb_publishable_ACJWlzQHlZjBrEguHvfOxg_3BJgxAaH"
SECRET_KEY = "sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz"  # noqa: S105 - published by the CLI

#: Expiry of the two legacy keys, as the Supabase CLI sets it (November 2032).
LEGACY_KEY_EXPIRY = 1983812996

#: Life of a user's token, in seconds, as `supabase start` sets it.
USER_TOKEN_LIFE = 3600.0

ANON_ROLE = "anon"
SERVICE_ROLE = "service_role"


# Audience and the types of sub and jti are not PostgREST's business, and of the times it takes numbers only.
_SIGNATURE_ONLY: Any = {
    f"verify_{claim}": False for claim in ("aud", "exp", "iat", "iss", "jti", "nbf", "sub")
}


class KeyRefusedError(Exception):
    """A key or token was not accepted.

    Attributes
    ----------
    code:
        PostgREST's error code (``PGRST301``: cannot be decoded or wrong signature, ``PGRST303``: claims
        not valid), or None where the API gateway in front of PostgREST would have refused.
    message, details, hint:
        Texts for the answer's body. They never contain the key.
    """

    def __init__(
        self, message: str, *, code: str | None = None, details: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
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
        if not token:
            raise KeyRefusedError("Empty JWT is sent in Authorization header", code="PGRST301")
        parts = token.count(".") + 1
        if parts != 3:
            raise KeyRefusedError(f"Expected 3 parts in JWT; got {parts}", code="PGRST301")
        try:
            decoded = jwt.decode_complete(token, self.jwt_secret, ["HS256"], options=_SIGNATURE_ONLY)
        except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError) as error:
            raise _no_key("None of the keys was able to decode the JWT") from error
        except (jwt.InvalidTokenError, RecursionError, OverflowError, UnicodeError) as error:
            # A header that nests without end, a time beyond all numbers: PyJWT takes neither into account.
            raise KeyRefusedError("JWT cryptographic operation failed", code="PGRST301") from error
        if decoded["header"].get("kid") is not None:
            # The project's only key has no id, and so it is no key for this token.
            raise _no_key("No suitable key was found to decode the JWT")
        claims: dict[str, Any] = decoded["payload"]
        problem = claims_problem(claims, time.time())
        if problem is not None:
            raise KeyRefusedError(problem, code="PGRST303")
        return claims

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
        # A token without a role is anonymous to PostgREST, but its other claims still reach the policies.
        role = claims.get("role", ANON_ROLE)
        if not isinstance(role, str):
            # As PostgREST does it: no role has such a name.
            role = json.dumps(role, separators=(",", ":"))
        if not role.isprintable():
            # PostgreSQL would read it up to a zero byte, as another role.
            raise KeyRefusedError("JWT claims are not valid: role", code="PGRST303")
        return Identity(role, claims)

    def rest_identity(self, *, authorization: str | None = None, apikey: str | None = None) -> Identity:
        """Who a request to the REST API is, as the local API gateway and PostgREST behind it judge it.

        Stricter than `identify`: PostgREST looks at ``Authorization: Bearer ...`` only, and the gateway puts
        nothing there for a legacy key in ``apikey``. Whoever sends such a key alone is anonymous.

        Parameters
        ----------
        authorization, apikey:
            The two headers.

        Raises
        ------
        KeyRefusedError
            No key at all, or one that is not accepted.
        """
        scheme, _, token = (authorization or "").strip().partition(" ")
        bearer, token = scheme.lower() == "bearer", token.strip()
        if authorization and not (bearer and token.startswith("sb_")):
            return self.token_identity(token) if bearer else Identity(ANON_ROLE, {})
        identity = self.identify(authorization=authorization, apikey=apikey)
        if authorization or (apikey or "").startswith("sb_"):
            return identity
        return Identity(ANON_ROLE, {})

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


def _no_key(details: str) -> KeyRefusedError:
    return KeyRefusedError("No suitable key or wrong key type", code="PGRST301", details=details)


def _bearer(authorization: str | None) -> str:
    """The token of an Authorization header; other schemes than Bearer are no token of ours."""
    words = (authorization or "").split()
    if len(words) == 2 and words[0].lower() == "bearer":
        return words[1]
    # The local gateway forwards a legacy key without the word Bearer.
    return words[0] if len(words) == 1 and words[0].lower() != "bearer" else ""
