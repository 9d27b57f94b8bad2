"""Signing up, in and out, and what a user may change."""

from __future__ import annotations

import json
import re
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from reactive_worker.local.auth import passwords
from reactive_worker.local.auth.database import AuthDatabase, Call
from reactive_worker.local.auth.errors import AuthError, invalid, unsupported, user_exists, wrong_credentials
from reactive_worker.local.auth.options import object_of
from reactive_worker.local.auth.users import claims, shown
from reactive_worker.local.keys import Keys
from reactive_worker.local.project import AuthSettings
from reactive_worker.local.rest.session import SessionPool

_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(?:\.[^@\s.]+)*")


@dataclass(frozen=True)
class SignedIn:
    """A user, and the session the request belongs to."""

    user: dict[str, Any]
    session: str | None


class Accounts:
    """Users and their sessions.

    Parameters
    ----------
    pool:
        Sessions of a role that may become supabase_auth_admin.
    keys:
        Tokens are signed with their secret.
    settings:
        The section ``[auth]`` of config.toml.
    issuer:
        For tokens.
    """

    def __init__(self, pool: SessionPool, keys: Keys, settings: AuthSettings, issuer: str) -> None:
        self.database = AuthDatabase(pool)
        self._keys = keys
        self._settings = settings
        self._issuer = issuer

    # -- in --------------------------------------------------------------------------------------------------

    async def sign_up(self, options: Mapping[str, Any], agent: str | None) -> dict[str, Any]:
        """Make a user; without an address an anonymous one. Raises AuthError."""
        settings = self._settings
        if not settings.signup:
            raise AuthError(422, "signup_disabled", "Signups not allowed for this instance")
        data = object_of(options, "data")
        if options.get("phone"):
            raise unsupported("signing up by phone")
        if not options.get("email") and not options.get("password"):
            if not settings.anonymous:
                raise AuthError(422, "anonymous_provider_disabled", "Anonymous sign-ins are disabled")
            id = await self.create(None, None, data, {}, confirmed=False)
            return await self._begin(id, "anonymous", agent)
        email, password = read_email(options.get("email")), self.read_password(options.get("password"))
        if await self.database.one("user_by_email", email) is not None:
            raise user_exists()
        app_data = {"provider": "email", "providers": ["email"]}
        id = await self.create(email, password, data, app_data, confirmed=not settings.confirmations)
        if settings.confirmations:
            # Nobody sends mails here: the user stays unconfirmed, as one who does not open the mail.
            return shown(await self.database.one("user", id))
        return await self._begin(id, "password", agent)

    async def create(
        self,
        email: str | None,
        password: str | None,
        data: Mapping[str, Any],
        app_data: Mapping[str, Any],
        *,
        confirmed: bool,
    ) -> str:
        """Insert a user and the identity behind it; returns the id.

        Parameters
        ----------
        password:
            None: the user cannot sign in by one.
        """
        id = str(uuid.uuid4())
        known = {"email_verified": confirmed, "phone_verified": False, "sub": id}
        metadata = {**data, "email": email, **known} if email else dict(data)
        calls: list[Call] = [
            (
                "create_user",
                (
                    *(id, email, passwords.hash_password(password) if password else None),
                    *(json.dumps(app_data), json.dumps(metadata), "false" if email else "true"),
                ),
            )
        ]
        if email is not None:
            identity = {**data, "email": email, **known, "email_verified": False}
            calls.append(("create_identity", (id, json.dumps(identity))))
            if confirmed:
                calls.append(("confirm_email", (id,)))
        await self.database.run(*calls)
        return id

    async def sign_in(self, options: Mapping[str, Any], agent: str | None) -> dict[str, Any]:
        """Begin a session by address and password. Raises AuthError."""
        if options.get("phone"):
            raise unsupported("signing in by phone")
        email, password = options.get("email"), options.get("password")
        if not isinstance(email, str) or not email:
            raise invalid("missing email or phone")
        user: dict[str, Any] = await self.database.one("user_by_email", email) or {}
        stored = user.get("encrypted_password")
        if not stored or not isinstance(password, str) or not await self._is_password(password, stored):
            raise wrong_credentials()
        if user["banned"]:
            raise AuthError(400, "user_banned", "User is banned")
        if user["email_confirmed_at"] is None:
            raise AuthError(400, "email_not_confirmed", "Email not confirmed")
        return await self._begin(user["id"], "password", agent)

    async def _is_password(self, password: str, stored: str) -> bool:
        if passwords.is_own(stored):
            return passwords.matches(password, stored)
        try:
            # Set by SQL, with pgcrypto.
            return bool(await self.database.one("crypt", password, stored))
        except AuthError as error:
            raise unsupported("a password that was not set by the API (there is no pgcrypto here)") from error

    async def _begin(self, id: str, method: str, agent: str | None) -> dict[str, Any]:
        session, token = str(uuid.uuid4()), _new_token()
        await self.database.run(
            ("sign_in", (id,)),
            ("create_session", (session, id, agent)),
            ("create_token", (token, id, None, session)),
        )
        return await self._tokens(id, session, token, method)

    async def _tokens(self, id: str, session: str, token: str, method: str) -> dict[str, Any]:
        user = shown(await self.database.one("user", id))
        seconds = self._settings.jwt_expiry
        payload = claims(user, session, method, issuer=self._issuer, seconds=seconds)
        return {
            "access_token": self._keys.mint(payload),
            "token_type": "bearer",
            "expires_in": seconds,
            "expires_at": int(time.time()) + seconds,
            "refresh_token": token,
            "user": user,
        }

    async def refresh(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Go on with a session: each refresh token is good once. Raises AuthError."""
        given = options.get("refresh_token")
        if not isinstance(given, str) or not given:
            raise invalid("refresh_token required")
        found = await self.database.one("token", given)
        if found is None:
            text = "Invalid Refresh Token: Refresh Token Not Found"
            raise AuthError(400, "refresh_token_not_found", text)
        id, session = found["user_id"], found["session_id"]
        token = found["current"] if found["revoked"] else None
        if found["revoked"]:
            # Two tabs may refresh at the same time; later it is a stolen token, and the session ends.
            if token is None or found["seconds"] > self._settings.reuse_interval:
                await self.database.run(("end_session", (session,)))
                raise AuthError(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used")
        else:
            token = _new_token()
            await self.database.run(
                ("revoke_token", (given,)),
                ("create_token", (token, id, given, session)),
                ("refresh_session", (session,)),
            )
        user = await self.database.one("user", id)
        method = "anonymous" if user["is_anonymous"] else "password"
        return await self._tokens(id, session, cast("str", token), method)

    # -- who is there --------------------------------------------------------------------------------------

    async def signed_in(self, id: str, session: str | None) -> SignedIn:
        """The user of a token, if there still is one. Raises AuthError."""
        user = await self.database.one("user", id)
        if user is None:
            raise AuthError(403, "user_not_found", "User from sub claim in JWT does not exist")
        if session is not None and await self.database.one("session", session, id) is None:
            text = "Session from session_id claim in JWT does not exist"
            raise AuthError(403, "session_not_found", text)
        return SignedIn(shown(user), session)

    async def change(self, who: SignedIn, options: Mapping[str, Any]) -> dict[str, Any]:
        """Change what a user may change: address, password, metadata. Raises AuthError."""
        id = who.user["id"]
        if options.get("phone"):
            raise unsupported("a phone number")
        email = read_email(options["email"]) if options.get("email") else None
        if email is not None and email != who.user["email"]:
            if self._settings.confirmations:
                raise unsupported("a change of the address that has to be confirmed by mail")
            if await self.database.one("user_by_email", email) is not None:
                raise AuthError(
                    422, "email_exists", "A user with this email address has already been registered"
                )
        password = None
        if options.get("password"):
            password = self.read_password(options["password"])
            row = await self.database.one("user", id)
            if row["encrypted_password"] and await self._is_password(password, row["encrypted_password"]):
                text = "New password should be different from the old password."
                raise AuthError(422, "same_password", text)
        return await self.write(id, email, password, object_of(options, "data") or None)

    async def write(
        self,
        id: str,
        email: str | None,
        password: str | None,
        data: Mapping[str, Any] | None,
        app_data: Mapping[str, Any] | None = None,
        role: str | None = None,
    ) -> dict[str, Any]:
        """Change a user; None leaves things as they are. Returns the user as it is shown."""
        row = await self.database.one("user", id)
        calls: list[Call] = []
        if email is not None:
            data = {**(data or {}), "email": email, "email_verified": True}
            if row["identities"]:
                calls.append(("change_identity", (id, json.dumps({"email": email}))))
            else:
                # An anonymous user becomes one with an address.
                identity = {"sub": id, "email": email, "email_verified": False, "phone_verified": False}
                calls.append(("create_identity", (id, json.dumps(identity))))
                app_data = {**(app_data or {}), "provider": "email", "providers": ["email"]}
            calls.append(("confirm_email", (id,)))
        values = (
            *(id, email, passwords.hash_password(password) if password else None),
            *(None if each is None else json.dumps(each) for each in (data, app_data)),
            role,
        )
        await self.database.run(*calls, ("change_user", values))
        return shown(await self.database.one("user", id))

    async def sign_out(self, who: SignedIn, scope: str) -> None:
        """End sessions: all of a user's (``global``), this one (``local``), or the ``others``."""
        id = who.user["id"]
        if scope == "global" or who.session is None:
            await self.database.run(("end_all_sessions", (id,)))
        elif scope == "local":
            await self.database.run(("end_session", (who.session,)))
        else:
            await self.database.run(("end_other_sessions", (id, who.session)))

    def read_password(self, value: Any) -> str:
        """A password that is strong enough. Raises AuthError."""
        if not isinstance(value, str) or not value:
            raise invalid("Signup requires a valid password")
        if len(value.encode()) > passwords.LONGEST:
            raise invalid(f"Password cannot be longer than {passwords.LONGEST} characters")
        least = self._settings.minimum_password_length
        if len(value) < least:
            text = f"Password should be at least {least} characters."
            raise AuthError(422, "weak_password", text, weak_password={"reasons": ["length"]})
        return value


def read_email(value: Any) -> str:
    """An address, in lower case. Raises AuthError."""
    if not isinstance(value, str) or not value:
        raise invalid("An email address is required")
    if not _EMAIL.fullmatch(value) or len(value) > 255:
        raise invalid("Unable to validate email address: invalid format")
    return value.lower()


def _new_token() -> str:
    return secrets.token_urlsafe(9)
