"""From a request to its statement, and from the statement's row to the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from starlette.requests import Request
from starlette.responses import Response

from reactive_worker.local.project import Project
from reactive_worker.local.rest.answers import Result, content_range, finish, read_status
from reactive_worker.local.rest.catalog import Catalog, Function, Table
from reactive_worker.local.rest.errors import (
    ApiError,
    bad_put,
    max_affected_of_one,
    not_single,
    put_mismatch,
    too_many_affected,
    unknown_function,
    unknown_table,
)
from reactive_worker.local.rest.hints import closest
from reactive_worker.local.rest.payload import RAW, Arguments, parse_rows, read_arguments
from reactive_worker.local.rest.preferences import Media, Preferences, media_type
from reactive_worker.local.rest.query import Query
from reactive_worker.local.rest.reads import build_read, total_rows
from reactive_worker.local.rest.rpc import build_call, call_sql, choose_function, relation_of
from reactive_worker.local.rest.session import Row
from reactive_worker.local.rest.sql import Built, Parameters, Shape
from reactive_worker.local.rest.tree import Node, Root, Trees
from reactive_worker.local.rest.writes import (
    Resolution,
    Shown,
    build_delete,
    build_insert,
    build_put,
    build_update,
)


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
    #: As config.toml and the settings of the role authenticator say.
    project: Project
    #: Whether aggregate functions may be used.
    aggregates: bool


@dataclass(frozen=True)
class Plan:
    """What to run, and how to answer."""

    built: Built
    read_only: bool
    #: Called with the statement's row, and with that of `explain`.
    answer: Callable[[Row, Row | None], Response]
    #: Called before the commit; raises to roll back.
    check: Callable[[Row], None] | None = None
    #: Settings attached to the function that is called.
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    explain: Built | None = None


class Planner:
    """Plans requests with what the catalog knows.

    Parameters
    ----------
    catalog:
        Tables and functions.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

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
            return await self._read(incoming, table)
        if incoming.method in ("POST", "PATCH", "DELETE", "PUT"):
            return await self._write(incoming, table)
        raise ApiError(405, "PGRST117", f"Unsupported HTTP method: {incoming.method}")

    async def _tree(self, incoming: Incoming, root: Root, *, conditions: bool = True) -> Node:
        trees = Trees(self._catalog, incoming.project.schemas)
        return await trees.of(root, incoming.query, aggregates=incoming.aggregates, conditions=conditions)

    # -- tables ------------------------------------------------------------------------------------

    async def _read(self, incoming: Incoming, table: Table) -> Plan:
        query, media, count = incoming.query, incoming.media, incoming.preferences.count
        max_rows = incoming.project.max_rows
        node = await self._tree(incoming, Root((table.schema, table.name), table.types))
        read = build_read(node, _shape(media), count=count, max_rows=max_rows)

        def answer(row: Row, plan: Row | None) -> Response:
            result = Result.of(row)
            result = replace(result, total=total_rows(count, result.total, plan, max_rows))
            status = read_status(query.offset, result)
            if media.single and result.rows != 1:
                raise not_single(result.rows)
            headers = {"Content-Range": content_range(query.offset, result.rows, result.total)}
            confirmed = incoming.preferences.confirmed("resolution", "missing", "return", "max-affected")
            return finish(status, result, media, confirmed, {**headers, **_profile(incoming)})

        return Plan(read.built, read_only=True, answer=answer, explain=read.explain)

    async def _write(self, incoming: Incoming, table: Table) -> Plan:
        preferences, media, method = incoming.preferences, incoming.media, incoming.method
        root = Root((table.schema, table.name), table.types, written=True)
        node = await self._tree(incoming, root, conditions=False)
        visible = preferences.returns == "representation"
        shown = Shown(node, _shape(media)) if visible else Shown(None, Shape(empty=True))
        built = self._built(incoming, table, shown)

        def answer(row: Row, _: Row | None) -> Response:
            result = Result.of(row)
            status = _write_status(method, preferences, result)
            headers = _profile(incoming) if visible else {}
            if method != "PUT":
                total = result.rows if preferences.counts else None
                span = content_range(0, result.rows if method == "PATCH" else 0, total)
                headers = {"Content-Range": span, **headers}
            confirmed = preferences.confirmed(*_useless(incoming, table))
            return finish(status, result, media if visible else None, confirmed, headers)

        limit = preferences.max_affected if method in ("PATCH", "DELETE") else None
        check = _row_check(media.single, limit) if media.single or limit is not None else None
        return Plan(built, read_only=False, answer=answer, check=_check_put if method == "PUT" else check)

    def _built(self, incoming: Incoming, table: Table, shown: Shown) -> Built:
        query, defaults = incoming.query, incoming.preferences.missing_default
        if incoming.method == "DELETE":
            # supabase-py sends `{}` along; nothing of it matters.
            return build_delete(table, query, shown)
        body = parse_rows(incoming.body, media_type(incoming.content_type))
        if incoming.method == "PATCH":
            return build_update(table, query, body, shown, defaults=defaults)
        if incoming.method == "PUT":
            if query.limit is not None or query.offset:
                raise bad_put()
            return build_put(table, query, body, shown)
        resolution = cast("Resolution | None", incoming.preferences.resolution)
        return build_insert(table, query, body, shown, resolution=resolution, defaults=defaults)

    # -- functions ---------------------------------------------------------------------------------

    async def _rpc(self, incoming: Incoming) -> Plan:
        if incoming.method not in ("GET", "HEAD", "POST"):
            raise ApiError(405, "PGRST101", f"Cannot use the {incoming.method} method on RPC")
        reading = incoming.method != "POST"
        kind = None if reading else media_type(incoming.content_type)
        if kind is None:
            texts = incoming.query.arguments
            arguments = Arguments(tuple(dict(texts)), texts=texts)
        else:
            arguments = read_arguments(incoming.body, kind, incoming.query.columns)
        function = await self._choose(incoming, arguments.names, kind)
        parameters = Parameters()
        source = call_sql(function, arguments, parameters)
        relation = relation_of(function)
        table = await self._catalog.table(*relation) if function.rows_of else None
        root = Root(relation, table.types if table else {}, written=True)
        node = await self._tree(incoming, root)
        return self._call(
            incoming, function, source, node, parameters, read_only=reading or not function.volatile
        )

    async def _choose(self, incoming: Incoming, keys: Sequence[str], kind: str | None) -> Function:
        functions = await self._catalog.functions(incoming.schema, incoming.name)
        function = choose_function(functions, keys, media_type=kind)
        if function is not None:
            return function
        names = await self._catalog.function_names(incoming.schema)
        alike = closest(incoming.name, names) if kind not in RAW and not functions else None
        raise unknown_function(incoming.schema, incoming.name, sorted(keys), kind, alike)

    def _call(
        self,
        incoming: Incoming,
        function: Function,
        source: str,
        node: Node,
        parameters: Parameters,
        *,
        read_only: bool,
    ) -> Plan:
        media, preferences, offset = incoming.media, incoming.preferences, incoming.query.offset
        limit = preferences.max_affected
        if limit is not None and not function.returns_set:
            raise max_affected_of_one()
        built = build_call(
            function,
            source,
            node,
            parameters,
            _shape(media),
            count=preferences.counts,
            max_rows=incoming.project.max_rows,
        )

        def answer(row: Row, _: Row | None) -> Response:
            result = Result.of(row)
            status = read_status(offset, result)
            headers = {"Content-Range": content_range(offset, result.rows, result.total)}
            confirmed = preferences.confirmed("resolution", "missing", "return")
            if function.void:
                return finish(204, result, None, confirmed, headers)
            return finish(status, result, media, confirmed, {**headers, **_profile(incoming)})

        checked = media.single or limit is not None
        return Plan(
            built,
            read_only=read_only,
            answer=answer,
            check=_row_check(media.single, limit) if checked else None,
            settings=function.settings,
        )


