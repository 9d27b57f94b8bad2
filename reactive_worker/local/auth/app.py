"""`/auth/v1`: the routes, and who may use them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from reactive_worker.local.auth.accounts import Accounts, SignedIn
from reactive_worker.local.auth.admin import Admin
from reactive_worker.local.auth.errors import AuthError, invalid, unsupported
from reactive_worker.local.auth.options import read_options
from reactive_worker.local.auth.users import user_id
from reactive_worker.local.keys import SERVICE_ROLE, KeyRefusedError, Keys
from reactive_worker.local.project import AuthSettings
from reactive_worker.local.rest.errors import ApiError
from reactive_worker.local.rest.session import SessionPool

_log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]


class AuthApp:
    """Answers everything below ``/auth/v1``, that prefix removed.

    Parameters
    ----------
    pool:
        Sessions of a role that may become supabase_auth_admin.
    keys:
        The project's keys: users' tokens are signed with their secret.
    settings:
        The section ``[auth]`` of config.toml.
    issuer:
        URL of this server, for tokens.
    """

    def __init__(self, pool: SessionPool, keys: Keys, settings: AuthSettings, issuer: str) -> None:
        self._keys = keys
        self._settings = settings
        self._accounts = Accounts(pool, keys, settings, issuer)
        self._admin = Admin(self._accounts)
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/health", self._health),
            ("GET", "/settings", self._show_settings),
            ("GET", "/.well-known/jwks.json", self._key_set),
            ("POST", "/signup", self._sign_up),
            ("POST", "/token", self._token),
            ("GET", "/user", self._user),
            ("PUT", "/user", self._change),
            ("POST", "/logout", self._sign_out),
            ("GET", "/admin/users", self._as_admin(self._admin.list)),
            ("POST", "/admin/users", self._as_admin(self._admin.create)),
            ("GET", "/admin/users/{id}", self._as_admin(self._admin.get)),
            ("PUT", "/admin/users/{id}", self._as_admin(self._admin.change)),
            ("DELETE", "/admin/users/{id}", self._as_admin(self._admin.delete)),
        ]
        self._app = Starlette(
            routes=[
                *(Route(path, self._caught(handler), methods=[method]) for method, path, handler in routes),
                Route(
                    "/{path:path}",
                    self._caught(_not_here),
                    methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
                ),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._app(scope, receive, send)

    def _caught(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            try:
                self._check_key(request)
                return await handler(request)
            except KeyRefusedError as error:
                return JSONResponse({"message": error.message, "hint": error.hint}, 401)
            except AuthError as error:
                return error.answer(request)
            except ApiError as error:  # The database is away.
                return AuthError(error.status, "unexpected_failure", str(error)).answer(request)
            except HTTPException as error:
                return AuthError(error.status_code, "unexpected_failure", error.detail).answer(request)
            except Exception:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the rest
                _log.exception("a request to auth failed: %s %s", request.method, request.url.path)
                text = "Unexpected failure, please check server logs for more information"
                return AuthError(500, "unexpected_failure", text).answer(request)

        return answer

    def _check_key(self, request: Request) -> None:
        """The API gateway asks for a key of the project; only the public keys are for everybody."""
        if request.url.path.endswith("/.well-known/jwks.json"):
            return
        key = request.headers.get("apikey") or request.query_params.get("apikey")
        self._keys.identify(authorization=None if key else request.headers.get("authorization"), apikey=key)

    def _as_admin(self, handler: Handler) -> Handler:
        async def checked(request: Request) -> Response:
            identity = self._keys.identify(
                authorization=request.headers.get("authorization"), apikey=request.headers.get("apikey")
            )
            if identity.role != SERVICE_ROLE:
                raise AuthError(403, "not_admin", "User not allowed")
            return await handler(request)

        return checked

    # -- about the server ------------------------------------------------------------------------------------

    async def _health(self, _: Request) -> Response:
        text = "GoTrue is a user registration and authentication API"
        return JSONResponse({"version": "embedded", "name": "GoTrue", "description": text})

    async def _show_settings(self, _: Request) -> Response:
        settings = self._settings
        return JSONResponse(
            {
                "external": {"anonymous_users": settings.anonymous, "email": True, "phone": False},
                "disable_signup": not settings.signup,
                "mailer_autoconfirm": not settings.confirmations,
                "phone_autoconfirm": False,
                "sms_provider": "",
                "saml_enabled": False,
            }
        )

    async def _key_set(self, _: Request) -> Response:
        # Tokens are signed with the shared secret, which is nobody else's business.
        return JSONResponse({"keys": []})

    # -- users -----------------------------------------------------------------------------------------------

    async def _sign_up(self, request: Request) -> Response:
        options = await read_options(request)
        return JSONResponse(await self._accounts.sign_up(options, request.headers.get("user-agent")))

    async def _token(self, request: Request) -> Response:
        options, agent = await read_options(request), request.headers.get("user-agent")
        grant = request.query_params.get("grant_type", "")
        if grant == "password":
            return JSONResponse(await self._accounts.sign_in(options, agent))
        if grant == "refresh_token":
            return JSONResponse(await self._accounts.refresh(options))
        if grant in ("pkce", "id_token", "web3"):
            raise unsupported(f"the grant {grant}")
        raise AuthError(400, "invalid_credentials", "unsupported_grant_type")

    async def _signed_in(self, request: Request) -> SignedIn:
        """Who the bearer of a request is."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise AuthError(401, "no_authorization", "This endpoint requires a valid Bearer token")
        try:
            claims = self._keys.verify(token.strip())
        except KeyRefusedError as error:
            text = f"invalid JWT: unable to parse or verify signature, {error.message}"
            raise AuthError(403, "bad_jwt", text) from error
        id = user_id(claims.get("sub"))
        if id is None:
            raise AuthError(403, "bad_jwt", "invalid claim: missing sub claim")
        return await self._accounts.signed_in(id, user_id(claims.get("session_id")))

    async def _user(self, request: Request) -> Response:
        return JSONResponse((await self._signed_in(request)).user)

    async def _change(self, request: Request) -> Response:
        who = await self._signed_in(request)
        return JSONResponse(await self._accounts.change(who, await read_options(request)))

    async def _sign_out(self, request: Request) -> Response:
        scope = request.query_params.get("scope", "global")
        if scope not in ("global", "local", "others"):
            raise invalid(f"Unsupported logout scope {scope!r}")
        await self._accounts.sign_out(await self._signed_in(request), scope)
        return Response(status_code=204)


async def _not_here(request: Request) -> Response:
    raise unsupported(f"{request.method} /auth/v1{request.scope['path']}")
