"""Tokens: what is signed, with which key, and what a token says about itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from jwt.algorithms import ECAlgorithm

from reactive_worker.access.tokens import LOCAL_JWT_SECRET, mint_token, read_token
from reactive_worker.errors import ConfigurationError
from reactive_worker.local.keys import JWT_SECRET, Keys

SECRET = "a-secret-with-at-least-thirty-two-bytes"
NOW = 1_800_000_000.0


def signing_key() -> dict[str, Any]:
    """A private key as `supabase gen signing-key` writes it."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    key = json.loads(ECAlgorithm.to_jwk(generate_private_key(SECP256R1())))
    return {**key, "kid": "key-1", "alg": "ES256", "use": "sig"}


def test_a_worker_token_holds_role_and_life() -> None:
    token = mint_token(SECRET, expires_in=60, now=NOW)
    claims = jwt.decode(
        token, SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False}
    )
    assert claims == {
        "iss": "reactive-worker",
        "role": "reactive_worker",
        "iat": 1_800_000_000,
        "exp": 1_800_000_060,
    }
    facts = read_token(token)
    assert facts is not None
    assert facts.expires_at == datetime(2027, 1, 15, 8, 1, tzinfo=UTC)
    assert str(facts) == "a token for role reactive_worker, valid until 2027-01-15 08:01:00 UTC"


def test_the_local_secret_is_the_one_of_every_local_supabase() -> None:
    assert LOCAL_JWT_SECRET == JWT_SECRET
    token = mint_token(LOCAL_JWT_SECRET, expires_in=60, role="authenticated", subject="ann")
    identity = Keys.default().identify(authorization=f"Bearer {token}")
    assert (identity.role, identity.claims["sub"]) == ("authenticated", "ann")


@pytest.mark.parametrize("wrap", [json.dumps, lambda key: json.dumps([key])])
def test_an_asymmetric_signing_key_signs_with_its_id(wrap: Any) -> None:
    key = signing_key()
    token = mint_token(wrap(key), expires_in=60)
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "JWT", "kid": "key-1"}
    public = jwt.PyJWK.from_dict({name: value for name, value in key.items() if name != "d"})
    assert jwt.decode(token, public.key, algorithms=["ES256"])["role"] == "reactive_worker"


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("short", "at least 32 bytes, this one has 5"),
        ("{not json", "is none: copy it again"),
        ("[]", "must be a JSON Web Key"),
        ('{"kty": "EC", "x": "AAAA"}', "this is a public key"),
        ('{"kty": "EC", "d": "c2VjcmV0"}', "no JSON Web Key that can be used"),
    ],
)
def test_what_cannot_sign_is_named_and_not_quoted(secret: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        mint_token(secret, expires_in=60)
    assert words in str(caught.value)
    assert caught.value.__cause__ is None
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize("options", [{"role": ""}, {"role": "a\nb"}, {"expires_in": 0}, {"expires_in": 1e12}])
def test_role_and_life_must_make_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        mint_token(SECRET, **{"expires_in": 60, **options})


@pytest.mark.parametrize("text", ["", "sb_secret_x", "a.b.c", "eyJhbGciOiJIUzI1NiJ9.W10.x"])
def test_other_keys_say_nothing(text: str) -> None:
    assert read_token(text) is None
