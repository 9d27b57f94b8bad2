"""For all tests: nothing of the machine they run on decides how they end."""

from __future__ import annotations

import os
import signal

import pytest

# A shell that runs the tests in the background ignores SIGINT in them, and every process they start inherits
# that: Ctrl-C, which some of them test, would then end nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_PREFIXES = ("SUPABASE_", "REACTIVE_WORKER_", "DEFAULT_AGENT_TYPE", "DEFAULT_POLLING_INTERVAL", "LOG_LEVEL")
#: Chooses the PostgreSQL that the tests run on.
_KEPT = ("REACTIVE_WORKER_PG_BIN",)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(_PREFIXES) and name not in _KEPT:
            monkeypatch.delenv(name)
