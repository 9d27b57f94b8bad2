"""How the suite itself behaves: what is skipped, how many processes it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import parallel
from tests.conftest import PUSH, push_for
from tests.skips import LIST, read

ROOT = Path(__file__).parents[1]

TESTS = """
import pytest

def test_runs(): pass
def test_waits_for_a_tool(): pytest.skip("the tool is missing: install it")

@pytest.mark.xfail(reason="known")
def test_that_fails_as_expected(): raise AssertionError
"""
ONE_TEST = """
[[skip]]
tests = "*::test_waits_for_a_tool"
reason = "the tool is missing"
because = "shown here"
"""
ONE_FILE = """
[[skip]]
tests = "test_file.py"
reason = "could not import 'no_such_module'"
because = "shown here"
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of pytest over a test and a file that are skipped, with a list of what may be."""
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_file.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")

    def run(allowed: str, *options: str, ci: str = "") -> subprocess.CompletedProcess[str]:
        (tmp_path / "list.toml").write_text(allowed)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.skips"]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        return subprocess.run(
            [*command, "--skip-list=list.toml", *options],
            cwd=tmp_path,
            env={**inherited, "PYTHONPATH": str(ROOT), "CI": ci},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_in_ci_a_skip_that_is_not_listed_fails_the_run(run: Run) -> None:
    """Two processes, and a file that is skipped as a whole in both."""
    done = run(ONE_TEST, "-n2", ci="true")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    _, _, told = done.stdout.partition("not on the list of what may be")
    assert told.count("test_file.py: could not import 'no_such_module'") == 1
    assert "test_some.py" not in told


def test_in_ci_what_is_listed_may_be_skipped(run: Run) -> None:
    done = run(ONE_TEST + ONE_FILE, ci="true")
    assert done.returncode == pytest.ExitCode.OK, done.stdout
    assert "not on the list" not in done.stdout


def test_elsewhere_anything_may_be_skipped(run: Run) -> None:
    done = run("")
    assert done.returncode == pytest.ExitCode.OK, done.stdout


def test_every_entry_of_the_list_says_why() -> None:
    entries = read(LIST)
    assert entries
    assert all(len(entry.because) > 20 and entry.reason and entry.tests for entry in entries)


@pytest.mark.parametrize(
    ("source", "options", "several"),
    [
        ("TESTPATHS", {}, True),
        ("ARGS", {}, False),
        ("TESTPATHS", {"usepdb": True}, False),
        ("TESTPATHS", {"collectonly": True}, False),
    ],
)
def test_the_whole_suite_takes_several_processes_and_a_part_takes_one(
    source: str, options: dict[str, bool], several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = SimpleNamespace(**{"usepdb": False, "collectonly": False, **options})
    config: Any = SimpleNamespace(args_source=pytest.Config.ArgsSource[source], option=option)
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    assert parallel.wanted(config) == (3 if several else 0)


def test_the_push_mode_of_a_run_reaches_its_workers_and_no_unit_test() -> None:
    assert push_for(ROOT / "tests" / "faults" / "test_cancel.py", "changes") == "changes"
    assert push_for(ROOT / "tests" / "unit" / "worker" / "test_settings.py", "changes") == ""
    assert os.environ.get("REACTIVE_WORKER_PUSH", "") == PUSH
