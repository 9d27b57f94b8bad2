"""HTTP to agents that are not ours: which hosts may be asked, and how much they may answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import cast
from urllib.parse import urlsplit

import httpx

from reactive_worker.errors import ConfigurationError, PermanentFailure

#: Bytes of one answer, or of one event of a stream: the artifacts of a task fit in, a flood does not.
ANSWER_LIMIT = 48 * 1024 * 1024

_PORTS = {"http": 80, "https": 443}


class AllowedHosts:
    """Where requests may go; everything else an agent card names is refused.

    Parameters
    ----------
    url:
        The agent's own URL: its host and port are allowed, and its scheme is the least that is.
    more:
        Further hosts: ``name`` (any port) or ``name:port``.

    Raises
    ------
    ConfigurationError
        `url` is no http(s) URL, or an entry of `more` is no host.
    """

    def __init__(self, url: str, more: Iterable[str] = ()) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
        except ValueError as error:
            raise ConfigurationError(f"the agent's url is malformed: {error}") from None
        if not host or port is None:
            raise ConfigurationError("the agent's url must begin with http:// or https:// and name a host")
        if parts.username is not None or parts.password is not None:
            raise ConfigurationError("the agent's url must not hold a password: give `headers` instead")
        self._tls = parts.scheme == "https"
        self._allowed: set[tuple[str, int | None]] = {(host, port)}
        for entry in more:
            try:
                given = urlsplit(f"//{entry}")
                if not given.hostname or given.path or given.username is not None:
                    raise ValueError
                self._allowed.add((given.hostname, given.port))
            except ValueError:
                raise ConfigurationError(
                    f"allowed_hosts holds names like agent.example.com or a.example.com:8080, not {entry!r}"
                ) from None

    def check(self, url: httpx.URL) -> None:
        """Raise PermanentFailure unless a request may go there."""
        port = url.port or _PORTS.get(url.scheme)
        if (url.host, port) not in self._allowed and (url.host, None) not in self._allowed:
            raise PermanentFailure(
                f"the remote agent's card leads to {url.host}:{port}, which is not allowed: "
                "name it in allowed_hosts if you trust it"
            )
        if self._tls and url.scheme != "https":
            raise PermanentFailure(
                f"the remote agent's card leads to {url.scheme}://{url.host}, which is not encrypted"
            )


class GuardedTransport(httpx.AsyncBaseTransport):
    """A transport that asks allowed hosts only, and reads no more than a limit.

    It sits below everything else, so that neither a card nor a redirect leads around it.

    Parameters
    ----------
    allowed:
        Where requests may go.
    limit:
        Bytes of one answer, or of one event of an event stream.
    inner:
        What really sends; by default httpx's own.
    """

    def __init__(
        self,
        allowed: AllowedHosts,
        *,
        limit: int = ANSWER_LIMIT,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._allowed = allowed
        self._limit = limit
        self._inner = inner or httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, if it may go where it wants."""
        self._allowed.check(request.url)
        response = await self._inner.handle_async_request(request)
        streams = "text/event-stream" in response.headers.get("content-type", "")
        source = cast("httpx.AsyncByteStream", response.stream)
        response.stream = _Limited(source, self._limit, by_line=streams)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Limited(httpx.AsyncByteStream):
    def __init__(self, source: httpx.AsyncByteStream, limit: int, *, by_line: bool) -> None:
        self._source = source
        self._limit = limit
        self._by_line = by_line

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._source:
            end = chunk.rfind(b"\n") if self._by_line else -1
            # What is behind the last line break belongs to the next line.
            size = len(chunk) - end - 1 if end >= 0 else size + len(chunk)
            if size > self._limit:
                raise PermanentFailure(
                    f"the remote agent's answer is longer than {self._limit} bytes and was not read on"
                )
            yield chunk

    async def aclose(self) -> None:
        await self._source.aclose()
