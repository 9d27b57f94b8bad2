"""The examples in the docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from reactive_worker import streams

MODULES = [f"reactive_worker.streams.{module.name}" for module in pkgutil.iter_modules(streams.__path__)]


@pytest.mark.parametrize("name", [*MODULES, "reactive_worker.testing.marbles"])
def test_examples_run(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


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
