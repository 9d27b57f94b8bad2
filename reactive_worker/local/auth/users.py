"""A user and a session as clients see them, and the token that stands for them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

#: Columns of auth.users that are shown, if they have a value.
_SOMETIMES = (
    *("email_confirmed_at", "phone_confirmed_at", "confirmed_at", "invited_at", "last_sign_in_at"),
    *("confirmation_sent_at", "recovery_sent_at", "email_change_sent_at", "banned_until"),
)


def shown(user: Mapping[str, Any]) -> dict[str, Any]:
    """A row of auth.users, with its identities, as the API shows it."""
    return {
        "id": user["id"],
        "aud": user["aud"] or "authenticated",
        "role": user["role"] or "authenticated",
        "email": user["email"] or "",
        "phone": user["phone"] or "",
        **{name: user[name] for name in _SOMETIMES if user[name] is not None},
        "app_metadata": user["raw_app_meta_data"] or {},
        "user_metadata": user["raw_user_meta_data"] or {},
        "identities": [_identity(each) for each in user["identities"]],
        "created_at": user["created_at"],
        "updated_at": user["updated_at"],
        "is_anonymous": user["is_anonymous"],
    }


def _identity(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "identity_id": row["id"],
        "id": row["provider_id"],
        **{name: row[name] for name in ("user_id", "identity_data", "provider", "last_sign_in_at")},
        **{name: row[name] for name in ("created_at", "updated_at", "email")},
    }


def claims(
    user: Mapping[str, Any], session: str, method: str, *, issuer: str, seconds: int
) -> dict[str, Any]:
    """The payload of an access token.

    Parameters
    ----------
    user:
        As `shown`.
    session:
        The session's id.
    method:
        How the user signed in: ``password`` or ``anonymous``.
    seconds:
        Until it expires.
    """
    now = int(time.time())
    return {
        "iss": issuer,
        "sub": user["id"],
        "aud": user["aud"],
        "exp": now + seconds,
        "iat": now,
        "email": user["email"],
        "phone": user["phone"],
        "app_metadata": user["app_metadata"],
        "user_metadata": user["user_metadata"],
        "role": user["role"],
        "aal": "aal1",
        "amr": [{"method": method, "timestamp": now}],
        "session_id": session,
        "is_anonymous": user["is_anonymous"],
    }


def user_id(text: Any) -> str | None:
    """A user's or session's id in its usual form; None for what is none."""
    try:
        return str(uuid.UUID(text)) if isinstance(text, str) else None
    except ValueError:
        return None
