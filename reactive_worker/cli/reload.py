"""`run --reload`: the worker in a process of its own, started again when a file of the user's changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from reactive_worker.cli.console import Console

#: Seconds between two looks at the files.
INTERVAL = 0.4
#: Seconds running tasks get before they are handed back: whoever saves a file wants to see it run.
PATIENCE = 2.0
#: Folders in which nobody edits code.
_SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages", "build", "dist"})


def run_reloading(argv: Sequence[str], console: Console) -> int:
    """Run `reactive-worker ARGV` without ``--reload``, again after each change, until a signal ends it.

    Returns
    -------
    int
        The worker's last exit code.
    """
    command = [sys.executable, "-m", "reactive_worker.cli", *(one for one in argv if one != "--reload")]
    ended: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: ended.append(got))
    here = Path.cwd()
    while True:
        before = snapshot(here)
        # A group of its own: what the terminal sends to ours reaches the worker once, through us.
        worker = subprocess.Popen(command, start_new_session=True)
        changed = _wait(worker, here, before, ended)
        if not changed:
            return worker.wait()
        console.note(f"changed: {changed}; starting again")


def _wait(worker: subprocess.Popen[bytes], here: Path, before: dict[str, float], ended: list[int]) -> str:
    """The file that has changed, with the worker ended; empty when a signal ended it."""
    told = 0
    while True:
        while len(ended) > told:
            worker.send_signal(ended[told])
            told += 1
        if told and worker.poll() is not None:
            return ""
        if not told and (changed := difference(before, snapshot(here))):
            _stop(worker)
            return changed
        # A worker that ended by itself (a typing error in a module) is started again after the next change.
        time.sleep(INTERVAL if not told else 0.05)


def _stop(worker: subprocess.Popen[bytes]) -> None:
    for _ in range(2):
        # The second time it hands back what still runs.
        worker.terminate()
        try:
            worker.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            continue
        return
    worker.kill()
    worker.wait()


def snapshot(folder: Path) -> dict[str, float]:
    """When each Python file, and `.env`, below a folder was written."""
    return dict(_written(folder))


def difference(before: dict[str, float], after: dict[str, float]) -> str:
    """The first file that is new, gone or written anew; empty when there is none.

    >>> difference({"a.py": 1.0}, {"a.py": 2.0}), difference({"a.py": 1.0}, {"a.py": 1.0})
    ('a.py', '')
    """
    names = sorted(before.keys() | after.keys())
    return next((name for name in names if before.get(name) != after.get(name)), "")


def _written(folder: Path) -> Iterator[tuple[str, float]]:
    for root, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in _SKIPPED
            and not os.path.exists(os.path.join(root, name, "pyvenv.cfg"))
        ]
        for name in files:
            if name.endswith(".py") or name == ".env":
                path = os.path.join(root, name)
                try:
                    yield os.path.relpath(path, folder), os.stat(path).st_mtime
                except FileNotFoundError:
                    continue  # an editor's temporary file
