"""What the attacks on the REST API share."""

from __future__ import annotations

import httpx

#: Lies in a table that no request of the attacks names honestly.
MARK = "do-not-tell"


def error_shape(answer: httpx.Response) -> None:
    """An error of the REST API: its status is the client's fault, its body has four keys."""
    # Limits of PostgreSQL that a statement exceeds are 500 in PostgREST, too.
    exceeded = answer.status_code == 500 and answer.json()["code"].startswith("54")
    assert 400 <= answer.status_code < 500 or exceeded, (answer.status_code, answer.text)
    assert set(answer.json()) == {"code", "message", "details", "hint"}, answer.text
    assert answer.headers["proxy-status"] == f"PostgREST; error={answer.json()['code']}"
