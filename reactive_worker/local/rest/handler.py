"""The REST API as an ASGI application: one request in, one transaction, one answer out."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from reactive_worker.local.faults import Faults
from reactive_worker.local.keys import KeyRefusedError, Keys
from reactive_worker.local.project import Project
from reactive_worker.local.rest.answers import error_response
from reactive_worker.local.rest.catalog import Catalog
from reactive_worker.local.rest.errors import ApiError, DatabaseError, from_database, from_key
from reactive_worker.local.rest.identity import Identities, KnownIdentity
from reactive_worker.local.rest.parse import parse_query
from reactive_worker.local.rest.plan import Incoming, Plan, Planner
from reactive_worker.local.rest.preferences import (
    Preferences,
    narrowed,
    parse_accept,
    parse_preferences,
    parse_range,
)
from reactive_worker.local.rest.server import ServerSettings
from reactive_worker.local.rest.session import Command, Row, SessionPool
from reactive_worker.local.rest.settings import request_settings
from reactive_worker.local.rest.sql import quote

_log = logging.getLogger(__name__)

# What a request fails with when the catalog has moved on since it was remembered. In PostgreSQL: no such
# function, table or column, or a type that does not fit; here: no such function, column or relationship.
_STALE = frozenset({"42883", "42P01", "42703", "42804", "PGRST200", "PGRST202", "PGRST203", "PGRST204"})
_READ_METHODS = ("GET", "HEAD")


class RestApp:
    """What lies below ``/rest/v1``; the scope's path comes without this prefix.

    Parameters
    ----------
    pool:
        Connections of the role `authenticator`.
    keys:
        The project's keys.
    project:
        Exposed schemas, search path and max_rows.
    faults:
        The fault switches.
    """

    def __init__(self, pool: SessionPool, keys: Keys, project: Project, faults: Faults) -> None:
        self._pool = pool
        self._project = project
        self._faults = faults
        self._identities = Identities(keys.rest_identity)
        self._closing = asyncio.Event()
        #: What is remembered of the database; call its `forget` when that has changed.
        self.catalog = Catalog(self._ask)
        self._planner = Planner(self.catalog)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        if self._faults.swallow:
            await self._swallow(receive)
            return
        try:
            response = await self._answer(request)
        except ApiError as error:
            response = error_response(error)
        except KeyRefusedError as error:
            response = _refuse_key(error)
        except HTTPException as error:
            # A limit of the gateway.
            response = error_response(
                ApiError(error.status_code, str(error.status_code), error.detail, headers=error.headers)
            )
        except ClientDisconnect:
            return
        except Exception:  # noqa: BLE001 - logged, and answered in the shape clients know
            _log.exception("the REST gateway could not answer %s %s", scope["method"], scope["path"])
            response = error_response(ApiError(500, "PGRSTX00", "Internal error: see the gateway's log"))
        await response(scope, receive, send)

    def close(self) -> None:
        """Let go of requests that will never be answered."""
        self._closing.set()

    async def _swallow(self, receive: Receive) -> None:
        """Take a request and never answer it; over when the client gives up, or the server stops."""
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            gone = False
            while not gone and not closing.done():
                message = asyncio.ensure_future(receive())
                await asyncio.wait((message, closing), return_when=asyncio.FIRST_COMPLETED)
                if message.done():
                    gone = message.result()["type"] == "http.disconnect"
                else:
                    message.cancel()
        finally:
            closing.cancel()

    async def _answer(self, request: Request) -> Response:
        status = self._faults.rest_status
        if status is not None:
            raise ApiError(status, str(status), f"fault switch rest_status: every request gets {status}")
        headers = request.headers
        apikey = headers.get("apikey") or request.query_params.get("apikey")
        known = self._identities.of(headers.get("authorization"), apikey)
        path: str = request.scope["path"]
        if path in ("", "/"):
            raise _no_description()
        server = await self.catalog.server_settings()
        incoming = await self._read(request, path, _as_set(self._project, server), server)
        if request.method == "OPTIONS":
            return Response(status_code=200, headers={"Allow": "OPTIONS,GET,HEAD,POST,PUT,PATCH,DELETE"})
        generation = self.catalog.generation
        try:
            return await self._run(incoming, known)
        except DatabaseError as error:
            if error.sqlstate not in _STALE:
                raise from_database(error, anonymous=known.identity.anonymous) from error
        except ApiError as error:
            if error.code not in _STALE:
                raise
        # Nothing of the failed transaction stays, so it can be tried with what the catalog says now.
        if generation == self.catalog.generation:
            self.catalog.forget()
        try:
            return await self._run(incoming, known)
        except DatabaseError as error:
            raise from_database(error, anonymous=known.identity.anonymous) from error

    async def _read(self, request: Request, path: str, project: Project, server: ServerSettings) -> Incoming:
        headers, method = request.headers, request.method
        name = path.removeprefix("/rpc/")
        is_rpc = name != path
        if not is_rpc:
            name = path.removeprefix("/")
        if not name or "/" in name or "\0" in name:
            raise ApiError(404, "PGRST125", "Invalid path specified in request URL")
        reading = method in _READ_METHODS
        query = parse_query(request.scope["query_string"].decode("latin-1"), rpc_arguments=is_rpc and reading)
        span = parse_range(headers.get("range")) if method == "GET" else None
        if span is not None:
            offset, limit = narrowed(span, query.offset, query.limit)
            query = replace(query, offset=offset, limit=limit)
        profile = headers.get("accept-profile" if reading else "content-profile")
        schema = profile or project.schemas[0]
        if schema not in project.schemas:
            exposed = ", ".join(project.schemas)
            hint = f"Only the following schemas are exposed: {exposed}"
            raise ApiError(406, "PGRST106", f"Invalid schema: {schema}", None, hint)
        return Incoming(
            request=request,
            method=method,
            path=path,
            name=name,
            is_rpc=is_rpc,
            schema=schema,
            profile=schema if profile or len(project.schemas) > 1 else None,
            query=query,
            preferences=await self._preferences(headers.getlist("prefer")),
            media=parse_accept(headers.get("accept")),
            content_type=headers.get("content-type"),
            body=b"" if reading else await request.body(),
            project=project,
            aggregates=server.aggregates,
        )

    async def _preferences(self, headers: list[str]) -> Preferences:
        zoned = any("timezone=" in header for header in headers)
        return parse_preferences(headers, await self.catalog.timezones() if zoned else ())

    async def _run(self, incoming: Incoming, known: KnownIdentity) -> Response:
        plan = await self._planner.plan(incoming)
        rows = await self._execute(incoming, known, plan)
        return plan.answer(rows[0][0], rows[1][0] if len(rows) > 1 else None)

    async def _execute(self, incoming: Incoming, known: KnownIdentity, plan: Plan) -> list[list[Row]]:
        server = await self.catalog.server_settings()
        settings = request_settings(
            incoming.request,
            incoming.path,
            known,
            incoming.schema,
            incoming.project,
            role_settings=await self.catalog.role_settings(known.identity.role),
            function_settings=plan.settings,
            read_only=plan.read_only,
            clock_offset=self._faults.clock_offset,
            timezone=incoming.preferences.timezone,
        )
        asked = [built for built in (plan.built, plan.explain) if built is not None]
        commands = [settings, *(Command(built.sql, built.parameters) for built in asked)]
        if server.pre_request is not None:
            name = ".".join(quote(part) for part in server.pre_request)
            commands.insert(1, Command(f"select {name}()"))
        async with self._pool.session() as session:
            return await session.run_several(commands, len(asked), plan.check)

    async def _ask(self, commands: Any) -> list[Row]:
        async with self._pool.session() as session:
            return await session.run(commands)


def _refuse_key(error: KeyRefusedError) -> Response:
    answer = from_key(error)
    if answer is not None:
        return error_response(answer)
    return JSONResponse({"message": error.message, "hint": error.hint}, 401)


def _no_description() -> ApiError:
    # As a server says it whose description is switched off.
    return ApiError(
        404,
        "PGRST126",
        "Root endpoint metadata is disabled",
        "The OpenAPI description (GET /rest/v1/) is not supported by the embedded Supabase",
        "Use `supabase start` or a hosted project for this.",
    )


def _as_set(project: Project, server: ServerSettings) -> Project:
    """The project with what the database says of the API server."""
    return replace(
        project,
        schemas=server.schemas or project.schemas,
        extra_search_path=server.extra_search_path or project.extra_search_path,
        max_rows=project.max_rows if server.max_rows is None else server.max_rows,
    )
