"""One owner per data directory, and an end to servers whose owner is gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path

from reactive_worker.errors import ConfigurationError

#: Seconds to wait for the watchdog of a killed predecessor to finish stopping its server.
TAKEOVER_PATIENCE = 30.0
#: What may lie in a data directory; anything else means that the folder is somebody's work.
OUR_FILES = frozenset({"lock", "admin-password", "postgres", "postgres.new", "postgres.log", ".gitignore"})


class DataDirLock:
    """A lock file held with flock: by our process, and by the watchdog until the server has ended.

    flock belongs to the open file, so the watchdog inherits it, and no crash can leave it locked.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._fd: int | None = None

    def fileno(self) -> int:
        """The open lock file, to hand down to the watchdog."""
        if self._fd is None:
            raise RuntimeError("the lock is not held")
        return self._fd

    def acquire(self) -> None:
        """Make the directory ours.

        Raises
        ------
        ConfigurationError
            It is in use, cannot be written, or holds files that are not ours.
        """
        self._claim_folder()
        try:
            fd = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"cannot use {self._data_dir}: {error.strerror}") from error
        try:
            self._wait_for(fd)
        except BaseException:
            os.close(fd)
            raise
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Give the directory back."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def _claim_folder(self) -> None:
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            present = {entry.name for entry in self._data_dir.iterdir()}
        except OSError as error:
            raise ConfigurationError(f"cannot use {self._data_dir}: {error.strerror}") from error
        if present - OUR_FILES and "lock" not in present:
            raise ConfigurationError(
                f"{self._data_dir} is not empty and holds no database of reactive-worker: "
                "name an empty or a new folder."
            )
        with contextlib.suppress(FileExistsError), open(self._data_dir / ".gitignore", "x") as ignore:
            ignore.write("*\n")

    def _wait_for(self, fd: int) -> None:
        deadline = time.monotonic() + TAKEOVER_PATIENCE
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                owner = os.pread(fd, 32, 0).decode("ascii", errors="replace").strip()
            # An owner that is gone has left a watchdog that is stopping the server: that takes a moment.
            if owner.isdigit() and process_alive(int(owner)):
                raise ConfigurationError(
                    f"{self._data_dir} is in use by process {owner}: stop it, or name another --data-dir."
                )
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"{self._data_dir} is in use: its last server is still stopping, see postgres.log there."
                )
            time.sleep(0.02)


def stop_leftover_server(pgdata: Path) -> None:
    """Stop a server that a killed predecessor and its killed watchdog left running in `pgdata`.

    Call it only with the directory's lock held. A ``postmaster.pid`` whose number now belongs to another
    program is removed: PostgreSQL would otherwise refuse to start beside it.

    Raises
    ------
    ConfigurationError
        It does not stop.
    """
    pid_file = pgdata / "postmaster.pid"
    try:
        first = pid_file.read_text(encoding="utf-8", errors="replace").split(maxsplit=1)[:1]
    except FileNotFoundError:
        return
    pid = int(first[0]) if first and first[0].isdigit() else 0
    if pid and "postgres" in command_of(pid):
        for how, patience in ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
            deadline = time.monotonic() + patience
            while process_alive(pid) and time.monotonic() < deadline:
                time.sleep(0.01)
            if not process_alive(pid):
                break
        else:
            raise ConfigurationError(
                f"a PostgreSQL server left running in {pgdata} (process {pid}) does not stop"
            )
    pid_file.unlink(missing_ok=True)


def process_alive(pid: int) -> bool:
    """True if there is such a process, and it has not merely ended without being waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    state = Path(f"/proc/{pid}/stat")
    with contextlib.suppress(OSError):
        # "pid (name) state": the name may contain anything, also brackets.
        return state.read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    return True


def command_of(pid: int) -> str:
    """The command line of a process; empty when there is none."""
    if Path("/proc/self").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except FileNotFoundError:
            return ""
    done = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
