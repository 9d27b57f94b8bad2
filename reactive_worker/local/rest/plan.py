"""From a request to its statement, and from the statement's row to the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from starlette.requests import Request
from starlette.responses import Response

from reactive_worker.local.project import Project
from reactive_worker.local.rest.answers import Result, content_range, finish, read_status
from reactive_worker.local.rest.catalog import Catalog, Function, Table
from reactive_worker.local.rest.errors import (
    ApiError,
    bad_body,
    not_single,
    too_many_affected,
    unknown_function,
    unknown_table,
    unsupported,
)
from reactive_worker.local.rest.hints import closest
from reactive_worker.local.rest.preferences import JSON, Media, Preferences, media_type, need_json
from reactive_worker.local.rest.query import Query
from reactive_worker.local.rest.rpc import (
    build_call,
    call_from_json,
    call_from_texts,
    call_with_body,
    choose_function,
    json_arguments,
    takes_body,
)
from reactive_worker.local.rest.session import Row
from reactive_worker.local.rest.sql import Built, Parameters, Shape, build_read
from reactive_worker.local.rest.writes import Resolution, build_delete, build_insert, build_update, parse_rows


@dataclass(frozen=True)
class Incoming:
    """A request, read and parsed."""

    request: Request
    method: str
    path: str
    name: str
    is_rpc: bool
    schema: str
    #: The schema if it was named, to be confirmed in the answer.
    profile: str | None
    query: Query
    preferences: Preferences
    media: Media
    content_type: str | None
    body: bytes


@dataclass(frozen=True)
class Plan:
    """What to run, and how to answer."""

    built: Built
    read_only: bool
    answer: Callable[[Row], Response]
    #: Called before the commit; raises to roll back.
    check: Callable[[Row], None] | None = None
    #: Settings attached to the function that is called.
    settings: Mapping[str, str] = field(default_factory=dict[str, str])


class Planner:
    """Plans requests with what the catalog knows.

    Parameters
    ----------
    catalog:
        Tables and functions.
    project:
        For max_rows.
    """

    def __init__(self, catalog: Catalog, project: Project) -> None:
        self._catalog = catalog
        self._max_rows = project.max_rows

    async def plan(self, incoming: Incoming) -> Plan:
        """Plan one request.

        Raises
        ------
        ApiError
            It cannot be carried out.
        """
        if incoming.is_rpc:
            return await self._rpc(incoming)
        table = await self._catalog.table(incoming.schema, incoming.name)
        if table is None:
            names = await self._catalog.table_names(incoming.schema)
            raise unknown_table(incoming.schema, incoming.name, closest(incoming.name, names))
        if incoming.method in ("GET", "HEAD"):
            return self._read(incoming, table)
        if incoming.method in ("POST", "PATCH", "DELETE"):
            return self._write(incoming, table)
        if incoming.method == "PUT":
            raise unsupported("PUT")
        raise ApiError(405, "PGRST117", f"Unsupported HTTP method: {incoming.method}")

    # -- tables ------------------------------------------------------------------------------------

    def _read(self, incoming: Incoming, table: Table) -> Plan:
        query, media = incoming.query, incoming.media
        shape = Shape(media.single, media.strip_nulls)
        count = incoming.preferences.count
        built = build_read(table, query, shape, count=count, max_rows=self._max_rows)

        def answer(row: Row) -> Response:
            result = Result.of(row)
            status = read_status(query.offset, result)
            if media.single and result.rows != 1:
                raise not_single(result.rows)
            headers = {"Content-Range": content_range(query.offset, result.rows, result.total)}
            return finish(status, result, media, incoming.preferences, {**headers, **_profile(incoming)})

        return Plan(built, read_only=True, answer=answer)

    def _write(self, incoming: Incoming, table: Table) -> Plan:
        preferences, media, query = incoming.preferences, incoming.media, incoming.query
        shown = preferences.returns == "representation"
        shape = Shape(media.single, media.strip_nulls, empty=not shown)
        defaults = preferences.missing_default
        if incoming.method == "DELETE":
            # supabase-py sends `{}` along; nothing of it matters.
            built = build_delete(table, query, shape)
        else:
            need_json(incoming.content_type)
            body = parse_rows(incoming.body)
            if incoming.method == "PATCH":
                built = build_update(table, query, body, shape, defaults=defaults)
            else:
                resolution = cast("Resolution | None", preferences.resolution)
                built = build_insert(table, query, body, shape, resolution=resolution, defaults=defaults)

        def answer(row: Row) -> Response:
            result = Result.of(row)
            status = _write_status(incoming.method, preferences, result)
            total = result.rows if preferences.count else None
            span = content_range(0, result.rows if incoming.method == "PATCH" else 0, total)
            headers = {"Content-Range": span, **_profile(incoming)}
            return finish(status, result, media if shown else None, preferences, headers)

        limit = preferences.max_affected
        check = _row_check(media, limit) if media.single or limit is not None else None
        return Plan(built, read_only=False, answer=answer, check=check)

    # -- functions ---------------------------------------------------------------------------------

    async def _rpc(self, incoming: Incoming) -> Plan:
        if incoming.method not in ("GET", "HEAD", "POST"):
            raise ApiError(405, "PGRST101", f"Cannot use the {incoming.method} method on RPC")
        reading = incoming.method != "POST"
        kind = None if reading else media_type(incoming.content_type)
        text, keys = "", [name for name, _ in incoming.query.arguments]
        if kind == JSON:
            text, arguments = json_arguments(incoming.body)
            keys = list(arguments or ())
        function = await self._choose(incoming, keys, kind)
        parameters = Parameters()
        if reading:
            texts: dict[str, list[str]] = {}
            for name, value in incoming.query.arguments:
                texts.setdefault(name, []).append(value)
            source = call_from_texts(function, texts, parameters)
        elif kind is not None and takes_body(function, kind):
            source = call_with_body(function, incoming.body or b"{}", kind, parameters)
        else:
            source = call_from_json(function, text, keys, parameters)
        return self._call(incoming, function, source, parameters, read_only=reading or not function.volatile)

    async def _choose(self, incoming: Incoming, keys: Sequence[str], kind: str | None) -> Function:
        functions = await self._catalog.functions(incoming.schema, incoming.name)
        function = choose_function(functions, keys, media_type=kind)
        if function is not None:
            return function
        if kind not in (None, JSON) and any(len(each.parameters) != 1 for each in functions):
            raise bad_body(f"Content-Type not acceptable: {kind}")
        names = await self._catalog.function_names(incoming.schema)
        raise unknown_function(incoming.schema, incoming.name, sorted(keys), closest(incoming.name, names))

    def _call(
        self,
        incoming: Incoming,
        function: Function,
        source: str,
        parameters: Parameters,
        *,
        read_only: bool,
    ) -> Plan:
        media, preferences, query = incoming.media, incoming.preferences, incoming.query
        if preferences.max_affected is not None and not function.returns_set:
            raise ApiError(
                400,
                "PGRST128",
                "Function must return SETOF or TABLE when max-affected preference is used "
                "with handling=strict",
            )
        minimal = incoming.method == "POST" and "return=minimal" in preferences.applied
        empty = function.void or minimal
        shape = Shape(media.single, media.strip_nulls, empty=empty)
        count = preferences.count
        built = build_call(function, source, parameters, query, shape, count=count, max_rows=self._max_rows)

        def answer(row: Row) -> Response:
            result = Result.of(row)
            offset = query.offset if function.returns_set else 0
            status = 204 if empty else read_status(offset, result)
            if read_only and media.single and function.returns_set and result.rows != 1:
                raise not_single(result.rows)
            headers = {"Content-Range": content_range(offset, result.rows, result.total)}
            shown = None if empty else media
            return finish(status, result, shown, preferences, {**headers, **_profile(incoming)})

        limit = preferences.max_affected
        checked = not read_only and ((media.single and function.returns_set) or limit is not None)
        return Plan(
            built,
            read_only=read_only,
            answer=answer,
            check=_row_check(media, limit) if checked else None,
            settings=function.settings,
        )


def _profile(incoming: Incoming) -> dict[str, str]:
    return {"Content-Profile": incoming.profile} if incoming.profile else {}


def _write_status(method: str, preferences: Preferences, result: Result) -> int:
    if method == "POST":
        # A merge that only changed rows that were there has created nothing.
        merged = preferences.resolution == "merge-duplicates" and result.extra == "0"
        return 200 if merged else 201
    return 200 if preferences.returns == "representation" else 204


def _row_check(media: Media, limit: int | None) -> Callable[[Row], None]:
    def check(row: Row) -> None:
        rows = Result.of(row).rows
        if limit is not None and rows > limit:
            raise too_many_affected(rows)
        if media.single and rows != 1:
            raise not_single(rows)

    return check
