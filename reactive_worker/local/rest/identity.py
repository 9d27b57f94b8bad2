"""Who a request is, remembered: verifying the same key's signature for every request is work for nothing."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reactive_worker.local.claims import CLOCK_SKEW
from reactive_worker.local.keys import Identity
from reactive_worker.local.rest.errors import DatabaseError, from_database

#: PostgreSQL lets a session take these, and then the request runs as the connection itself.
_NOT_TAKEN = frozenset({"authenticator", "none"})
#: Most keys remembered; users come and go with their tokens.
CACHE_SIZE = 512


@dataclass(frozen=True)
class KnownIdentity:
    """An identity, and its claims as the text that policies read."""

    identity: Identity
    claims_text: str
    expires_at: float


def _expiry(claims: Mapping[str, Any]) -> float:
    expiry = claims.get("exp")
    return float(expiry) + CLOCK_SKEW if isinstance(expiry, int | float) else float("inf")


class Identities:
    """Maps the two key headers to an identity.

    Parameters
    ----------
    identify:
        `Keys.rest_identity` or `Keys.identify`.
    """

    def __init__(self, identify: Callable[..., Identity]) -> None:
        self._identify = identify
        self._known: OrderedDict[tuple[str | None, str | None], KnownIdentity] = OrderedDict()

    def of(self, authorization: str | None, apikey: str | None) -> KnownIdentity:
        """Who sent these headers.

        Raises
        ------
        KeyRefusedError
            The keys are not accepted, or no longer.
        ApiError
            Their role is no role for requests.
        """
        headers = (authorization, apikey)
        known = self._known.get(headers)
        if known is not None and time.time() < known.expires_at:
            self._known.move_to_end(headers)
            return known
        identity = self._identify(authorization=authorization, apikey=apikey)
        if identity.role in _NOT_TAKEN:
            raise from_database(
                DatabaseError("42501", f'permission denied to set role "{identity.role}"'), anonymous=False
            )
        claims = {**identity.claims, "role": identity.role}
        known = KnownIdentity(identity, json.dumps(claims, separators=(",", ":")), _expiry(claims))
        self._known[headers] = known
        if len(self._known) > CACHE_SIZE:
            self._known.popitem(last=False)
        return known
