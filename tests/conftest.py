"""For all tests: nothing of the machine they run on decides how they end."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator

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


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of tests/conformance: which Supabase it runs against, by default the embedded one.

    The variables are the suite's own: it writes, so SUPABASE_URL of some project must not lead it there.
    """
    group = parser.getgroup("conformance", "the Supabase that tests/conformance runs against")
    for option, text in (
        ("--supabase-url", "URL of a Supabase; without it the embedded one is used"),
        ("--supabase-service-key", "its service_role (or secret) key"),
        ("--supabase-anon-key", "its anon (or publishable) key"),
        ("--supabase-jwt-secret", "secret that signs users' tokens; default on loopback: the CLI's"),
        ("--db-url", "connection string of the role postgres; default on loopback: the CLI's"),
    ):
        variable = "CONFORMANCE_" + option.removeprefix("--").replace("-", "_").upper()
        group.addoption(option, default=os.environ.get(variable, ""), help=f"{text} [{variable}]")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands run in this process set the root logger up; the next test shall hear warnings all the same."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
