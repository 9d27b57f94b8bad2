"""What the service role may do to users: list, make, change and remove them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reactive_worker.local.auth.accounts import Accounts, read_email
from reactive_worker.local.auth.errors import AuthError, no_user, unsupported
from reactive_worker.local.auth.options import number_of, object_of, read_options
from reactive_worker.local.auth.users import shown, user_id

#: Users on one page of the list, unless another number is asked for.
_PAGE = 50
_NOT_YET = ("phone", "ban_duration", "nonce", "email_change")


class Admin:
    """Handlers below ``/admin/users``; that the service role asks is checked before.

    Parameters
    ----------
    accounts:
        Users and their sessions.
    """

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def list(self, request: Request) -> Response:
        """One page of all users, the newest first."""
        page = number_of(request, "page", 1)
        size = number_of(request, "per_page", _PAGE)
        rows = await self._accounts.database.all("users", str(size), str((page - 1) * size))
        total = int(await self._accounts.database.one("count_users"))
        body = {"users": [shown(row) for row in rows], "aud": "authenticated"}
        return JSONResponse(body, headers={"X-Total-Count": str(total)})

    async def create(self, request: Request) -> Response:
        """Make a user, with or without a password, confirmed if that is asked for."""
        options = await _options(request)
        email = read_email(options.get("email"))
        password = self._accounts.read_password(options["password"]) if options.get("password") else None
        if await self._accounts.database.one("user_by_email", email) is not None:
            text = "A user with this email address has already been registered"
            raise AuthError(422, "email_exists", text)
        app_data = {"provider": "email", "providers": ["email"], **object_of(options, "app_metadata")}
        id = await self._accounts.create(
            email,
            password,
            object_of(options, "user_metadata"),
            app_data,
            confirmed=options.get("email_confirm") is True,
        )
        return JSONResponse(shown(await self._accounts.database.one("user", id)))

    async def get(self, request: Request) -> Response:
        """One user."""
        return JSONResponse(shown(await self._row(request)))

    async def change(self, request: Request) -> Response:
        """Change a user."""
        row, options = await self._row(request), await _options(request)
        changed = await self._accounts.write(
            row["id"],
            read_email(options["email"]) if options.get("email") else None,
            self._accounts.read_password(options["password"]) if options.get("password") else None,
            object_of(options, "user_metadata") or None,
            object_of(options, "app_metadata") or None,
            str(options["role"]) if options.get("role") else None,
        )
        if options.get("email_confirm") is True:
            await self._accounts.database.run(("confirm_email", (row["id"],)))
            changed = shown(await self._accounts.database.one("user", row["id"]))
        return JSONResponse(changed)

    async def delete(self, request: Request) -> Response:
        """Remove a user and all that is theirs."""
        row = await self._row(request)
        if (await _options(request)).get("should_soft_delete") is True:
            raise unsupported("soft deletion")
        await self._accounts.database.run(("delete_user", (row["id"],)))
        return JSONResponse({})

    async def _row(self, request: Request) -> dict[str, Any]:
        id = user_id(request.path_params["id"])
        if id is None:
            raise AuthError(404, "validation_failed", "user_id must be an UUID")
        row = await self._accounts.database.one("user", id)
        if row is None:
            raise no_user()
        return row


async def _options(request: Request) -> dict[str, Any]:
    options = await read_options(request)
    for name in _NOT_YET:
        if options.get(name):
            raise unsupported(f"{name} of a user")
    return options
