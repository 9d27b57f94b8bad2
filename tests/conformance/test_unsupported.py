"""What the embedded Supabase does not support is refused by name, never answered wrongly."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from postgrest.exceptions import APIError

from tests.conformance.conftest import World
from tests.conformance.test_wire import send

pytestmark = pytest.mark.embedded("elsewhere these work")

CALLS: dict[str, tuple[Any, str, str]] = {
    "embedding of related tables": (
        lambda w: w.table("log").select("id, person:people(name)"),
        "PGRST127",
        "embedding",
    ),
    "inner joins": (lambda w: w.table("log").select("id, people!inner(name)"), "PGRST127", "embedding"),
    "spreading of related tables": (
        lambda w: w.table("log").select("id, ...people(name)"),
        "PGRST127",
        "embedding",
    ),
    "filters on related tables": (
        lambda w: w.table("log").select("id").eq("people.name", "x"),
        "PGRST127",
        "related",
    ),
    "order by related tables": (
        lambda w: w.table("log").select("id").order("people(name)"),
        "PGRST127",
        "related",
    ),
    "full text search": (
        lambda w: w.table("people").select("id").text_search("name", "x"),
        "PGRST127",
        "full text",
    ),
    "aggregates": (lambda w: w.table("people").select("count()"), "PGRST123", ""),
    "CSV": (lambda w: w.table("people").select("id").csv(), "PGRST107", ""),
    "plans": (lambda w: w.table("people").select("id").explain(), "PGRST107", ""),
    "filters on a scalar function": (
        lambda w: w.rpc("numbers", {"n": 1}).eq("x", 1),
        "PGRST127",
        "no columns",
    ),
}


@pytest.mark.parametrize("what", CALLS)
def test_calls(world: World, what: str) -> None:
    build, code, words = CALLS[what]
    with pytest.raises(APIError) as caught:
        build(world).execute()
    assert caught.value.code == code
    assert words in str(caught.value.details)


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("PUT", "~people?id=eq.1", "PUT"),
        ("DELETE", "~people?id=eq.1&limit=1&order=id", "order, limit and offset on a write"),
        ("PATCH", "~people?id=eq.1&limit=1", "order, limit and offset on a write"),
    ],
)
def test_requests(world: World, method: str, path: str, words: str) -> None:
    answer = send(world, method, path, json={"id": 1, "name": "x"} if method != "DELETE" else None)
    assert (answer.status_code, answer.json()["code"]) == (400, "PGRST127")
    assert words in answer.json()["details"]


@pytest.mark.parametrize("service", ["auth/v1/token", "functions/v1/hello", "graphql/v1"])
def test_other_services(world: World, service: str) -> None:
    answer = httpx.post(f"{world.target.url}/{service}")
    assert answer.status_code == 501
    assert "is not part of the embedded Supabase" in answer.json()["message"]
