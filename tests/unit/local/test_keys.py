"""Keys become roles as the local API gateway maps them."""

from __future__ import annotations

import time

import pytest

from reactive_worker.local.keys import KeyRefusedError, Keys

USER = "8a4f4cf5-5a5c-4b0e-8d6a-6d6b1f0f5f10"
KEYS = Keys.default()


def refused(**headers: str) -> KeyRefusedError:
    with pytest.raises(KeyRefusedError) as caught:
        KEYS.identify(**headers)
    return caught.value


def test_the_legacy_keys_are_those_of_every_supabase_start() -> None:
    assert KEYS.anon_key == (
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
        "eyJpc3MiOiJzdXBhYmFzZS1kZW1vIiwicm9sZSI6ImFub24iLCJleHAiOjE5ODM4MTI5OTZ9."
        "CRXP1A7WOeoJeXxjNni43kdQwgnWNReilDMblYTn_I0"
    )
    assert KEYS.service_role_key.endswith(".EGIM96RAZx35lJzdJsyH-qQwv8Hdp7fsn3W0YpN81IU")


@pytest.mark.parametrize(
    ("headers", "role"),
    [
        ({"apikey": KEYS.anon_key}, "anon"),
        ({"apikey": KEYS.service_role_key}, "service_role"),
        ({"apikey": KEYS.publishable_key}, "anon"),
        ({"apikey": KEYS.secret_key}, "service_role"),
        # What the client libraries send: the key in both headers.
        ({"apikey": KEYS.secret_key, "authorization": f"Bearer {KEYS.secret_key}"}, "service_role"),
        ({"apikey": KEYS.anon_key, "authorization": f"Bearer {KEYS.anon_key}"}, "anon"),
        ({"authorization": f"Bearer {KEYS.publishable_key}"}, "anon"),
        ({"authorization": KEYS.service_role_key}, "service_role"),
        # A signed-in user: the token counts, whatever the key.
        (
            {"apikey": KEYS.publishable_key, "authorization": f"bearer {KEYS.mint_user(USER)}"},
            "authenticated",
        ),
        ({"apikey": KEYS.secret_key, "authorization": f"Bearer {KEYS.mint_user(USER)}"}, "authenticated"),
    ],
)
def test_which_key_is_which_role(headers: dict[str, str], role: str) -> None:
    assert KEYS.identify(**headers).role == role


def test_a_users_claims_are_kept() -> None:
    identity = KEYS.identify(authorization=f"Bearer {KEYS.mint_user(USER, email='a@example.org')}")
    assert identity.claims["sub"] == USER
    assert identity.claims["email"] == "a@example.org"


def test_a_token_without_role_is_anonymous() -> None:
    identity = KEYS.identify(authorization=f"Bearer {KEYS.mint({'sub': USER})}")
    assert identity.anonymous
    assert identity.claims["sub"] == USER


def test_refusals_say_what_is_wrong_without_the_key() -> None:
    assert refused().message == "No API key found in request"
    for wrong in ("nonsense", "sb_secret_wrong", "a.b.c"):
        error = refused(apikey=wrong)
        assert error.message == "Invalid API key"
        assert error.code is None
        assert wrong not in f"{error.message} {error.hint}"
    assert refused(authorization="Bearer nonsense").code == "PGRST301"
    other = Keys(jwt_secret="another-secret-with-at-least-32-characters")
    assert refused(authorization=f"Bearer {other.anon_key}").code == "PGRST301"


def test_times_are_checked_with_thirty_seconds_of_skew() -> None:
    assert (
        KEYS.identify(authorization=f"Bearer {KEYS.mint_user(USER, expires_in=-10)}").role == "authenticated"
    )
    expired = refused(authorization=f"Bearer {KEYS.mint_user(USER, expires_in=-60)}")
    assert (expired.code, expired.message) == ("PGRST303", "JWT expired")
    later = int(time.time()) + 60
    assert refused(authorization=f"Bearer {KEYS.mint({'nbf': later})}").message == "JWT not yet valid"
    assert refused(authorization=f"Bearer {KEYS.mint({'iat': later})}").message == "JWT issued at future"


def test_keys_do_not_show_in_a_representation() -> None:
    assert KEYS.secret_key not in repr(KEYS)
    assert KEYS.jwt_secret not in repr(KEYS)
