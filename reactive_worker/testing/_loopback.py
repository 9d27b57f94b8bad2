"""A server on a free loopback port that ends with all it has open: what the proxies for tests share."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

#: Turns of the event loop a connection needs from the listening socket to its handler.
_ACCEPT_TURNS = 5

Self_ = TypeVar("Self_", bound="LoopbackProxy")


class LoopbackProxy(ABC):
    """Stands in front of a loopback port; an async context manager.

    Parameters
    ----------
    host, port:
        Where to forward to.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        # Every open end.
        self._ends: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port to connect to."""
        if self._server is None:
            raise RuntimeError("the proxy was not started")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The HTTP URL to connect to."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self: Self_) -> Self_:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        # A connection that was just accepted has no handler yet that could close it.
        for _ in range(_ACCEPT_TURNS):
            await asyncio.sleep(0)
        for end in list(self._ends):
            end.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._ends.add(writer)
        try:
            await self._serve(reader, writer)
        finally:
            self._ends.discard(writer)
            self._close(writer)

    def _close(self, writer: asyncio.StreamWriter) -> None:
        writer.close()

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
