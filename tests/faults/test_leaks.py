"""A link that is stopped at any moment, in any weather, leaves no socket behind."""

from __future__ import annotations

import asyncio
import gc
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import ClientConnection

from reactive_worker.store.push import link as realtime
from reactive_worker.store.push.changes import Binding, RealtimeLink
from reactive_worker.testing.proxy import FaultyProxy
from reactive_worker.testing.workers import eventually


def open_sockets() -> int:
    """Client sockets of realtime-py that nobody has closed."""
    found = [one for one in gc.get_objects() if isinstance(one, ClientConnection)]
    return sum(not one.transport.is_closing() for one in found if hasattr(one, "transport"))


@pytest.mark.parametrize("when", ["connecting", "joined", "swallowed", "saying goodbye"])
async def test_a_stopped_link_has_closed_its_socket(
    local_supabase: Any, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(realtime, "CLOSE_TIMEOUT", 0.1 if when == "swallowed" else 30.0)
    parts = urlsplit(local_supabase.api_url)
    async with FaultyProxy(str(parts.hostname), int(parts.port or 0)) as proxy:
        live = asyncio.Event()
        link = RealtimeLink(
            proxy.url,
            local_supabase.service_role_key,
            "t",
            [Binding("todolist", "INSERT")],
            on_change=lambda change: None,
            on_ready=live.set,
        )
        if when == "connecting":
            proxy.mode = "swallow"
            await link.start()
            await eventually(lambda: proxy.connections)
        else:
            await link.start()
            await live.wait()
        if when in ("swallowed", "saying goodbye"):
            proxy.mode = "swallow"
        if when == "saying goodbye":
            # The supervisor throws the client away and waits for an answer that never comes.
            link.mark_deaf("for the test")
            await eventually(lambda: link._broken is None)
        await link.stop()
        assert open_sockets() == 0
