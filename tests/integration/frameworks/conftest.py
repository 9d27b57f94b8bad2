"""A scripted model for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.frameworks.openai_server import KEY, ScriptedModel


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedModel]:
    """A scripted model, named by OPENAI_BASE_URL and OPENAI_API_KEY."""
    with ScriptedModel() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield server
