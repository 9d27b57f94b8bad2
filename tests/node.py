"""supabase-js on Node.js, for the tests that let it judge.

One look a test run decides whether it can be had, whatever the number of tests and processes: a machine
without a way to the npm registry waits once and is told why once.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: Where CI has installed it. Read here, before each test starts with an environment of its own.
_PREPARED = os.environ.get("REACTIVE_WORKER_NODE_MODULES", "")
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reactive-worker" / "js"
#: `ws` is the WebSocket of Node before version 22.
_PACKAGES = ("@supabase/supabase-js@2.119.1", "ws@8")
#: Seconds npm may take for all of it, and for one answer of its registry.
INSTALL_TIMEOUT = 90.0
FETCH_TIMEOUT = 15
#: Fewer are too old for supabase-js.
_MAJOR = 20


@dataclass(frozen=True)
class Found:
    """A folder whose ``node_modules`` has supabase-js, or why there is none."""

    folder: Path | None
    reason: str = ""


def find_supabase_js(run: Path) -> Found:
    """Look for supabase-js, and install it outside the checkout where it is missing.

    Parameters
    ----------
    run:
        A folder that all processes of this test run share, and no other run: the first one that looks leaves
        there what it found.
    """
    with _alone(run / "supabase-js.lock"):
        found = run / "supabase-js"
        if not found.exists():
            looked = _look()
            found.write_text(f"{looked.folder or ''}\n{looked.reason}", encoding="utf-8")
        folder, _, reason = found.read_text(encoding="utf-8").partition("\n")
    return Found(Path(folder) if folder else None, reason)


def _look() -> Found:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return Found(None, "Node.js with npm is not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < _MAJOR:
        return Found(None, f"supabase-js needs Node.js {_MAJOR} or newer, this is {version}")
    if _PREPARED and _complete(prepared := Path(_PREPARED).parent):
        return Found(prepared)
    _CACHE.mkdir(parents=True, exist_ok=True)
    with _alone(_CACHE / "lock"):
        reason = "" if _complete(_CACHE) else _install(npm)
    return Found(None, reason) if reason else Found(_CACHE)


def _complete(folder: Path) -> bool:
    return all((folder / "node_modules" / name.rsplit("@", 1)[0]).is_dir() for name in _PACKAGES)


def _install(npm: str) -> str:
    """Why it did not work; empty: it did."""
    (_CACHE / "package.json").write_text('{"private": true}\n', encoding="utf-8")
    # npm by itself asks three times, and waits five minutes for each answer.
    patience = ["--fetch-retries=0", f"--fetch-timeout={FETCH_TIMEOUT * 1000}"]
    quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
    with subprocess.Popen(
        [npm, "install", "--prefix", str(_CACHE), *quiet, *patience, *_PACKAGES],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            _, said = process.communicate(timeout=INSTALL_TIMEOUT)
        except subprocess.TimeoutExpired:
            # npm starts processes of its own.
            os.killpg(process.pid, signal.SIGKILL)
            return f"npm could not install supabase-js within {INSTALL_TIMEOUT:g} s: no way to its registry?"
    if process.returncode != 0 or not _complete(_CACHE):
        return f"npm cannot install supabase-js: {' '.join(said.split())[-300:]}"
    return ""


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
