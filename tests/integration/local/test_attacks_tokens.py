"""Forged, stale and overreaching tokens over REST."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import httpx
import jwt
import pytest

from tests.integration.local.attacks import MARK
from tests.integration.local.conftest import Api

ADA = "8a4f4cf5-5a5c-4b0e-8d6a-6d6b1f0f5f10"


def _part(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def forged_tokens(api: Api) -> dict[str, tuple[str, str]]:
    """Tokens nobody should accept, with PostgREST's code for each."""
    keys = api.gateway.keys
    claims = {"role": "service_role", "exp": int(time.time()) + 3600}
    good = keys.mint(claims)
    head, payload, signature = good.split(".")
    now = int(time.time())
    rsa_like = {"alg": "RS256", "typ": "JWT"}
    deep_header = b'{"alg":"HS256","x":' + b"[" * 9_000 + b"]" * 9_000 + b"}"
    return {
        "alg none": (f"{_part({'alg': 'none', 'typ': 'JWT'})}.{_part(claims)}.", "PGRST301"),
        "alg None in capitals": (f"{_part({'alg': 'NONE'})}.{_part(claims)}.{signature}", "PGRST301"),
        "no alg": (f"{_part({'typ': 'JWT'})}.{_part(claims)}.{signature}", "PGRST301"),
        "alg that is no text": (f"{_part({'alg': ['HS256']})}.{_part(claims)}.{signature}", "PGRST301"),
        "another algorithm": (f"{_part(rsa_like)}.{_part(claims)}.{signature}", "PGRST301"),
        "HS384 with the right secret": (jwt.encode(claims, keys.jwt_secret, "HS384"), "PGRST301"),
        "wrong secret": (jwt.encode(claims, "x" * 32, "HS256"), "PGRST301"),
        "secret of zero bytes": (jwt.encode(claims, b"\0" * 32, "HS256"), "PGRST301"),
        "signature of another": (f"{head}.{_part({**claims, 'role': 'postgres'})}.{signature}", "PGRST301"),
        "no signature": (f"{head}.{payload}.", "PGRST301"),
        "two parts": (f"{head}.{payload}", "PGRST301"),
        "four parts": (f"{good}.{signature}", "PGRST301"),
        "payload that is no JSON": (f"{head}.{_part(b'hello')}.{signature}", "PGRST301"),
        "header that is no JSON": (f"{_part(b'{')}.{payload}.{signature}", "PGRST301"),
        "header nested without end": (f"{_part(b'[' * 20_000)}.{payload}.{signature}", "PGRST301"),
        "header nested in an object": (
            f"{_part(deep_header)}.{payload}.{signature}",
            "PGRST301",
        ),
        "not base64": ("@.#.~", "PGRST301"),
        "empty parts": ("..", "PGRST301"),
        "not ASCII": ("é.é.é", "PGRST301"),
        "expired": (keys.mint({**claims, "exp": now - 60}), "PGRST303"),
        "expired at the beginning of time": (keys.mint({**claims, "exp": 0}), "PGRST303"),
        "not yet valid": (keys.mint({**claims, "nbf": now + 600}), "PGRST303"),
        "issued in the future": (keys.mint({**claims, "iat": now + 600}), "PGRST303"),
        "times that are no numbers": (keys.mint({**claims, "exp": "soon"}), "PGRST303"),
        "times beyond all numbers": (keys.mint({**claims, "exp": float("inf")}), "PGRST303"),
        "a key id nobody has": (
            jwt.encode(claims, keys.jwt_secret, "HS256", headers={"kid": "x"}),
            "PGRST301",
        ),
        "a role with a zero byte": (keys.mint({**claims, "role": "service_role\0x"}), "PGRST303"),
        "a role of half a character": (keys.mint({**claims, "role": "\ud800"}), "PGRST303"),
    }


def test_forged_tokens_are_refused(api: Api) -> None:
    with httpx.Client(base_url=f"{api.gateway.api_url}/rest/v1") as client:
        for name, (token, code) in forged_tokens(api).items():
            for headers in (
                {"apikey": api.gateway.anon_key, "Authorization": f"Bearer {token}".encode()},
                {"Authorization": f"bearer  {token}".encode()},
            ):
                answer = client.get("/people", headers=headers)
                assert (answer.status_code, answer.json().get("code")) == (401, code), (name, answer.text)
                assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token"'), name
                assert len(token) < 10 or token not in answer.text, name
            # As an API key it does not even get past the gateway.
            assert client.get("/people", headers={"apikey": token.encode()}).status_code == 401, name


