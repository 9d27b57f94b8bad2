"""The Realtime cases of supabase-js; each case of the program is a test of its own."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.conformance.conftest import World
from tests.conformance.javascript import Reports, names_in, started
from tests.conformance.target import Target

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def reports(target: Target, shared_world: World, supabase_js: Path) -> Generator[Reports]:
    """What the program said of its cases."""
    target.refill()
    shared_world.changed = True
    if target.embedded is not None:
        # Five seconds on the real server.
        target.embedded.faults.join_refusal_delay = 0.05
    yield started("realtime.mjs", target, supabase_js)
    if target.embedded is not None:
        target.embedded.faults.reset()


@pytest.mark.parametrize("name", names_in("realtime.mjs"))
def test_realtime(reports: Reports, name: str) -> None:
    reports.judge(name)


def test_every_case_was_run_once(reports: Reports) -> None:
    assert sorted(reports.names) == sorted(names_in("realtime.mjs"))
