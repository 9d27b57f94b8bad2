"""The auth server's error answers, in both of its forms."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

#: From this version of its API on, a client is told the code as ``code``.
_NEW = "2024-01-01"


class AuthError(Exception):
    """A request that is answered with an error.

    Parameters
    ----------
    status:
        HTTP status.
    code:
        The auth server's name of it.
    message:
        What happened.
    more:
        More keys of the body.
    """

    def __init__(self, status: int, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.more = more

    def answer(self, request: Request) -> Response:
        """The answer, in the form the client understands."""
        version = request.headers.get("x-supabase-api-version", "")
        headers = {"x-sb-error-code": self.code}
        if version >= _NEW:
            body = {"code": self.code, "message": self.message, **self.more}
            return JSONResponse(body, self.status, {**headers, "X-Supabase-Api-Version": _NEW})
        body = {"code": self.status, "error_code": self.code, "msg": self.message, **self.more}
        return JSONResponse(body, self.status, headers)


def unsupported(what: str) -> AuthError:
    """Something the auth server can do and this one cannot."""
    text = f"{what} is not supported by the embedded Supabase: use `supabase start` or a hosted project"
    return AuthError(501, "feature_disabled", text)


def invalid(message: str) -> AuthError:
    """A request that makes no sense."""
    return AuthError(400, "validation_failed", message)


def wrong_credentials() -> AuthError:
    """No such user, or another password."""
    return AuthError(400, "invalid_credentials", "Invalid login credentials")


def user_exists() -> AuthError:
    """The address belongs to somebody."""
    return AuthError(422, "user_already_exists", "User already registered")


def no_user() -> AuthError:
    """The user is gone."""
    return AuthError(404, "user_not_found", "User not found")
