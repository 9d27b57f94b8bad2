"""For all tests: nothing of the machine they run on decides how they end."""

from __future__ import annotations

import os

import pytest

_PREFIXES = ("SUPABASE_", "REACTIVE_WORKER_", "DEFAULT_AGENT_TYPE", "DEFAULT_POLLING_INTERVAL", "LOG_LEVEL")
#: Chooses the PostgreSQL that the tests run on.
_KEPT = ("REACTIVE_WORKER_PG_BIN",)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(_PREFIXES) and name not in _KEPT:
            monkeypatch.delenv(name)
