"""For all tests: nothing of the machine they run on decides how they end."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import parallel, skips
from tests.node import find_supabase_js
from tests.support import close_connections

# A shell that runs the tests in the background ignores SIGINT in them, and every process they start inherits
# that: Ctrl-C, which some of them test, would then end nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: Examples are the same in every run: a seed must not turn a build red, nor the load of a machine, so nothing
#: is timed. ``--hypothesis-profile=explore`` looks for new ones, and prints how to see a failure again.
hypothesis.settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("explore", hypothesis.settings.get_profile("suite"), derandomize=False)
hypothesis.settings.load_profile("suite")

_PREFIXES = ("SUPABASE_", "REACTIVE_WORKER_", "DEFAULT_AGENT_TYPE", "DEFAULT_POLLING_INTERVAL", "LOG_LEVEL")
#: Chooses the PostgreSQL that the tests run on.
_KEPT = ("REACTIVE_WORKER_PG_BIN",)
#: How the workers of this run are pushed, where a test does not say so itself. Read before it is taken away.
PUSH = os.environ.get("REACTIVE_WORKER_PUSH", "")


def push_for(test: Path, asked: str) -> str:
    """The push mode that a test's workers get from outside; empty: `auto`.

    Unit tests are about the settings themselves, and start no worker.
    """
    return "" if (Path(__file__).parent / "unit") in test.parents else asked


@pytest.fixture(autouse=True)
def _no_settings_from_outside(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(_PREFIXES) and name not in _KEPT:
            monkeypatch.delenv(name)
    if push := push_for(request.path, PUSH):
        monkeypatch.setenv("REACTIVE_WORKER_PUSH", push)


pytest_cmdline_main = parallel.pytest_cmdline_main
pytest_configure = skips.pytest_configure


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the suite; those of tests/conformance say which Supabase it runs against.

    By default that is the embedded one. The variables are the suite's own: it writes, so SUPABASE_URL of some
    project must not lead it there.
    """
    skips.pytest_addoption(parser)
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


@pytest.fixture(scope="session")
def supabase_js(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose ``node_modules`` has supabase-js; where that cannot be had, who asks is skipped."""
    base = tmp_path_factory.getbasetemp()
    is_one_of_several = "PYTEST_XDIST_WORKER" in os.environ
    found = find_supabase_js(base.parent if is_one_of_several else base)
    if found.folder is None:
        pytest.skip(found.reason)
    return found.folder


@pytest.fixture(autouse=True)
def _connections_of_tests() -> Iterator[None]:
    """Closed before anybody looks for what a test left open, as they are opened later than anything else."""
    yield
    close_connections()


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands run in this process set the root logger up; the next test shall hear warnings all the same."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
