"""Pages of the web that a browser on this machine shows: published keys must not let them in."""

from __future__ import annotations

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.integration.local.conftest import Api

PATHS = (
    "/rest/v1/people",
    "/storage/v1/bucket",
    "/realtime/v1/api/broadcast",
    "/auth/v1/user",
    "/_local/faults",
)


@pytest.mark.parametrize("path", PATHS)
def test_a_name_that_was_made_to_lead_here(api: Api, path: str) -> None:
    """DNS rebinding: for the browser it is the page's own origin."""
    headers = {"apikey": api.gateway.secret_key, "Host": f"evil.example:{api.gateway.api_url[-5:]}"}
    answer = httpx.get(f"{api.gateway.api_url}{path}", headers=headers)
    assert answer.status_code == 403
    assert "Host" in answer.json()["message"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_a_page_of_another_origin(api: Api, path: str, origin: str) -> None:
    url, headers = f"{api.gateway.api_url}{path}", {"apikey": api.gateway.secret_key, "Origin": origin}
    # A form needs no preflight, and nobody has to read its answer.
    for method in ("GET", "POST", "OPTIONS"):
        answer = httpx.request(method, url, headers=headers, content=b"{}" if method == "POST" else None)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


async def test_sockets_of_other_origins(api: Api) -> None:
    path = f"/realtime/v1/websocket?apikey={api.gateway.anon_key}"
    url = f"{api.gateway.api_url.replace('http', 'ws')}{path}"
    port = int(api.gateway.api_url.rsplit(":", 1)[1])
    for refused in (
        connect(url, additional_headers={"Origin": "https://evil.example"}),
        connect(f"ws://evil.example:{port}{path}", host="127.0.0.1", port=port),
    ):
        with pytest.raises(InvalidStatus) as caught:
            async with refused:
                pass
        assert caught.value.response.status_code == 403
    async with connect(url, additional_headers={"Origin": "http://localhost:3000"}):
        pass


def test_a_form_cannot_set_faults(api: Api) -> None:
    """A form can name a key in its address, and send JSON as plain text; it cannot send a header."""
    url = f"{api.gateway.api_url}/_local/faults?apikey={api.gateway.secret_key}"
    answer = httpx.post(url, content=b'{"deaf": true}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 401
    assert not api.gateway.faults.deaf
