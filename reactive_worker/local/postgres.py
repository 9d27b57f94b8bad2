"""One PostgreSQL server of our own: made, started and stopped without Docker, and never left behind.

Layout of a data directory::

    lock             held with flock by our process and its watchdog; names the owner
    admin-password   of the superuser supabase_admin, random: it could run programs as our user
    postgres/        PostgreSQL's own data directory
    postgres.log     what the server says
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

from reactive_worker.errors import ConfigurationError
from reactive_worker.local.binaries import Installation, SystemUser, find_installation, unprivileged_user
from reactive_worker.local.datadir import DataDirLock, stop_leftover_server
from reactive_worker.local.launch import ADMIN, HOST, ServerProcess, ServerStartError

#: Password of `postgres` and `authenticator`, as `supabase start` sets it.
PASSWORD = "postgres"  # noqa: S105 - a published development constant

#: Seconds to wait for a taken port: the server of a killed predecessor is being stopped by its watchdog.
PORT_PATIENCE = 3.0
#: Somebody else may take a free port between our finding and PostgreSQL's binding it.
PORT_TRIES = 5

#: What a fresh database gets: the scripts, by a relation that is there once they have run.
_BOOTSTRAP = {
    "auth.users": ("bootstrap.sql",),
    "realtime.messages": ("realtime.sql", "realtime_upkeep.sql"),
    "storage.objects": ("storage/schema.sql",),
    "auth.sessions": ("auth/schema.sql",),
}


class Cluster:
    """A PostgreSQL server with Supabase's roles, schemas and functions in its database `postgres`.

    Blocking; call it from a thread where a loop runs.

    Parameters
    ----------
    data_dir:
        Where the data stays; None for an ephemeral server, whose data goes when it stops, and which trades
        durability for speed.
    port:
        TCP port on loopback; 0 for any free one.
    pg_bin:
        Folder with PostgreSQL's programs; None to look for one.

    Example
    -------
    >>> with Cluster() as cluster:
    ...     psycopg.connect(cluster.dsn())
    """

    def __init__(self, *, data_dir: Path | None = None, port: int = 0, pg_bin: Path | None = None) -> None:
        #: TCP port; 0 until `start` found one.
        self.port = port
        #: The PostgreSQL in use, once started.
        self.installation: Installation | None = None
        self._any_port = port == 0
        self._data_dir = Path(os.path.abspath(data_dir)) if data_dir is not None else None
        self._pg_bin = pg_bin
        self._lock: DataDirLock | None = None
        self._server: ServerProcess | None = None
        self._admin_password = ""

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """Connection string of an ordinary user."""
        return f"postgresql://{user}:{PASSWORD}@{HOST}:{self.port}/{database}"

    def admin_dsn(self, database: str = "postgres") -> str:
        """Connection string of the superuser; its password is not a published one."""
        return f"postgresql://{ADMIN}:{self._admin_password}@{HOST}:{self.port}/{database}"

    @property
    def running(self) -> bool:
        """True between `start` and `stop`, unless the server has ended by itself."""
        return self._server is not None and self._server.running

    @property
    def pid(self) -> int | None:
        """Process id of the server, while it runs."""
        return self._server.pid if self._server is not None else None

    def start(self) -> None:
        """Start the server, making its data directory first where there is none.

        Raises
        ------
        ConfigurationError
            No PostgreSQL, port taken, data directory in use or not ours, or the server does not start.
        """
        if self._server is not None:
            raise RuntimeError("this cluster has been started already")
        try:
            if self._data_dir is not None:
                self._lock = DataDirLock(self._data_dir)
                self._lock.acquire()
                stop_leftover_server(self._data_dir / "postgres")
            self._start_server()
            self._bootstrap("postgres")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server; an ephemeral one's data goes. Does nothing when it does not run."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # -- databases ---------------------------------------------------------------------------------

    def create_database(self, name: str, template: str | None = None) -> None:
        """Make a database: a copy of `template`, or a fresh one with what Supabase puts in it.

        Parameters
        ----------
        name:
            Its name.
        template:
            A database nobody is connected to; None for a fresh one.
        """
        statement: LiteralString = "create database {} template {} owner postgres"
        if template is not None:
            # Copies the files instead of logging every page: faster, and WAL readers have less to skip.
            statement += " strategy file_copy"
        names = (sql.Identifier(name), sql.Identifier(template or "template0"))
        with self._maintenance() as connection:
            connection.execute(sql.SQL(statement).format(*names))
        if template is None:
            self._bootstrap(name)

    def drop_database(self, name: str) -> None:
        """Drop a database together with its sessions and replication slots; fine if it is not there."""
        deadline = time.monotonic() + 10.0
        drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
        with self._maintenance() as connection:
            while True:
                # FORCE ends ordinary sessions, but refuses while a replication slot is being read.
                connection.execute(
                    "select pg_terminate_backend(active_pid) from pg_replication_slots"
                    " where database = %s and active_pid is not null",
                    [name],
                )
                try:
                    connection.execute(drop)
                    return
                except psycopg.errors.ObjectInUse:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)

    @contextlib.contextmanager
    def _maintenance(self) -> Generator[psycopg.Connection[Any]]:
        # template1: a database that is being copied must have no sessions, and `postgres` may be one.
        with psycopg.connect(self.admin_dsn("template1"), autocommit=True) as connection:
            yield connection

    def _bootstrap(self, database: str) -> None:
        with psycopg.connect(self.admin_dsn(database)) as connection:
            # One transaction: a database has either all of it or nothing.
            for mark, scripts in _BOOTSTRAP.items():
                found = connection.execute("select to_regclass(%s) is not null", [mark]).fetchone()
                if found is None or not found[0]:
                    for script in scripts:
                        text = (Path(__file__).parent / script).read_text(encoding="utf-8")
                        connection.execute(cast("LiteralString", text), prepare=False)

    # -- start-up ----------------------------------------------------------------------------------

    def _start_server(self) -> None:
        for attempt in range(1, PORT_TRIES + 1):
            if self._any_port:
                self.port = free_port()
            else:
                _wait_for_port(self.port)
            try:
                self._start_server_once()
                return
            except ServerStartError:
                if not self._any_port or attempt == PORT_TRIES or _can_bind(self.port):
                    raise

    def _start_server_once(self) -> None:
        user = unprivileged_user(self._data_dir / "postgres" if self._data_dir is not None else None)
        self.installation = find_installation(self._pg_bin, user)
        root = self._data_dir or Path(tempfile.mkdtemp(prefix="reactive-worker-"))
        try:
            if user is not None:
                root.chmod(0o711)
            fresh = not (root / "postgres").exists()
            self._admin_password = _admin_password(root, user)
            if fresh:
                _prepare_new_directory(root, user)
            else:
                _check_version(root, self.installation)
            server = ServerProcess(
                root,
                self.installation,
                user,
                port=self.port,
                ephemeral=self._data_dir is None,
                lock_fd=self._lock.fileno() if self._lock is not None else None,
            )
            server.start(fresh=fresh)
        except BaseException:
            if self._data_dir is None:
                shutil.rmtree(root, ignore_errors=True)
            raise
        self._server = server


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def port_taken_message(port: int, what: str, option: str) -> str:
    """The text of every "port taken" error: which port, what for, and what to do."""
    return (
        f"port {port} for {what} is taken, perhaps by `supabase start` or another `reactive-worker dev`: "
        f"stop that, or choose another with {option} (0 takes any free one)."
    )


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As PostgreSQL does: sockets of closed connections do not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + PORT_PATIENCE
    while not _can_bind(port):
        if time.monotonic() > deadline:
            raise ConfigurationError(port_taken_message(port, "PostgreSQL", "--db-port"))
        time.sleep(0.05)


def _admin_password(root: Path, user: SystemUser | None) -> str:
    path = root / "admin-password"
    if not path.exists() or not path.stat().st_size:
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(24), encoding="ascii")
    if user is not None:
        # initdb, which runs as that user, reads it.
        os.chown(path, user.uid, user.gid)
    return path.read_text(encoding="ascii").strip()


def _prepare_new_directory(root: Path, user: SystemUser | None) -> None:
    # initdb works in a folder that is renamed when it is complete: killed half-way, it starts over.
    unfinished = root / "postgres.new"
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(mode=0o700)
    if user is not None:
        os.chown(unfinished, user.uid, user.gid)


def _check_version(root: Path, installation: Installation) -> None:
    made_by = (root / "postgres" / "PG_VERSION").read_text(encoding="ascii").strip()
    if made_by != str(installation.major):
        raise ConfigurationError(
            f"{root} was made by PostgreSQL {made_by}, and this is {installation.version}: "
            "remove the folder, choose another --data-dir, or name the older server with --pg-bin."
        )
