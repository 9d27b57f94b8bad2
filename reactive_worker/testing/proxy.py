"""A TCP proxy that misbehaves on purpose: it cuts connections, refuses them, or swallows what is said."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Literal

from reactive_worker.testing._loopback import LoopbackProxy

Mode = Literal["pass", "cut", "swallow", "mute", "refuse"]

_REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FaultyProxy(LoopbackProxy):
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
        super().__init__(host, port)
        self._only = only.encode()
        # Of the open ends, the clients' side of connections that are to be mistreated.
        self._chosen: set[asyncio.StreamWriter] = set()
        self._mode: Mode = "pass"
        #: Connections of the kind to be mistreated that were opened so far.
        self.connections = 0

    @property
    def mode(self) -> Mode:
        """What it does with connections now."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        if mode in ("cut", "refuse"):
            for end in list(self._chosen):
                end.transport.abort()

    def inject(self, data: bytes) -> None:
        """Say something to every client that the server never said."""
        for end in list(self._chosen):
            end.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            first = await reader.read(65536)
            chosen = self._only in first.split(b"\r\n", 1)[0]
            self.connections += chosen
            if chosen:
                self._chosen.add(writer)
            try:
                await self._forward(first, chosen, reader, writer)
            finally:
                self._chosen.discard(writer)

    def _close(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort() if self._mode == "cut" else writer.close()

    async def _forward(
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
        self._ends.add(far_writer)
        try:
            far_writer.write(first)
            up = self._pump(reader, far_writer, ("swallow", "mute") if chosen else ())
            down = self._pump(far_reader, writer, ("swallow",) if chosen else ())
            await asyncio.gather(up, down)
        finally:
            self._ends.discard(far_writer)
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
