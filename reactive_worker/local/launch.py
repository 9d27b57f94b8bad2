"""Starting and stopping one PostgreSQL server process, through its watchdog."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from reactive_worker.errors import ConfigurationError
from reactive_worker.local.binaries import Installation, SystemUser, reachable
from reactive_worker.local.datadir import process_alive

HOST = "127.0.0.1"
ADMIN = "supabase_admin"

#: Seconds a server may take to start; recovery after a crash included.
START_TIMEOUT = 60.0
#: Bytes after which the log of earlier runs is thrown away at the next start.
LOG_LIMIT = 10 * 1024 * 1024

_SETTINGS = {
    "listen_addresses": HOST,
    # No socket file: its path would be too long in deep folders, and TCP on loopback is fast enough.
    "unix_socket_directories": "",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "wal_level": "logical",
    "max_replication_slots": "100",
    "max_wal_senders": "100",
    "max_slot_wal_keep_size": "4096MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Compiling a query takes longer than any query of a development database runs.
    "jit": "off",
}

# synchronous_commit stays on: with fsync off it costs a write to the page cache only, and logical decoding
# sees a commit once its WAL is written. Off, that is up to 600 ms later, and Realtime would be as slow.
_EPHEMERAL_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "2GB",
}


class ServerStartError(ConfigurationError):
    """PostgreSQL did not start."""


class ServerProcess:
    """A running server and the watchdog above it.

    Parameters
    ----------
    root:
        Folder that holds ``postgres/``, ``postgres.log`` and ``admin-password``.
    ephemeral:
        True: speed instead of durability, and `root` is removed when the server ends.
    lock_fd:
        Open lock file, held on to by the watchdog until the server has ended, or None.
    """

    def __init__(
        self,
        root: Path,
        installation: Installation,
        user: SystemUser | None,
        *,
        port: int,
        ephemeral: bool,
        lock_fd: int | None,
    ) -> None:
        self._root = root
        self._installation = installation
        self._user = user
        self._port = port
        self._ephemeral = ephemeral
        self._lock_fd = lock_fd
        self._root_fd: int | None = None
        self._watchdog: subprocess.Popen[str] | None = None
        #: Process id of the server.
        self.pid: int | None = None

    @property
    def running(self) -> bool:
        """True while the server runs."""
        return self._watchdog is not None and self._watchdog.poll() is None

    def start(self, *, fresh: bool) -> None:
        """Start the server and wait until it takes connections.

        Parameters
        ----------
        fresh:
            True: make the data directory first; it appears as ``postgres`` only when it is complete.

        Raises
        ------
        ServerStartError
            It ended, or was not ready in time; the text holds the end of its log.
        """
        try:
            failure = self._wait_until_ready(self._spawn(fresh))
        except BaseException:
            self.stop()
            raise
        if failure is not None:
            # Read before the watchdog removes an ephemeral folder, log included.
            words = _last_words(self._root / "postgres.log")
            self.stop()
            raise ServerStartError(f"PostgreSQL did not start ({failure}): {words}")

    def stop(self) -> None:
        """Stop the server and wait for its end."""
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            # Already ended: then nobody reads this.
            with contextlib.suppress(BrokenPipeError):
                watchdog.communicate("stop\n")
            watchdog.wait()
        if self._root_fd is not None:
            os.close(self._root_fd)
            self._root_fd = None
        self.pid = None

    def _spawn(self, fresh: bool) -> subprocess.Popen[str]:
        seen_as = self._path_for_user()
        settings = {**_SETTINGS, "port": str(self._port), **(_EPHEMERAL_SETTINGS if self._ephemeral else {})}
        server = [str(self._installation.postgres), "-D", f"{seen_as}/postgres"]
        for name, value in settings.items():
            server += ["-c", f"{name}={value}"]
        log = self._root / "postgres.log"
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            os.truncate(log, 0)
        initdb = self._initdb_command(seen_as)
        complete = [str(self._root / "postgres.new"), str(self._root / "postgres")]
        commands = [{"args": initdb, "server": False, "rename": complete}] if fresh else []
        fds = [fd for fd in (self._root_fd,) if fd is not None]
        plan: dict[str, Any] = {
            "commands": [*commands, {"args": server, "server": True, "rename": None}],
            "remove": str(self._root) if self._ephemeral else None,
            "uid": self._user.uid if self._user is not None else None,
            "gid": self._user.gid if self._user is not None else None,
            "log": str(log),
            "pass_fds": fds,
            # LANG and LC_* of the caller must not decide what the server's messages look like.
            "env": {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        }
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("watchdog.py")), json.dumps(plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[*fds, *((self._lock_fd,) if self._lock_fd is not None else ())],
            start_new_session=True,
            text=True,
            cwd="/",
        )
        return self._watchdog

    def _initdb_command(self, seen_as: str) -> list[str]:
        command = [
            str(self._installation.initdb),
            f"--pgdata={seen_as}/postgres.new",
            f"--username={ADMIN}",
            f"--pwfile={seen_as}/admin-password",
            # Every session needs the password: other users of this machine reach the port as well.
            "--auth=scram-sha-256",
            "--encoding=UTF8",
        ]
        if self._installation.major >= 17:
            # Unicode rules that do not depend on which locales the machine has.
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        elif sys.platform.startswith("linux"):
            command += ["--locale=C.UTF-8"]
        else:
            command += ["--no-locale"]
        return [*command, "--no-sync"] if self._ephemeral else command

    def _path_for_user(self) -> str:
        """The root folder as the server's user can name it."""
        if self._user is None or reachable(self._root):
            return str(self._root)
        if not sys.platform.startswith("linux"):
            raise ConfigurationError(
                f"the user {self._user.name}, whom PostgreSQL has to run as, cannot reach {self._root}: "
                "choose another --data-dir, or start reactive-worker as an ordinary user."
            )
        # Below /root, say. An open directory that is handed down can be used without rights on its parents,
        # so nobody's permissions have to be loosened.
        if self._root_fd is None:
            self._root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._root_fd}"

    def _wait_until_ready(self, watchdog: subprocess.Popen[str]) -> str | None:
        """Wait; returns None when it takes connections, else what happened instead."""
        report = watchdog.stdout.readline().strip() if watchdog.stdout is not None else ""
        if not report.startswith("started "):
            return report or "its watchdog ended"
        self.pid = int(report.split()[1])
        pid_file = self._root / "postgres" / "postmaster.pid"
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError):
                lines = pid_file.read_text(encoding="utf-8", errors="replace").splitlines()
                if len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready":
                    return None
            if not process_alive(self.pid):
                return "it ended"
            time.sleep(0.005)
        return f"it was not ready after {START_TIMEOUT:g} s"


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except FileNotFoundError:
        return "there is no log"
    return " | ".join(line.strip() for line in lines[-5:]) or "its log is empty"
