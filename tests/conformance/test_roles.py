"""Keys, users and what each may do, with supabase-py and on the wire."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from supabase import create_client

from tests.conformance.cases import ANY, Case, refused, run
from tests.conformance.conftest import World
from tests.conformance.target import ADA, BOB


def notes(world: World, user: str) -> Any:
    return world.user(user).table(world.target.name("notes"))


def raw(world: World, headers: dict[str, str], path: str = "/rpc/who", query: str = "") -> httpx.Response:
    """A request with exactly these headers."""
    path = path.replace("/rpc/", f"/rpc/{world.target.prefix}")
    return httpx.get(f"{world.target.url}/rest/v1{path}{query}", headers=headers)


def test_a_user_sees_and_changes_only_own_rows(fresh: World) -> None:
    mine = notes(fresh, ADA).insert({"id": 1, "body": "mine"}).execute()
    assert mine.data == [{"id": 1, "owner_id": ADA, "body": "mine"}]
    notes(fresh, BOB).insert({"id": 2, "body": "his"}).execute()
    assert [row["id"] for row in notes(fresh, ADA).select("id").execute().data] == [1]
    assert notes(fresh, ADA).update({"body": "stolen"}).eq("id", 2).execute().data == []
    assert notes(fresh, ADA).delete().eq("id", 2).execute().data == []
    kept = fresh.table("notes").select("id, body").order("id").execute().data
    assert kept == [{"id": 1, "body": "mine"}, {"id": 2, "body": "his"}]


def test_a_row_in_another_name_is_refused(fresh: World) -> None:
    case = Case(
        "",
        lambda w: notes(w, ADA).insert({"id": 1, "owner_id": BOB}),
        **refused(403, "42501", ANY, None, None),
    )
    answer = run(fresh, case)
    assert "violates row-level security policy" in answer.json()["message"]


def test_anonymous_may_write_without_reading(fresh: World) -> None:
    log = fresh.anon.table(fresh.target.name("log"))
    log.insert({"id": 5, "line": "x"}, returning="minimal").execute()  # type: ignore[arg-type]
    assert fresh.answers[-1].status_code == 201
    case = Case(
        "",
        lambda w: w.anon.table(w.target.name("log")).insert({"id": 6, "line": "x"}),
        **refused(401, "42501", f"permission denied for table {fresh.target.name('log')}", None),
    )
    answer = run(fresh, case)
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_user_has_claims(world: World) -> None:
    client = world.client(world.target.anon_key, world.target.user(ADA, email="ada@example.org"))
    known = client.rpc(world.target.name("who"), {}).execute().data
    assert (known["role"], known["uid"], known["email"]) == ("authenticated", ADA, "ada@example.org")
    client.postgrest.aclose()


@pytest.mark.parametrize("where", ["apikey", "both", "authorization", "query"])
def test_where_a_key_may_be(world: World, where: str) -> None:
    for key, role in ((world.target.anon_key, "anon"), (world.target.service_key, "service_role")):
        headers = {"apikey": key} if where in ("apikey", "both") else {}
        if where in ("both", "authorization"):
            headers["Authorization"] = f"Bearer {key}"
        if where == "authorization" and world.target.embedded is None:
            pytest.skip("the API gateway of a hosted project asks for the apikey as well")
        query = f"?apikey={key}" if where == "query" else ""
        # A legacy key that comes as apikey alone lets a request in, and PostgREST knows nothing of it.
        known = role if where in ("both", "authorization") or key.startswith("sb_") else "anon"
        assert raw(world, headers, query=query).json()["role"] == known


@pytest.mark.embedded("the new kind of keys is known there")
def test_new_style_keys(world: World) -> None:
    gateway = world.target.embedded
    assert gateway is not None
    for key, role in ((gateway.publishable_key, "anon"), (gateway.secret_key, "service_role")):
        client = create_client(world.target.url, key)
        assert client.rpc(world.target.name("who"), {}).execute().data["role"] == role
        client.postgrest.aclose()


def test_no_key(world: World) -> None:
    answer = raw(world, {})
    assert answer.status_code == 401
    assert answer.json()["message"] == "No API key found in request"


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda w: w.target.user(ADA, expires_in=-100), "PGRST303", "JWT expired"),
        (lambda w: w.target.user(ADA)[:-4] + "AAAA", "PGRST301", ANY),
        (lambda w: "not.a.token", "PGRST301", ANY),
        (lambda w: "nonsense", "PGRST301", ANY),
    ],
    ids=["expired", "wrong signature", "no JSON", "no token"],
)
def test_tokens_that_are_refused(world: World, change: Any, code: str, message: Any) -> None:
    headers = {"apikey": world.target.anon_key, "Authorization": f"Bearer {change(world)}"}
    answer = raw(world, headers)
    assert answer.status_code == 401
    assert answer.json() == {"code": code, "message": message, "details": ANY, "hint": ANY}
    assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token"')


def test_a_role_that_cannot_be_taken(world: World) -> None:
    headers = {
        "apikey": world.target.anon_key,
        "Authorization": f"Bearer {world.target.user(ADA, role='supabase_admin')}",
    }
    answer = raw(world, headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "42501")


def test_headers_reach_the_database(world: World) -> None:
    answer = raw(world, {"apikey": world.target.service_key, "X-Test": "hello"})
    assert answer.json()["header"] == "hello"
