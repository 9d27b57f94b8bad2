"""How many processes a test run takes: several for the whole suite, one for a part of it.

pytest-xdist divides the tests among processes, each with a PostgreSQL of its own. The number is chosen here
and not in `addopts`, so that ``-n 0``, ``-n 6`` and ``-p no:xdist`` work as everywhere, and so that a look at
some files pays for no further process: each has to import and collect everything once more.
"""

from __future__ import annotations

import os

import pytest

#: Many tests wait more than they compute: one process more than there are cores keeps those busy.
SPARE = 1
#: Each process has a PostgreSQL of about 150 MB.
MOST = 8


def cores() -> int:
    """Cores this process may use: a container may have fewer than its machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def wanted(config: pytest.Config) -> int:
    """Processes for what this run was asked for; 0 for this one alone."""
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if not is_whole or config.option.collectonly or config.option.usepdb:
        return 0
    return min(cores() + SPARE, MOST)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Before pytest-xdist reads its options."""
    is_one_of_several = hasattr(config, "workerinput")
    if is_one_of_several or not config.pluginmanager.hasplugin("xdist"):
        return
    if config.option.numprocesses is not None:
        return
    if number := wanted(config):
        config.option.numprocesses = number
        if config.option.dist == "no":
            config.option.dist = "worksteal"
