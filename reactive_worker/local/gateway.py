"""The gateway: REST and Realtime for one database, in a thread with an event loop of its own.

Its own thread, because tests and programs that use it block their event loops, and a server that shares a
blocked loop answers nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import threading
from concurrent.futures import Future

import uvicorn

from reactive_worker.errors import ConfigurationError
from reactive_worker.local.app import AUTH_PREFIX, LocalApp
from reactive_worker.local.auth.app import AuthApp
from reactive_worker.local.faults import Faults
from reactive_worker.local.keys import Keys
from reactive_worker.local.launch import HOST
from reactive_worker.local.limits import PatientProtocol
from reactive_worker.local.postgres import port_taken_message
from reactive_worker.local.project import Project
from reactive_worker.local.realtime import Pacing, RealtimeServer
from reactive_worker.local.realtime.socket import LARGEST_FRAME
from reactive_worker.local.realtime.transport import RealtimeProtocol
from reactive_worker.local.rest.handler import RestApp
from reactive_worker.local.rest.listen import listen_for_changes
from reactive_worker.local.rest.session import SessionPool
from reactive_worker.local.storage.app import StorageApp

_log = logging.getLogger(__name__)

#: Seconds requests under way may take to finish when the gateway stops.
GRACE = 2


class Gateway:
    """A Supabase API in front of one database.

    Parameters
    ----------
    project:
        Exposed schemas, search path, max_rows.
    port:
        TCP port on loopback; 0 for any free one.
    pacing:
        How fast Realtime is: ``fast``, or ``hosted`` as on a hosted project.

    Attributes
    ----------
    faults:
        The fault switches.
    """

    def __init__(
        self,
        *,
        project: Project,
        port: int = 0,
        pacing: Pacing = "fast",
        keys: Keys | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.keys = keys or Keys.default()
        self.faults = faults or Faults()
        #: Connection string of the role `postgres`; empty until `start`.
        self.db_url = ""
        self._project = project
        self._pacing: Pacing = pacing
        self._socket = bind(port)
        self._port = int(self._socket.getsockname()[1])
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    @property
    def api_url(self) -> str:
        """What goes into SUPABASE_URL."""
        return f"http://{HOST}:{self._port}"

    @property
    def anon_key(self) -> str:
        """Legacy JWT of the role anon."""
        return self.keys.anon_key

    @property
    def service_role_key(self) -> str:
        """Legacy JWT of the role service_role."""
        return self.keys.service_role_key

    @property
    def publishable_key(self) -> str:
        """``sb_publishable_...``: the role anon."""
        return self.keys.publishable_key

    @property
    def secret_key(self) -> str:
        """``sb_secret_...``: the role service_role."""
        return self.keys.secret_key

    @property
    def jwt_secret(self) -> str:
        """What users' tokens are signed with."""
        return self.keys.jwt_secret

    @property
    def running(self) -> bool:
        """True between `start` and `stop`, unless the thread has ended by itself."""
        return self._thread is not None and self._thread.is_alive()

    def status(self) -> dict[str, str]:
        """URLs and keys, as `supabase status` tells them."""
        return {
            "api_url": self.api_url,
            "db_url": self.db_url,
            "anon_key": self.anon_key,
            "service_role_key": self.service_role_key,
            "publishable_key": self.publishable_key,
            "secret_key": self.secret_key,
            "jwt_secret": self.jwt_secret,
        }

    def start(self, *, db_url: str, authenticator_dsn: str, admin_dsn: str) -> None:
        """Start serving; returns when requests are answered.

        Parameters
        ----------
        db_url:
            Connection string of the role `postgres`, for whoever uses this Supabase.
        authenticator_dsn:
            Connection string of the role `authenticator`, for REST.
        admin_dsn:
            Connection string of the superuser, for Realtime's replication slot and for users.
        """
        self.db_url = db_url
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run,
            args=(ready, authenticator_dsn, admin_dsn),
            name="reactive-worker gateway",
            daemon=True,
        )
        self._thread.start()
        ready.result()

    def stop(self) -> None:
        """Stop serving: sockets are closed, requests under way get a moment. Repeatable."""
        thread, self._thread = self._thread, None
        if thread is not None:
            if self._loop is not None and self._stopping is not None:
                # The loop may have ended by itself.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._stopping.set)
            thread.join()
        self._socket.close()

    def _run(self, ready: Future[None], authenticator_dsn: str, admin_dsn: str) -> None:
        try:
            asyncio.run(self._serve(ready, authenticator_dsn, admin_dsn))
        except BaseException as error:  # noqa: BLE001 - it reaches whoever waits, or the log
            if not ready.done():
                ready.set_exception(error)
                return
            _log.exception("the gateway on port %d has ended", self._port)

    async def _serve(self, ready: Future[None], authenticator_dsn: str, admin_dsn: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        pool = SessionPool(authenticator_dsn)
        rest = RestApp(pool, self.keys, self._project, self.faults)
        storage = StorageApp(pool, self.keys, self.faults, self._project.file_size_limit)
        # Users belong to a role that the one of REST may not become.
        accounts = SessionPool(admin_dsn, size=4)
        auth = AuthApp(accounts, self.keys, self._project.auth, f"{self.api_url}{AUTH_PREFIX}")
        realtime = RealtimeServer(admin_dsn, keys=self.keys, faults=self.faults, pacing=self._pacing)
        await realtime.start()
        server = _Server(
            uvicorn.Config(
                LocalApp(rest, storage, auth, realtime.routes(), self.keys, self.faults),
                # Named, so that limits do not depend on what else is installed.
                http=PatientProtocol,
                ws=RealtimeProtocol,
                # Compressed frames are cut off at the limit, unnoticed: the socket must see one byte more.
                ws_max_size=LARGEST_FRAME + 1,
                ws_ping_interval=None,
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE,
            ),
            ready,
        )
        listener = asyncio.create_task(listen_for_changes(authenticator_dsn, rest.catalog.forget))
        serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            rest.close()
            listener.cancel()
            stopping.cancel()
            # First the sockets, with the close code of a server that restarts; then the door.
            await realtime.stop()
            server.leave()
            await serving
            await asyncio.gather(listener, stopping, return_exceptions=True)
            pool.close()
            accounts.close()


class _Server(uvicorn.Server):
    """Tells when it serves."""

    def __init__(self, config: uvicorn.Config, ready: Future[None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._leave = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready.set_result(None)

    async def main_loop(self) -> None:
        # uvicorn's own looks every 0.1 s whether to stop; on_tick renews the Date header.
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 10
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leave.wait(), 1.0)

    def leave(self) -> None:
        """Stop serving now."""
        self.should_exit = True
        self._leave.set()


def bind(port: int) -> socket.socket:
    """Take a port on loopback.

    Raises
    ------
    ConfigurationError
        It is taken, or cannot be used.
    """
    # The protocol is named, as asyncio switches Nagle's delay off only for sockets that say they are TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        # From here on nobody else can take it, also before the server accepts.
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(port_taken_message(port, "the API", "--port")) from error
        raise ConfigurationError(f"port {port} cannot be used: {error.strerror}") from error
    except OverflowError as error:
        listener.close()
        raise ConfigurationError(f"{port} is no port: 0 to 65535 are") from error
    return listener
