"""The examples in the docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import threading

import pytest

from reactive_worker import streams

MODULES = [f"reactive_worker.streams.{module.name}" for module in pkgutil.iter_modules(streams.__path__)]


@pytest.mark.parametrize("name", [*MODULES, "reactive_worker.testing.marbles"])
def test_examples_run_and_leave_no_timer_behind(name: str) -> None:
    """One that fires later would print into a test that has nothing to do with it."""
    before = set(threading.enumerate())
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0
    left = set(threading.enumerate()) - before
    for thread in left:
        # A cancelled timer ends at once, but in its own thread.
        thread.join(timeout=20)
    assert [thread for thread in left if thread.is_alive()] == []


def test_every_public_operator_has_an_example_and_a_picture() -> None:
    operators = {
        name for name in streams.__all__ if name.islower() and name not in ("spread", "outcome_verdict")
    }
    without = {
        name
        for name in operators - {"default_priority"}
        if ">>>" not in str(getattr(streams, name).__doc__)
        or "::\n" not in str(getattr(streams, name).__doc__)
    }
    assert without == set()