@pytest.mark.parametrize(
    ("role", "status", "code"),
    [
        ("postgres", 403, "42501"),
        ("supabase_admin", 403, "42501"),
        ("authenticator", 403, "42501"),
        ("none", 403, "42501"),
        ("pg_read_all_data", 403, "42501"),
        ("supabase_read_only_user", 403, "42501"),
        ("supabase_auth_admin", 403, "42501"),
        ("dashboard_user", 403, "42501"),
        ("no_such_role", 401, "22023"),
        ("SERVICE_ROLE", 401, "22023"),
        ("service_role; set role postgres", 401, "22023"),
        ("anon' or '1'='1", 401, "22023"),
        ("x" * 5000, 401, "22023"),
    ],
)
def test_a_token_cannot_take_other_roles(vault: Api, role: str, status: int, code: str) -> None:
    token = vault.gateway.keys.mint({"role": role, "exp": int(time.time()) + 60})
    for path in ("/vault", "/rpc/who", "/people"):
        answer = vault.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert MARK not in answer.text


def test_a_token_without_a_role_is_anonymous(api: Api) -> None:
    token = api.gateway.keys.mint({"exp": int(time.time()) + 60, "sub": ADA})
    headers = {"Authorization": f"Bearer {token}"}
    assert api.request("GET", "/rpc/who", headers=headers).json()["role"] == "anon"


@pytest.mark.parametrize("role", ["", 5, True, None, ["service_role"], {"service_role": 1}])
def test_a_role_that_is_no_name_is_no_role(api: Api, role: Any) -> None:
    token = api.gateway.keys.mint({"exp": int(time.time()) + 60, "role": role})
    answer = api.request("GET", "/rpc/who", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "22023"), answer.text


@pytest.mark.parametrize(
    ("claim", "value", "message"),
    [
        ("exp", "1983812996", "The JWT 'exp' claim must be a number"),
        ("nbf", True, "The JWT 'nbf' claim must be a number"),
        ("iat", [1], "The JWT 'iat' claim must be a number"),
        ("aud", 5, "The JWT 'aud' claim must be a string or an array of strings"),
        ("aud", ["a", 5], "The JWT 'aud' claim must be a string or an array of strings"),
        # To PostgREST a time with a fraction is 0.
        ("exp", 1983812996.5, "JWT expired"),
    ],
)
def test_claims_have_types(api: Api, claim: str, value: Any, message: str) -> None:
    token = api.gateway.keys.mint({"role": "anon", claim: value})
    answer = api.request("GET", "/rpc/who", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert answer.json() == {"code": "PGRST303", "message": message, "details": None, "hint": None}


def test_only_a_bearer_is_looked_at(api: Api) -> None:
    """As by PostgREST: a token without the word, and a legacy key in apikey alone, are nobody's."""
    key = api.gateway.service_role_key
    url = f"{api.gateway.api_url}/rest/v1/rpc/who"
    for headers, role in (
        ({"Authorization": f"Bearer {key}"}, "service_role"),
        ({"Authorization": f"BEARER  {key}"}, "service_role"),
        ({"Authorization": key}, "anon"),
        ({"Authorization": f"Basic {key}"}, "anon"),
        ({"apikey": key, "Authorization": key}, "anon"),
        ({"apikey": key}, "anon"),
        ({"apikey": api.gateway.secret_key}, "service_role"),
        ({"apikey": api.gateway.secret_key, "Authorization": f"Bearer {api.gateway.anon_key}"}, "anon"),
    ):
        assert httpx.get(url, headers=headers).json()["role"] == role, headers
    empty = httpx.get(url, headers={"Authorization": "Bearer"})
    assert (empty.status_code, empty.json()["code"]) == (401, "PGRST301")


def test_claims_stay_data(vault: Api) -> None:
    evil = "'; set role postgres; select line from vault; --"
    token = vault.gateway.keys.mint_user(ADA, email=evil, **{'a"b': evil, "deep": [[[[evil]]]]})
    answer = vault.request("GET", "/rpc/who", headers={"Authorization": f"Bearer {token}"})
    assert answer.json()["role"] == "authenticated"
    assert answer.json()["claims"]["email"] == evil
    # A subject that is no uuid is the policy's business, and nobody's row.
    for subject in (evil, "", "x" * 3000):
        token = vault.gateway.keys.mint_user(subject)
        answer = vault.request("GET", "/notes", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 400 or answer.json() == [], answer.text
