"""Who may do what, what a request's transaction knows, and how errors look."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.integration.local.conftest import Api

ADA, BOB = "8a4f4cf5-5a5c-4b0e-8d6a-6d6b1f0f5f10", "0b0b0b0b-5a5c-4b0e-8d6a-6d6b1f0f5f10"


def as_user(api: Api, user: str, method: str, path: str, **options: Any) -> httpx.Response:
    return httpx.request(method, f"{api.gateway.api_url}/rest/v1{path}", headers=api.user(user), **options)


def test_every_kind_of_key_works(api: Api) -> None:
    keys = api.gateway.keys
    for key, role in (
        (keys.anon_key, "anon"),
        (keys.publishable_key, "anon"),
        (keys.service_role_key, "service_role"),
        (keys.secret_key, "service_role"),
    ):
        url = f"{api.gateway.api_url}/rest/v1/rpc/who"
        headers = {"apikey": key, "Authorization": f"Bearer {key}"}
        assert httpx.get(url, headers=headers).json()["role"] == role
        # Alone, only the new keys stand for a role.
        alone = role if key.startswith("sb_") else "anon"
        assert api.get("/rpc/who", key=key).json()["role"] == alone
        assert httpx.get(f"{url}?apikey={key}").json()["role"] == alone


def test_a_user_sees_only_what_policies_show(api: Api) -> None:
    assert as_user(api, ADA, "POST", "/notes", json={"id": 1, "body": "mine"}).status_code == 201
    assert as_user(api, BOB, "POST", "/notes", json={"id": 2, "body": "other"}).status_code == 201
    assert [row["id"] for row in as_user(api, ADA, "GET", "/notes").json()] == [1]
    changed = as_user(api, ADA, "PATCH", "/notes?id=gt.0", json={"body": "changed"})
    assert changed.headers["content-range"] == "0-0/*"
    stolen = as_user(api, ADA, "POST", "/notes", json={"id": 3, "owner_id": BOB})
    assert (stolen.status_code, stolen.json()["code"]) == (403, "42501")
    # The service role is above policies.
    assert [row["body"] for row in api.get("/notes?order=id").json()] == ["changed", "other"]
    assert api.rows("select owner_id::text from notes order by id") == [(ADA,), (BOB,)]


def test_no_right_is_403_and_for_anonymous_401(api: Api) -> None:
    assert as_user(api, ADA, "POST", "/people", json={"name": "x"}).status_code == 403
    answer = api.post("/people", {"name": "x"}, key=api.gateway.anon_key)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json() == {
        "code": "42501",
        "message": "permission denied for table people",
        "details": None,
        "hint": None,
    }
    # Nothing is granted on a new table to anybody, the service role included.
    assert api.get("/secret").status_code == 403
    assert api.rpc("greeting", name="x").status_code == 200
    assert api.post("/rpc/greeting", {"name": "x"}, key=api.gateway.anon_key).status_code == 401


def test_tokens_that_are_not_accepted(api: Api) -> None:
    keys = api.gateway.keys
    for token, code in (
        (keys.mint_user(ADA, expires_in=-100), "PGRST303"),
        (keys.mint_user(ADA)[:-3] + "abc", "PGRST301"),
        ("nonsense", "PGRST301"),
    ):
        headers = {"Authorization": f"Bearer {token}"}
        answer = api.request("GET", "/people", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, code)
        assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
        assert answer.headers["proxy-status"] == f"PostgREST; error={code}"
        assert token not in answer.text


def test_a_token_that_expires_is_refused_although_it_was_known(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = api.gateway.keys.mint_user(ADA, expires_in=10)
    headers = {"Authorization": f"Bearer {token}"}
    assert api.request("GET", "/rpc/who", headers=headers).json()["uid"] == ADA
    real = time.time
    monkeypatch.setattr("reactive_worker.local.rest.identity.time.time", lambda: real() + 60)
    # PyJWT looks at the clock by another way, so it is the cache that is tested: it must ask again.
    asked: list[str] = []
    keys = type(api.gateway.keys)
    verify = keys.verify

    def counted(self: Any, text: str) -> dict[str, Any]:
        asked.append(text)
        return verify(self, text)

    monkeypatch.setattr(keys, "verify", counted)
    api.request("GET", "/rpc/who", headers=headers)
    assert asked == [token]


def test_the_gateway_refuses_without_a_key(api: Api) -> None:
    answer = httpx.get(f"{api.gateway.api_url}/rest/v1/people")
    assert answer.status_code == 401
    assert set(answer.json()) == {"message", "hint"}
    assert api.get("/people", key="sb_secret_wrong").json()["message"] == "Invalid API key"


def test_roles_that_cannot_be_taken(api: Api) -> None:
    for role, status in (("no_such_role", 401), ("postgres", 403), ("supabase_admin", 403)):
        token = api.gateway.keys.mint({"role": role})
        answer = api.request("GET", "/rpc/who", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == status


def test_what_a_transaction_knows(api: Api) -> None:
    headers = {**api.user(ADA, email="ada@example.org"), "X-Test": "ünï"}
    headers = {name: value.encode() for name, value in headers.items()}
    answer = httpx.get(f"{api.gateway.api_url}/rest/v1/rpc/who", headers=headers).json()
    assert answer["role"] == "authenticated"
    assert answer["uid"] == ADA
    assert answer["claims"]["email"] == "ada@example.org"
    assert answer["method"] == "GET"
    assert answer["path"] == "/rpc/who"
    assert answer["search_path"] == '"public", "public", "extensions"'
    assert api.rpc("who").json()["uid"] is None


def test_time_limits_are_those_of_the_role(api: Api) -> None:
    keys = api.gateway.keys
    assert api.get("/rpc/who", key=keys.anon_key).json()["timeout"] == "3s"
    assert as_user(api, ADA, "GET", "/rpc/who").json()["timeout"] == "8s"
    # None of its own: the one of the connection.
    assert api.get("/rpc/who").json()["timeout"] == "8s"
    assert api.rpc("patient").json() == "20s"


def test_a_statement_that_takes_too_long_ends(api: Api) -> None:
    api.connection.execute("alter role anon set statement_timeout = '50ms'")
    api.connection.execute("notify pgrst, 'reload config'")
    try:
        deadline = time.monotonic() + 10
        while api.get("/rpc/who", key=api.gateway.anon_key).json()["timeout"] != "50ms":
            assert time.monotonic() < deadline
        answer = api.post("/rpc/sleep", {"seconds": 20}, key=api.gateway.anon_key)
        assert (answer.status_code, answer.json()["code"]) == (500, "57014")
    finally:
        api.connection.execute("alter role anon set statement_timeout = '3s'")


def test_nothing_of_a_request_stays_for_the_next(api: Api) -> None:
    api.gateway.faults.clock_offset = 3600
    assert api.rpc("who").json()["clock"] == "3600.0 seconds"
    api.gateway.faults.clock_offset = 0
    assert as_user(api, ADA, "GET", "/rpc/who").json()["uid"] == ADA
    after = api.rpc("who").json()
    assert after["uid"] is None
    assert after["claims"]["role"] == "service_role"
    assert not after["clock"]


def test_the_task_clock_can_be_moved(api: Api) -> None:
    api.gateway.faults.clock_offset = 86_400
    later = api.rpc("submit_todos", p_rows=[{"agent_type": "a", "prompt": "b"}])
    assert later.status_code == 200, later.text
    rows = api.rows("select available_at > now() + interval '23 hours' from todolist")
    api.connection.execute("delete from todolist")
    assert rows == [(True,)]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("P0001", 400),
        ("PT409", 409),
        ("PT404", 404),
        ("PT999", 500),
        ("RW001", 400),
        ("22023", 400),
        ("23503", 409),
        ("23514", 400),
        ("25006", 405),
        ("28000", 403),
        ("40001", 500),
        ("40P01", 500),
        ("42501", 403),
        ("42883", 404),
        ("42P01", 404),
        ("42P17", 500),
        ("53400", 500),
        ("53300", 503),
        ("57014", 500),
        ("57P01", 503),
        ("08006", 503),
        ("P0002", 500),
        ("XX000", 500),
        ("21000", 500),
    ],
)
def test_which_error_is_which_status(api: Api, code: str, status: int) -> None:
    answer = api.rpc("fail", code=code)
    assert answer.status_code == status
    assert answer.json() == {"code": code, "message": "no", "details": "why", "hint": "try"}
    assert answer.headers["proxy-status"] == f"PostgREST; error={code}"


def test_errors_of_postgres_keep_their_words(api: Api) -> None:
    answer = api.get("/people?wrong=eq.1")
    assert answer.status_code == 400
    assert answer.json()["message"] == "column people.wrong does not exist"
    answer = api.get("/people?age=eq.x")
    assert (answer.status_code, answer.json()["code"]) == (400, "22P02")
    answer = api.get("/peopl")
    assert answer.status_code == 404
    assert answer.json() == {
        "code": "PGRST205",
        "message": "Could not find the table 'public.peopl' in the schema cache",
        "details": None,
        "hint": "Perhaps you meant the table 'public.people'",
    }


def test_browsers_may_come_from_anywhere(api: Api) -> None:
    url = f"{api.gateway.api_url}/rest/v1/people"
    preflight = httpx.options(
        url,
        headers={
            "Origin": "http://localhost:3000",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "apikey,content-type",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert preflight.headers["access-control-allow-headers"] == "apikey,content-type"
    answer = api.request("GET", "/people", headers={"Origin": "http://localhost:3000"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "Content-Range" in answer.headers["access-control-expose-headers"]
    refused = httpx.get(url, headers={"Origin": "http://localhost:3000"})
    assert refused.headers["access-control-allow-origin"] == "*"


def test_what_is_not_here_says_so(api: Api) -> None:
    answer = httpx.post(f"{api.gateway.api_url}/functions/v1/hello")
    assert answer.status_code == 501
    assert "edge functions" in answer.json()["message"]
    assert httpx.get(f"{api.gateway.api_url}/nowhere").status_code == 404
    assert httpx.get(f"{api.gateway.api_url}/rest/v1x/people").status_code == 404
