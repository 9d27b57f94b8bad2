"""One scripted model for the whole session, emptied before each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.frameworks.openai_server import KEY, ScriptedModel


@pytest.fixture(scope="session")
def _server() -> Iterator[ScriptedModel]:
    with ScriptedModel() as server:
        yield server


@pytest.fixture
def model(_server: ScriptedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedModel]:
    """A scripted model, named by OPENAI_BASE_URL and OPENAI_API_KEY."""
    monkeypatch.setenv("OPENAI_BASE_URL", _server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield _server
    _server.reset()
