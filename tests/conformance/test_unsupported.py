"""What the embedded Supabase does not support is refused by name, never answered wrongly."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.conformance.conftest import World
from tests.conformance.test_wire import send

pytestmark = pytest.mark.embedded("elsewhere these work")


@pytest.mark.parametrize(
    ("method", "path", "headers", "refusal"),
    [
        ("GET", "", {}, (404, "PGRST126", "OpenAPI")),
        ("GET", "~people", {"Accept": "application/geo+json"}, (400, "PGRST127", "GeoJSON")),
        ("GET", "~people", {"Accept": "application/vnd.pgrst.plan"}, (406, "PGRST107", "")),
        ("POST", "~log", {"Prefer": "return=headers-only"}, (400, "PGRST127", "return=headers-only")),
    ],
)
def test_requests(world: World, method: str, path: str, headers: dict[str, str], refusal: Any) -> None:
    answer = send(world, method, path, headers=headers, json={"id": 1} if method == "POST" else None)
    status, code, words = refusal
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert words in str(answer.json()["details"])


@pytest.mark.parametrize("service", ["functions/v1/hello", "graphql/v1"])
def test_other_services(world: World, service: str) -> None:
    answer = httpx.post(f"{world.target.url}/{service}")
    assert answer.status_code == 501
    assert "is not part of the embedded Supabase" in answer.json()["message"]
