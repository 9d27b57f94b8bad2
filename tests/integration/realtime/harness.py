"""A Realtime server of a test's own, and a client that speaks its frames literally."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from reactive_worker.local.faults import Faults
from reactive_worker.local.keys import Keys
from reactive_worker.local.realtime import Pacing, RealtimeServer, Timings
from reactive_worker.local.realtime.transport import RealtimeProtocol

#: How long a test waits for what must come, in seconds.
PATIENCE = 10.0
#: Reference of the heartbeats that only wait for the server.
BARRIER = "barrier"

Frame = dict[str, Any]


class Gateway:
    """The Realtime server alone behind uvicorn, in a thread with a loop of its own."""

    def __init__(self, dsn: str, *, pacing: Pacing = "fast", timings: Timings | None = None) -> None:
        self.keys = Keys.default()
        self.faults = Faults()
        self.port = 0
        self._dsn, self._pacing, self._timings = dsn, pacing, timings
        self._started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="realtime-test-server"
        )
        self._uvicorn: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.server: RealtimeServer | None = None
        self._clients: list[Client] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop the server runs in."""
        assert self._loop is not None
        return self._loop

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.server = server = RealtimeServer(
            self._dsn, keys=self.keys, faults=self.faults, pacing=self._pacing, timings=self._timings
        )
        await server.start()
        config = uvicorn.Config(
            Starlette(routes=server.routes()),
            host="127.0.0.1",
            port=0,
            log_level="warning",
            lifespan="off",
            ws=RealtimeProtocol,
            ws_ping_interval=None,
            ws_per_message_deflate=False,
        )
        self._uvicorn = uvicorn.Server(config)
        serving = asyncio.create_task(self._uvicorn.serve())
        while not self._uvicorn.started and not serving.done():
            await asyncio.sleep(0.001)
        if serving.done():
            serving.result()
        self.port = self._uvicorn.servers[0].sockets[0].getsockname()[1]
        self._started.set()
        await serving
        await server.stop()

    def start(self) -> Gateway:
        self._thread.start()
        assert self._started.wait(PATIENCE), "the server did not start"
        return self

    def stop(self) -> None:
        """Stop it; repeatable."""
        assert self._uvicorn is not None
        self._uvicorn.should_exit = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server did not stop"

    def url(self, key: str | None, version: str | None = "1.0.0") -> str:
        query = [f"apikey={key}"] if key is not None else []
        query += [f"vsn={version}"] if version is not None else []
        return f"ws://127.0.0.1:{self.port}/realtime/v1/websocket?{'&'.join(query)}"

    async def client(self, key: str | None = None, version: str = "1.0.0", **options: Any) -> Client:
        url = self.url(self.keys.service_role_key if key is None else key, version)
        client = Client(await connect(url, max_size=None, **options), version)
        self._clients.append(client)
        return client

    async def disconnect(self) -> None:
        """Close every client's connection."""
        for client in self._clients:
            await client.close()


def normal(version: str, message: str | bytes) -> Frame:
    """A frame as an object, whatever the version; binary ones as their hexadecimal text."""
    if isinstance(message, bytes):
        return {"binary_hex": message.hex()}
    frame: Any = json.loads(message)
    if version == "1.0.0":
        return frame
    join_ref, ref, topic, event, payload = frame
    return {"join_ref": join_ref, "ref": ref, "topic": topic, "event": event, "payload": payload}


class Client:
    """Sends frames and collects what comes, without any logic of its own."""

    def __init__(self, connection: ClientConnection, version: str) -> None:
        self.connection = connection
        self.version = version
        self.frames: list[Frame] = []
        self.close_code: int | None = None
        self._news = asyncio.Condition()
        self._passed = asyncio.Event()
        self._taken = 0
        self._ref = 0
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for message in self.connection:
                frame = normal(self.version, message)
                if frame.get("ref") == BARRIER:
                    self._passed.set()
                    continue
                self.frames.append(frame)
                async with self._news:
                    self._news.notify_all()
        except ConnectionClosed:
            pass
        self.close_code = self.connection.close_code
        async with self._news:
            self._news.notify_all()

    async def send(
        self, topic: str, event: str, payload: Any, *, ref: str | None = None, join_ref: str | None = None
    ) -> str:
        if ref is None:
            self._ref += 1
            ref = str(self._ref)
        frame: Any = {"topic": topic, "event": event, "payload": payload, "ref": ref, "join_ref": join_ref}
        if self.version == "2.0.0":
            frame = [join_ref, ref, topic, event, payload]
        await self.connection.send(json.dumps(frame))
        return ref

    async def join(self, topic: str, *bindings: Frame, token: str | None = None, **config: Any) -> Frame:
        """Join and return the reply."""
        payload: Frame = {"config": {"postgres_changes": list(bindings), **config}}
        if token is not None:
            payload["access_token"] = token
        self._ref += 1
        ref = str(self._ref)
        await self.send(topic, "phx_join", payload, ref=ref, join_ref=ref)
        return await self.next(lambda frame: frame.get("event") == "phx_reply" and frame.get("ref") == ref)

    async def listen(self, topic: str, *bindings: Frame, token: str | None = None, **config: Any) -> Frame:
        """Join and wait for the subscription's system message, which is returned."""
        await self.join(topic, *bindings, token=token, **config)
        return await self.next(lambda frame: frame["event"] == "system" and frame["topic"] == topic)

    async def next(
        self, wanted: Callable[[Frame], bool] = lambda frame: True, timeout: float = PATIENCE
    ) -> Frame:
        """The next frame not yet taken that fits; those before it are passed over."""
        async with asyncio.timeout(timeout), self._news:
            while True:
                while self._taken < len(self.frames):
                    frame = self.frames[self._taken]
                    self._taken += 1
                    if wanted(frame):
                        return frame
                assert self.close_code is None, f"closed with {self.close_code}; got {self.frames}"
                await self._news.wait()

    async def change(self, timeout: float = PATIENCE) -> Frame:
        """The payload of the next change."""
        frame = await self.next(lambda frame: frame["event"] == "postgres_changes", timeout)
        return frame["payload"]

    async def heard(self, count: int, timeout: float = PATIENCE) -> None:
        """Wait until so many frames have come."""
        async with asyncio.timeout(timeout), self._news:
            await self._news.wait_for(lambda: len(self.frames) >= count)

    async def heartbeat(self) -> Frame:
        """Send one and wait for its answer: all frames sent to the client before have then arrived."""
        ref = await self.send("phoenix", "heartbeat", {})
        return await self.next(lambda frame: frame["topic"] == "phoenix" and frame["ref"] == ref)

    async def barrier(self) -> None:
        """Wait until the server has dealt with all that was sent so far; leaves no trace in `frames`."""
        self._passed.clear()
        await self.send("phoenix", "heartbeat", {}, ref=BARRIER)
        async with asyncio.timeout(PATIENCE):
            await self._passed.wait()

    async def closed(self, timeout: float = PATIENCE) -> int | None:
        """Wait for the end of the connection; its close code."""
        async with asyncio.timeout(timeout):
            await self._reader
        return self.close_code

    async def close(self) -> None:
        await self.connection.close()
        await self._reader
