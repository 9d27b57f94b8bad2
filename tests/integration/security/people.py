"""Who asks: one row of the access tables for each kind of caller, over real keys and tokens."""

from __future__ import annotations

from typing import Any

from reactive_worker.access.tokens import mint_token

ANN = "a0000000-0000-4000-8000-00000000000a"
BOB = "b0000000-0000-4000-8000-00000000000b"

#: In the order of the tables' columns. `owner` is Ann, whose tasks the tables are about; `other` is Bob.
ROLES = ("none", "anon", "owner", "other", "worker", "service")


def tokens(supabase: Any) -> dict[str, tuple[str, str]]:
    """(apikey, token) of everybody; empty for nobody's."""
    keys = supabase.keys
    return {
        "none": ("", ""),
        "anon": (keys.publishable_key, ""),
        "owner": (keys.publishable_key, keys.mint_user(ANN)),
        "other": (keys.publishable_key, keys.mint_user(BOB)),
        "worker": (keys.publishable_key, mint_token(keys.jwt_secret, expires_in=3600)),
        "service": (keys.secret_key, ""),
    }


def headers(supabase: Any) -> dict[str, dict[str, str]]:
    """What each sends with a request."""
    found: dict[str, dict[str, str]] = {}
    for role, (apikey, token) in tokens(supabase).items():
        found[role] = {"apikey": apikey} if apikey else {}
        if token:
            found[role]["Authorization"] = f"Bearer {token}"
    return found
