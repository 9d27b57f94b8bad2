"""Whether a token's claims are in order, as PostgREST judges them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

#: Clock skew PostgREST allows for `exp`, `nbf` and `iat`, in seconds.
CLOCK_SKEW = 30.0


def claims_problem(claims: Mapping[str, Any], now: float) -> str | None:
    """What is wrong with a token's times and the types of its claims; None if nothing is.

    Parameters
    ----------
    now:
        Seconds since 1970.

    Example
    -------
    >>> claims_problem({"exp": "tomorrow"}, now=0)
    "The JWT 'exp' claim must be a number"
    """
    for name, text in (("exp", "JWT expired"), ("nbf", "JWT not yet valid"), ("iat", "JWT issued at future")):
        value = claims.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"The JWT '{name}' claim must be a number"
        early = _seconds(value) - now
        if early < -CLOCK_SKEW if name == "exp" else early > CLOCK_SKEW:
            return text
    audience: Any = claims.get("aud")
    listed = cast("list[Any]", audience if isinstance(audience, list) else [audience])
    if audience is not None and not all(isinstance(item, str) for item in listed):
        return "The JWT 'aud' claim must be a string or an array of strings"
    return None


def _seconds(value: float) -> int:
    # Times with a fraction, or beyond 64 bits, count as 0 there: as an `exp` they are long past.
    if not math.isfinite(value) or value != int(value) or abs(value) >= 2**63:
        return 0
    return int(value)
