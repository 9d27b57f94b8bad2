"""The process between us and PostgreSQL: it starts the server, and stops it when we are gone.

Run as a script (``python -I -S watchdog.py``) with its plan as one JSON argument; it imports the standard
library only. Its standard input is a pipe whose other end lives in our process. However that process
ends, kill -9 included, the pipe closes and the watchdog stops the server and removes an ephemeral
directory. A pipe is used because it works the same on Linux and macOS, and because the kernel's
"parent died" signal looks at the thread that started the child, which may end long before the process.

Written to standard output, one line each: ``started <pid>`` and ``failed <what>``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

#: How often, in seconds, to check that the parent is still the same, should a forked copy of it keep the
#: pipe open.
PARENT_CHECK = 1.0
#: Seconds a fast shutdown (durable directories) may take before it becomes an immediate one.
FAST_STOP = 20.0
#: Seconds an immediate shutdown may take before the server is killed.
IMMEDIATE_STOP = 5.0

PR_SET_PDEATHSIG = 1


def die_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn` that makes the server stop when the watchdog itself is killed (Linux only).

    The C library is looked up here, before the fork; the kernel clears the setting when the user changes,
    and `subprocess` runs this after that.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def preexec() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)

    return preexec


def _wake(_signal: int, _frame: object) -> None:
    """Does nothing: a handled signal is what writes to the wake-up pipe."""


class Watchdog:
    """Runs the plan's commands one after the other; the last one is the server."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.parent = os.getppid()
        self.stopping = False
        self.graceful = False
        self.wakeup, wakeup_writer = os.pipe()
        os.set_blocking(wakeup_writer, False)
        # Signals interrupt select by writing to this pipe: no window in which one is missed.
        signal.set_wakeup_fd(wakeup_writer)
        signal.signal(signal.SIGCHLD, _wake)
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):
            signal.signal(getattr(signal, name), self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self.stopping = True

    def run(self) -> int:
        """Run until the server has ended; returns the exit code."""
        code = 0
        try:
            for command in self.plan["commands"]:
                code = self._run_command(command["args"], server=command["server"])
                if code or self.stopping:
                    break
                if command["rename"]:
                    os.rename(*command["rename"])
        finally:
            if self.plan["remove"]:
                shutil.rmtree(self.plan["remove"], ignore_errors=True)
        return code

    def _run_command(self, args: list[str], *, server: bool) -> int:
        options: dict[str, Any] = {}
        if self.plan["uid"] is not None:
            options = {"user": self.plan["uid"], "group": self.plan["gid"], "extra_groups": []}
        with open(os.open(self.plan["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as log:
            # New session: a Ctrl-C in the terminal must reach our process only, which then stops us.
            child: subprocess.Popen[Any] = subprocess.Popen(
                args,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=self.plan["pass_fds"],
                preexec_fn=die_with_parent(),
                start_new_session=True,
                env=self.plan["env"],
                **options,
            )
        if server:
            self._say(f"started {child.pid}")
        while child.poll() is None and not self.stopping:
            self._wait(PARENT_CHECK)
        if child.poll() is None:
            self._stop(child, server=server)
        code = child.wait()
        if code and not self.stopping:
            self._say(f"failed {os.path.basename(args[0])}: exit code {code}")
        return code

    def _wait(self, timeout: float) -> None:
        readable, _, _ = select.select([0, self.wakeup], [], [], timeout)
        if self.wakeup in readable:
            os.read(self.wakeup, 4096)
        if 0 in readable:
            # Any byte asks for a graceful stop; end of file means that our process is gone.
            self.graceful = bool(os.read(0, 1))
            self.stopping = True
        if os.getppid() != self.parent:
            self.stopping = True

    def _stop(self, child: subprocess.Popen[Any], *, server: bool) -> None:
        # Nothing of an ephemeral server is worth a checkpoint.
        if server and not self.plan["remove"]:
            child.send_signal(signal.SIGINT)
            if self._ended(child, FAST_STOP):
                return
        child.send_signal(signal.SIGQUIT)
        if not self._ended(child, IMMEDIATE_STOP):
            child.kill()

    @staticmethod
    def _ended(child: subprocess.Popen[Any], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return child.poll() is not None

    @staticmethod
    def _say(line: str) -> None:
        # The reader may be gone, and then nobody needs the line.
        with contextlib.suppress(BrokenPipeError):
            print(line, flush=True)


if __name__ == "__main__":
    sys.exit(Watchdog(json.loads(sys.argv[1])).run())
