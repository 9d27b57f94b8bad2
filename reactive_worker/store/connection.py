"""One door to PostgREST: wraps the user's supabase client, async or sync, and speaks our errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import httpx
from postgrest.exceptions import APIError
from supabase import AsyncClient, AsyncClientOptions, AuthError, Client

from reactive_worker.access.credentials import Credentials
from reactive_worker.access.project import check_url
from reactive_worker.access.redaction import redact
from reactive_worker.errors import DataRefusedError, EventLoopError, TokenExpiredError
from reactive_worker.store._answers import KeptAnswer
from reactive_worker.store.translate import translate, unreadable

logger = logging.getLogger(__name__)

#: Seconds for one request. A claim or finish takes milliseconds; a batch of 200 large events a second or two.
REQUEST_TIMEOUT = 30.0

Filter = tuple[str, str, str]
"""``(column, PostgREST operator, value)``, for example ``("seq", "gt", "5")``."""


class Connection:
    """Calls functions and reads tables through a supabase client.

    Parameters
    ----------
    client:
        The user's own client: `supabase.AsyncClient`, or the sync `supabase.Client`, whose calls then run in
        a thread of ours so that they never block the event loop.

    Example
    -------
    >>> connection = await Connection.open("http://127.0.0.1:54321", service_role_key)  # doctest: +SKIP
    >>> await connection.rpc("todo_stats", {})  # doctest: +SKIP
    """

    def __init__(self, client: AsyncClient | Client) -> None:
        self._client: Any = client
        self._owned = False
        self._is_async = isinstance(client, AsyncClient)
        # A pool of our own: asyncio's default one may be full of users' blocking executors.
        self._threads = None if self._is_async else ThreadPoolExecutor(4, thread_name_prefix="supabase-sync")
        #: What requests and Realtime identify themselves with now: a user's client has the session's token.
        self.credentials = Credentials(str(self._client.supabase_key), self._token_of_client)

    @classmethod
    async def open(cls, url: str, key: str | Credentials) -> Connection:
        """Build an async client of our own for `url` and `key`.

        Raises
        ------
        ConfigurationError
            The URL is malformed.
        """
        http = httpx.AsyncClient(
            timeout=REQUEST_TIMEOUT,
            limits=httpx.Limits(max_connections=20, max_keepalive_connections=20, keepalive_expiry=30),
            follow_redirects=True,
            event_hooks={"request": [_StayAt(url)]},
        )
        credentials = Credentials.of(key)
        options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        connection = cls(AsyncClient(check_url(url), credentials.apikey, options))
        connection.credentials = credentials
        connection._owned = True
        connection._http = http
        return connection

    _http: httpx.AsyncClient | None = None

    @property
    def is_async(self) -> bool:
        """False when the user's client is the synchronous one (it has no Realtime)."""
        return self._is_async

    @property
    def url(self) -> str:
        """The project URL without a trailing slash."""
        return str(self._client.supabase_url).rstrip("/")

    async def rpc(
        self, name: str, params: Mapping[str, Any], *, answers: type = dict, needs: Collection[str] = ()
    ) -> Any:
        """Call the SQL function `name` and return its JSON result.

        Parameters
        ----------
        name, params:
            The function and its arguments.
        answers:
            What its JSON is: `dict`, `list`, `int` ...
        needs:
            Names that an object must have.

        Raises
        ------
        UnreadableAnswerError
            A good status, and anything else than that JSON: it does not come from the function.
        ReactiveWorkerError
            Another subclass that says what happened: see `store.translate`.
        """
        what = f"rpc {name}"
        data = await self._execute(lambda: self._client.rpc(name, dict(params)), what)
        # To Python true is a number.
        fits = isinstance(data, answers) and not (isinstance(data, bool) and answers is int)
        if not fits or any(key not in cast("Mapping[str, Any]", data) for key in needs):
            raise unreadable(self.url, what)
        return data

    async def select(
        self,
        table: str,
        columns: str = "*",
        *,
        filters: Sequence[Filter] = (),
        order: Sequence[tuple[str, bool]] = (),
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[dict[str, Any]]:
        """Read rows of `table`; `order` holds ``(column, descending)``. Raises as `rpc` does."""

        def build() -> Any:
            query = self._client.table(table).select(columns)
            if self._owned:
                # postgrest would retry for 7 s in silence; who waits out outages here says so and goes on.
                query = query.retry(False)
            for column, operator, value in filters:
                query = query.filter(column, operator, value)
            for column, descending in order:
                query = query.order(column, desc=descending)
            if limit is not None:
                query = query.limit(limit)
            if offset is not None:
                query = query.offset(offset)
            return query

        what = f"select from {table}"
        data = await self._execute(build, what)
        if not isinstance(data, list) or not all(isinstance(row, dict) for row in cast("list[Any]", data)):
            raise unreadable(self.url, what)
        return cast("list[dict[str, Any]]", data)

    async def storage(self, call: Callable[[Any], Any]) -> Any:
        """Ask the storage server; `call` gets the client's `storage`. Raises what storage3 raises."""
        self._authorize()
        if self._threads is None:
            return await call(self._client.storage)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: call(self._client.storage))

    async def aclose(self) -> None:
        """Close what this connection built; a client the user passed stays open."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)
        if self._owned and self._http is not None:
            await self._http.aclose()

    def _authorize(self) -> None:
        """Give our own client the token that is valid now; a user's client looks after its own."""
        if not self._owned:
            return
        header = f"Bearer {self.credentials.token()}"
        headers = self._client.options.headers
        if headers.get("Authorization") != header:
            headers["Authorization"] = header
            # Made with the old one; made anew when they are asked for, over the same connections.
            self._client._postgrest = self._client._storage = None

    def _token_of_client(self) -> str:
        # Where the client itself keeps it: sign-in, refresh, sign-out and `client.postgrest.auth(token)` all
        # write there.
        header = str(self._client.postgrest.headers.get("Authorization", ""))
        return header.removeprefix("Bearer ") or str(self._client.supabase_key)

    async def _execute(self, build: Callable[[], Any], what: str) -> Any:
        try:
            return await self._send(build, what)
        except TokenExpiredError:
            # The timer of a client that slept through its session's end is late. supabase-js looks before
            # each request; supabase-py does not, so it is told to look now.
            if not await self._refresh():
                raise
        return await self._send(build, what)

    async def _send(self, build: Callable[[], Any], what: str) -> Any:
        kept: KeptAnswer | None = None
        try:
            self._authorize()
            query = build()
            kept = KeptAnswer(query, is_async=self._is_async)
            if self._threads is None:
                answer = await query.execute()
            else:
                loop = asyncio.get_running_loop()
                answer = await loop.run_in_executor(self._threads, query.execute)
        except (APIError, httpx.HTTPError, OSError) as error:
            if isinstance(error, APIError) and not error.code and kept is not None:
                # The JSON of a gateway, without a code of PostgREST's.
                error.code = kept.status
            told = translate(error, what=what, url=self.url, credentials=self.credentials)
            # A cause that quotes a key (an illegal header, an odd URL) stays behind.
            raise told from (error if redact(str(error)) == str(error) else None)
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            if kept is None or not kept.came:
                raise DataRefusedError(
                    f"{what} cannot be sent: what it is given is no JSON ({type(error).__name__}: "
                    f"{redact(str(error))})"
                ) from error
            # A thousand levels, or a number of 4,300 digits: json gives up, and postgrest with it.
            return self._reread(kept, what)
        except RuntimeError as error:
            # What asyncio and anyio say when a client comes from a loop that has ended, or lives in a thread.
            if "event loop" not in str(error).lower() and "different loop" not in str(error):
                raise
            raise EventLoopError(
                f"this supabase client was used in another event loop before ({what}: {error}): make one in "
                "each loop, pass the synchronous client, or use TaskClient.from_settings()"
            ) from error
        if isinstance(answer.data, str) or kept.is_empty:
            # What json refuses for the sake of one value comes back as text: read what can be read of it.
            return self._reread(kept, what)
        return answer.data

    def _reread(self, kept: KeptAnswer, what: str) -> Any:
        try:
            return kept.read()
        except ValueError as error:
            raise unreadable(self.url, what) from error

    async def _refresh(self) -> bool:
        """Let a user's client renew its session; True when it has another token now."""
        if self._owned:
            return False
        before = self._token_of_client()
        try:
            if self._threads is None:
                await self._client.auth.get_session()
            else:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._threads, self._client.auth.get_session)
        except (AuthError, httpx.HTTPError, OSError) as error:
            logger.warning("the session has expired and cannot be renewed: %s", redact(str(error)))
        return self._token_of_client() != before


class _StayAt:
    """Refuses to be redirected to another origin: it would be given the keys, and what is stored."""

    def __init__(self, url: str) -> None:
        self._origin = _origin(httpx.URL(url))

    async def __call__(self, request: httpx.Request) -> None:
        origin = _origin(request.url)
        upgraded = ("https", self._origin[1], 443)
        if origin != self._origin and not (self._origin[0] == "http" and origin == upgraded):
            raise httpx.RequestError(
                f"it redirects to {origin[0]}://{origin[1]}:{origin[2]}, which is not given the keys of this "
                "project: set SUPABASE_URL to where the project is",
                request=request,
            )


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
