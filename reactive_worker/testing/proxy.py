"""A TCP proxy that misbehaves on purpose: it cuts connections, refuses them, or swallows what is said."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Literal

Mode = Literal["pass", "cut", "swallow", "mute", "refuse"]

_REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
#: Turns of the event loop a connection needs from the listening socket to its handler.
_ACCEPT_TURNS = 5


class FaultyProxy:
    """Forwards a loopback port to another one, for protocols in which the client speaks first.

    ============  ======================================================================================
    ``pass``      forwards
    ``cut``       resets every connection, every new one at once
    ``swallow``   accepts, reads and answers nothing: the worst kind, for both sides think the other slow
    ``mute``      forwards what a client says first (a handshake), and nothing that it says afterwards
    ``refuse``    answers 503 to what a client says first
    ============  ======================================================================================

    Parameters
    ----------
    host, port:
        Where to forward to.
    only:
        Misbehave towards connections whose first line contains this (``/realtime/``); forward all others.

    Example
    -------
    >>> async with FaultyProxy("127.0.0.1", 54321) as proxy:  # doctest: +SKIP
    ...     proxy.mode = "swallow"
    """

    def __init__(self, host: str, port: int, *, only: str = "") -> None:
        self._target = (host, port)
        self._only = only.encode()
        self._server: asyncio.Server | None = None
        # Every open end, and whether the client's side of a connection that is to be mistreated.
        self._ends: dict[asyncio.StreamWriter, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._mode: Mode = "pass"
        #: Connections of the kind to be mistreated that were opened so far.
        self.connections = 0

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

    @property
    def mode(self) -> Mode:
        """What it does with connections now."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        if mode in ("cut", "refuse"):
            for end, chosen in list(self._ends.items()):
                if chosen:
                    end.transport.abort()

    def inject(self, data: bytes) -> None:
        """Say something to every client that the server never said."""
        for end, chosen in list(self._ends.items()):
            if chosen:
                end.write(data)

    async def __aenter__(self) -> FaultyProxy:
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
        self._ends[writer] = False
        try:
            with suppress(OSError):
                first = await reader.read(65536)
                chosen = self._only in first.split(b"\r\n", 1)[0]
                self.connections += chosen
                self._ends[writer] = chosen
                await self._serve(first, chosen, reader, writer)
        finally:
            del self._ends[writer]
            writer.transport.abort() if self._mode == "cut" else writer.close()

    async def _serve(
        self, first: bytes, chosen: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        mode = self._mode if chosen else "pass"
        if not first or mode == "cut":
            return
        if mode == "refuse":
            writer.write(_REFUSAL)
            await writer.drain()
            return
        if mode == "swallow":
            while await reader.read(65536):
                pass
            return
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._ends[far_writer] = False
        try:
            far_writer.write(first)
            up = self._pump(reader, far_writer, ("swallow", "mute") if chosen else ())
            down = self._pump(far_reader, writer, ("swallow",) if chosen else ())
            await asyncio.gather(up, down)
        finally:
            del self._ends[far_writer]
            far_writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, swallowing: tuple[Mode, ...]
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self._mode not in swallowing:
                    writer.write(data)
                    await writer.drain()
            writer.write_eof()
