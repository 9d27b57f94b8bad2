"""A Supabase whose parts go away and come back, one by one, as in an outage."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from reactive_worker.local.datadir import process_alive
from reactive_worker.local.faults import Faults
from reactive_worker.local.gateway import Gateway
from reactive_worker.local.keys import Keys
from reactive_worker.local.migrations import migrate
from reactive_worker.local.postgres import Cluster
from reactive_worker.local.project import find_project

#: Seconds PostgreSQL may take to end after SIGQUIT.
CRASH_TIMEOUT = 30.0


class FragileSupabase:
    """The embedded Supabase with real outages: refused connections, a crashed PostgreSQL.

    Blocking; where a loop runs, call it from a thread. URL, ports and keys stay the same all the time.

    Parameters
    ----------
    data_dir:
        Where the data stays, durably: what was committed is there after a crash.

    Example
    -------
    >>> with FragileSupabase(tmp_path / "data") as supabase:  # doctest: +SKIP
    ...     supabase.crash_database()
    ...     supabase.start_database()
    """

    def __init__(self, data_dir: Path) -> None:
        self.keys = Keys.default()
        #: The switches of the gateway; they survive its restarts.
        self.faults = Faults()
        self._data_dir = data_dir
        self._project = find_project()
        self._cluster: Cluster | None = None
        self._db_port = 0
        self._gateway: Gateway | None = None
        self._port = 0

    def __enter__(self) -> FragileSupabase:
        try:
            self.start_database()
            migrate(self.database.dsn(), self._project, seed=False)
            self.start_api()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def database(self) -> Cluster:
        """The PostgreSQL server; raises while it is away."""
        if self._cluster is None:
            raise RuntimeError("the database is not running")
        return self._cluster

    @property
    def api_url(self) -> str:
        """What goes into SUPABASE_URL, whether or not somebody answers there now."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def service_role_key(self) -> str:
        """Legacy JWT of the role service_role."""
        return self.keys.service_role_key

    @property
    def db_url(self) -> str:
        """Connection string of the role `postgres`."""
        return self.database.dsn()

    def start_database(self) -> None:
        """Start PostgreSQL, at the same port as before."""
        cluster = Cluster(data_dir=self._data_dir, port=self._db_port)
        cluster.start()
        self._cluster, self._db_port = cluster, cluster.port

    def crash_database(self) -> None:
        """End PostgreSQL in immediate mode: every session is cut, nothing is written down."""
        cluster, self._cluster = self.database, None
        pid = cluster.pid
        try:
            if pid is not None:
                os.kill(pid, signal.SIGQUIT)
                deadline = time.monotonic() + CRASH_TIMEOUT
                while process_alive(pid) and time.monotonic() < deadline:
                    time.sleep(0.01)
        finally:
            cluster.stop()

    def start_api(self) -> None:
        """Start the gateway, at the same port as before."""
        gateway = Gateway(project=self._project, port=self._port, keys=self.keys, faults=self.faults)
        try:
            gateway.start(
                db_url=self.database.dsn(),
                authenticator_dsn=self.database.dsn(user="authenticator"),
                admin_dsn=self.database.admin_dsn(),
            )
        except BaseException:
            gateway.stop()
            raise
        self._gateway, self._port = gateway, int(gateway.api_url.rsplit(":", 1)[1])

    def stop_api(self) -> None:
        """Stop the gateway: from now on connections are refused."""
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            gateway.stop()

    def stop(self) -> None:
        """Stop everything. Repeatable."""
        self.stop_api()
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.stop()