def _shape(media: Media) -> Shape:
    return Shape(media.single, media.strip_nulls, csv=media.csv)


def _useless(incoming: Incoming, table: Table) -> tuple[str, ...]:
    """Preferences that mean nothing for this write."""
    method = incoming.method
    if method == "POST":
        conflicts = bool(table.primary_key) or incoming.query.on_conflict is not None
        return ("max-affected",) if conflicts else ("max-affected", "resolution")
    if method == "PATCH":
        return ("resolution",)
    return ("resolution", "missing") if method == "DELETE" else ("resolution", "missing", "max-affected")


def _profile(incoming: Incoming) -> dict[str, str]:
    return {"Content-Profile": incoming.profile} if incoming.profile else {}


def _write_status(method: str, preferences: Preferences, result: Result) -> int:
    if method == "POST":
        # A merge that only changed rows that were there has created nothing.
        merged = preferences.resolution == "merge-duplicates" and result.extra == "0"
        return 200 if merged else 201
    if method == "PUT" and preferences.returns == "representation":
        return 201 if int(result.extra or 0) > 0 else 200
    return 200 if preferences.returns == "representation" else 204


def _check_put(row: Row) -> None:
    if Result.of(row).rows != 1:
        raise put_mismatch()


def _row_check(single: bool, limit: int | None) -> Callable[[Row], None]:
    def check(row: Row) -> None:
        rows = Result.of(row).rows
        if single and rows != 1:
            raise not_single(rows)
        if limit is not None and rows > limit:
            raise too_many_affected(rows)

    return check
