"""A TCP proxy that misbehaves on purpose: it cuts connections, or swallows what goes through them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Literal

Mode = Literal["pass", "cut", "swallow"]


class FaultyProxy:
    """Forwards a loopback port to another one.

    ``pass`` forwards. ``cut`` resets every connection, every new one at once. ``swallow`` accepts, reads and
    answers nothing: the worst kind, for both sides think the other is slow.

    Parameters
    ----------
    host, port:
        Where to forward to.

    Example
    -------
    >>> async with FaultyProxy("127.0.0.1", 54321) as proxy:  # doctest: +SKIP
    ...     proxy.mode = "swallow"
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._mode: Mode = "pass"

    @property
    def port(self) -> int:
        """The port to connect to."""
        if self._server is None:
            raise RuntimeError("the proxy was not started")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def mode(self) -> Mode:
        """What it does with connections now."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        if mode == "cut":
            for writer in list(self._writers):
                writer.transport.abort()

    async def __aenter__(self) -> FaultyProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.mode = "cut"
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._mode == "cut":
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            with suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(*self._target)
                self._writers.add(far_writer)
                try:
                    await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
                finally:
                    self._writers.discard(far_writer)
                    far_writer.close()
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self._mode == "swallow":
                    continue
                writer.write(data)
                await writer.drain()
            writer.write_eof()
