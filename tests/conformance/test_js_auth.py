"""The cases of supabase-js about sign-in; each case of the program is a test of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.conftest import World
from tests.conformance.javascript import Reports, names_in, started
from tests.conformance.target import Target

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def reports(target: Target, shared_world: World, supabase_js: Path) -> Reports:
    """What the program said of its cases."""
    target.refill()
    shared_world.changed = True
    return started("auth.mjs", target, supabase_js)


@pytest.mark.parametrize("name", names_in("auth.mjs"))
def test_auth(reports: Reports, name: str) -> None:
    reports.judge(name)


def test_every_case_was_run_once(reports: Reports) -> None:
    assert sorted(reports.names) == sorted(names_in("auth.mjs"))
