"""Fixtures of the client's tests."""

from __future__ import annotations

import pytest

from tests.unit.client.scripted import Link


@pytest.fixture
def links() -> list[Link]:
    Link.made = []
    return Link.made
