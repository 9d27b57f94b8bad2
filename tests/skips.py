"""In CI a test may be skipped only for a reason on the list `tests/allowed_skips.toml`.

A skip is a test that did not run: on a person's machine that is fine, in CI nobody would see it. With
``--skips=listed`` (the default where ``CI`` is set) a skip that is not listed fails the run, at its end and
by name; ``--skips=any`` is the default everywhere else.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("allowed_skips.toml")


@dataclass(frozen=True)
class Allowed:
    """One entry of the list."""

    #: Glob of the tests' ids.
    tests: str
    #: Regular expression that the reason of the skip begins with.
    reason: str
    #: Why it may be skipped in CI; for readers.
    because: str

    def covers(self, skip: Skip) -> bool:
        return fnmatchcase(skip.test, self.tests) and re.match(self.reason, skip.reason) is not None


@dataclass(frozen=True)
class Skip:
    """A test, or a whole file, that was skipped."""

    test: str
    reason: str

    @classmethod
    def of(cls, report: pytest.TestReport | pytest.CollectReport) -> Skip | None:
        """What a report says; None for one that is no skip. A test that is expected to fail has run."""
        if not report.skipped or hasattr(report, "wasxfail"):
            return None
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return cls(report.nodeid, text.removeprefix("Skipped: "))


def read(path: Path) -> list[Allowed]:
    """The entries of a list."""
    return [Allowed(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("skip", [])]


def unlisted(skips: Iterable[Skip], allowed: Iterable[Allowed]) -> list[Skip]:
    """Those that no entry covers."""
    entries = list(allowed)
    return [skip for skip in skips if not any(entry.covers(skip) for entry in entries)]


class Judge:
    """Collects the skips of a run and fails it for those that are not listed."""

    def __init__(self, allowed: list[Allowed]) -> None:
        self._allowed = allowed
        self._skips: dict[Skip, None] = {}

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    @pytest.hookimpl
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.exitstatus == pytest.ExitCode.OK and unlisted(self._skips, self._allowed):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if left := unlisted(self._skips, self._allowed):
            terminalreporter.section("skipped, and not on the list of what may be", red=True)
            for skip in left:
                terminalreporter.line(f"{skip.test}: {skip.reason}")
            terminalreporter.line(f"Make them run, or add them to {LIST.name} with the reason (--skips=any).")

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if skip := Skip.of(report):
            # With several processes each tells of a file that was skipped as a whole.
            self._skips[skip] = None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--skips",
        choices=("any", "listed"),
        default="listed" if os.environ.get("CI") else "any",
        help="listed: a skip that is not in tests/allowed_skips.toml fails the run [default where CI is set]",
    )
    parser.addoption("--skip-list", type=Path, default=LIST, help="that list")


def pytest_configure(config: pytest.Config) -> None:
    is_one_of_several = hasattr(config, "workerinput")
    if config.getoption("--skips") == "listed" and not is_one_of_several:
        config.pluginmanager.register(Judge(read(config.getoption("--skip-list"))), "skips")
