"""The embedded Supabase as a whole: PostgreSQL, migrations and the gateway, started and stopped together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from reactive_worker.errors import ReactiveWorkerError
from reactive_worker.local.faults import Faults
from reactive_worker.local.gateway import Gateway
from reactive_worker.local.keys import Keys
from reactive_worker.local.migrations import migrate as apply_migrations
from reactive_worker.local.postgres import Cluster
from reactive_worker.local.project import find_project
from reactive_worker.local.realtime import Pacing

#: Seconds between two looks whether PostgreSQL and the gateway still run.
WATCH_INTERVAL = 0.5


class LocalSupabase:
    """A Supabase on this machine, without Docker: the same keys, ports and roles as `supabase start`.

    Loopback only, with keys everybody knows: for development and tests.

    Parameters
    ----------
    port:
        Of the API; 0 for any free one.
    db_port:
        Of PostgreSQL; 0 for any free one.
    data_dir:
        Where the data stays; None: it goes when this stops.
    pg_bin:
        Folder with another PostgreSQL (15 or newer) than the wheel's.
    pacing:
        ``fast``: Realtime delivers within 20 ms; ``hosted``: as slowly as a hosted project.
    project_dir:
        A project with a `supabase/` folder; None: the one that comes with reactive-worker.
    migrate:
        Whether to apply migrations that are new to this database.
    seed:
        Whether to run the seed, once in the life of a database.

    Attributes
    ----------
    applied:
        Migrations and seeds that were applied at this start.

    Example
    -------
    >>> async with LocalSupabase(port=0, db_port=0) as supabase:
    ...     client = await acreate_client(supabase.api_url, supabase.service_role_key)
    """

    def __init__(
        self,
        *,
        port: int = 54321,
        db_port: int = 54322,
        data_dir: str | os.PathLike[str] | None = None,
        pg_bin: str | os.PathLike[str] | None = None,
        pacing: Pacing = "fast",
        project_dir: str | os.PathLike[str] | None = None,
        migrate: bool = True,
        seed: bool = True,
    ) -> None:
        self.faults = Faults()
        self.keys = Keys.default()
        self.applied: list[str] = []
        self.cluster = Cluster(
            data_dir=Path(data_dir) if data_dir is not None else None,
            port=db_port,
            pg_bin=Path(pg_bin) if pg_bin is not None else None,
        )
        self._port = port
        self._pacing: Pacing = pacing
        self._project_dir = Path(project_dir) if project_dir is not None else None
        self._migrate = migrate
        self._seed = seed
        self._gateway: Gateway | None = None

    # -- addresses and keys ------------------------------------------------------------------------

    @property
    def api_url(self) -> str:
        """What goes into SUPABASE_URL; only while it runs."""
        return self._running_gateway().api_url

    @property
    def db_url(self) -> str:
        """Connection string of the role `postgres`; only while it runs."""
        return self._running_gateway().db_url

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
        """True while both PostgreSQL and the gateway run."""
        return self._gateway is not None and self._gateway.running and self.cluster.running

    def status(self) -> dict[str, str]:
        """URLs and keys, as `supabase status` tells them."""
        return self._running_gateway().status()

    def _running_gateway(self) -> Gateway:
        if self._gateway is None:
            raise RuntimeError("this LocalSupabase is not started: use it with `async with`")
        return self._gateway

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything; blocks until it answers.

        Raises
        ------
        ConfigurationError
            A port is taken, there is no PostgreSQL, the data directory is in use, a migration is refused ...
        """
        if self._gateway is not None:
            raise RuntimeError("this LocalSupabase has been started already")
        project = find_project(self._project_dir)
        # The port is taken first: that it is not free is found out before a database is made.
        gateway = Gateway(
            project=project, port=self._port, pacing=self._pacing, keys=self.keys, faults=self.faults
        )
        try:
            self.cluster.start()
            if self._migrate:
                self.applied = apply_migrations(self.cluster.dsn(), project, seed=self._seed)
            gateway.start(
                db_url=self.cluster.dsn(),
                authenticator_dsn=self.cluster.dsn(user="authenticator"),
                admin_dsn=self.cluster.admin_dsn(),
            )
        except BaseException:
            gateway.stop()
            self.cluster.stop()
            raise
        self._gateway = gateway

    def stop(self) -> None:
        """Stop everything. Repeatable."""
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            gateway.stop()
        self.cluster.stop()

    def __enter__(self) -> LocalSupabase:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> LocalSupabase:
        starting = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            # A thread cannot be cancelled: what it has started by then must not stay behind.
            with contextlib.suppress(ReactiveWorkerError):
                await starting
            await asyncio.to_thread(self.stop)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(self.stop)))


async def run_dev(
    *,
    port: int = 54321,
    db_port: int = 54322,
    data_dir: str | os.PathLike[str] | None = ".reactive-worker",
    pg_bin: str | os.PathLike[str] | None = None,
    pacing: Pacing = "fast",
    project_dir: str | os.PathLike[str] | None = None,
    json_output: bool = False,
    emit: Callable[[str], None] | None = None,
) -> int:
    """Run a Supabase until SIGINT, SIGTERM or cancellation: what `reactive-worker dev` does.

    Parameters
    ----------
    port, db_port, data_dir, pg_bin, pacing, project_dir:
        As for `LocalSupabase`.
    json_output:
        Print URL and keys as one line of JSON, and nothing else.
    emit:
        Prints a line; None: to standard output, at once.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    ReactiveWorkerError
        It cannot be started, or PostgreSQL ended by itself.
    """
    say = emit or _print
    stopped = asyncio.Event()
    supabase = LocalSupabase(
        port=port, db_port=db_port, data_dir=data_dir, pg_bin=pg_bin, pacing=pacing, project_dir=project_dir
    )
    with _stop_on_signals(stopped):
        async with supabase:
            if json_output:
                say(json.dumps(supabase.status()))
            else:
                for line in _describe(supabase, data_dir):
                    say(line)
            while not stopped.is_set():
                if not supabase.running:
                    raise ReactiveWorkerError(
                        "PostgreSQL or the gateway has ended by itself: see postgres.log"
                    )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), WATCH_INTERVAL)
            if not json_output:
                say("Stopping.")
    return 0


def _describe(supabase: LocalSupabase, data_dir: str | os.PathLike[str] | None) -> list[str]:
    status = supabase.status()
    width = max(len(name) for name in status)
    titles = {
        name: name.replace("_", " ").replace("api url", "API URL").replace("db url", "DB URL")
        for name in status
    }
    lines = [f"Applied {name}" for name in supabase.applied]
    lines.append("The local Supabase is running (for development only: everybody knows these keys).")
    lines.append("")
    lines += [f"{titles[name]:>{width}}: {value}" for name, value in status.items()]
    where = os.fspath(data_dir) if data_dir is not None else "nowhere: it goes at the end"
    lines += ["", f"Data is kept in {where}. Ctrl-C stops it."]
    return lines


def _print(line: str) -> None:
    print(line, flush=True)


@contextlib.contextmanager
def _stop_on_signals(stopped: asyncio.Event):
    """SIGINT and SIGTERM end it in order; only the main thread can take signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for each in signals:
        loop.add_signal_handler(each, stopped.set)
    try:
        yield
    finally:
        for each in signals:
            loop.remove_signal_handler(each)
