"""Tokens that expire: a renewed one is used at once, also by Realtime; an expired one is called expired."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from supabase import AsyncClient, AsyncClientOptions

from reactive_worker.access.credentials import Credentials, TokenFile
from reactive_worker.access.tokens import mint_token
from reactive_worker.client.tasks import TaskClient
from reactive_worker.errors import PermissionDeniedError, TokenExpiredError
from reactive_worker.store.connection import Connection
from reactive_worker.store.push import link as realtime
from reactive_worker.store.push.changes import Binding, Change, RealtimeLink
from reactive_worker.testing.workers import eventually, running_worker
from tests.integration.security.people import ANN
from tests.support import query

#: PostgREST forgives half a minute.
LONG_AGO = -100


class SignIn(httpx.AsyncHTTPTransport):
    """The auth server, as far as a session needs it; everything else goes to the embedded Supabase."""

    def __init__(self, supabase: Any) -> None:
        super().__init__()
        self._keys = supabase.keys
        self.life = 3600
        self.refreshed = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not request.url.path.startswith("/auth/v1/"):
            return await super().handle_async_request(request)
        user = {
            "id": ANN,
            "aud": "authenticated",
            "app_metadata": {},
            "user_metadata": {},
            "created_at": "2026-01-01T00:00:00Z",
        }
        if request.url.path.endswith("/user"):
            return httpx.Response(200, json=user, request=request)
        self.refreshed += 1
        session = {
            "access_token": self._keys.mint_user(ANN, expires_in=self.life, n=self.refreshed),
            "refresh_token": f"refresh-{self.refreshed}",
            "token_type": "bearer",
            "expires_in": self.life,
            "expires_at": int(time.time()) + self.life,
            "user": user,
        }
        return httpx.Response(200, json=session, request=request)


class Waits(AgentExecutor):
    """Ends when it is told to."""

    def __init__(self, release: asyncio.Event) -> None:
        self._release = release

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        await self._release.wait()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


@pytest.fixture
async def ann(local_supabase: Any) -> AsyncIterator[tuple[AsyncClient, SignIn]]:
    """Ann's own supabase client, signed in, which nobody refreshes in the background."""
    server = SignIn(local_supabase)
    async with httpx.AsyncClient(transport=server) as http:
        options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False)
        supabase = AsyncClient(local_supabase.api_url, local_supabase.publishable_key, options)
        yield supabase, server
        if supabase._background_tasks:
            await asyncio.wait(supabase._background_tasks)


async def sign_in(client: AsyncClient, server: SignIn, life: int) -> None:
    server.life = life
    # A token that has expired makes the client ask for another at once.
    await client.auth.set_session(server._keys.mint_user(ANN, expires_in=LONG_AGO), "refresh-0")


async def test_a_session_that_ended_in_the_clients_sleep_is_renewed_by_the_next_call(
    local_supabase: Any, ann: tuple[AsyncClient, SignIn]
) -> None:
    supabase, server = ann
    await sign_in(supabase, server, LONG_AGO)
    server.life = 3600
    async with TaskClient(supabase) as client:
        id = await client.submit_task("test", "hello")
        assert server.refreshed == 2
        assert (await client.get_task(id)).owner_id == ANN
        assert server.refreshed == 2
        # One that cannot be renewed is named.
        await sign_in(supabase, server, LONG_AGO)
        with pytest.raises(TokenExpiredError, match=r"role authenticated, valid until .* sign in again"):
            await client.get_task(id)


async def test_followers_and_waits_go_on_with_the_renewed_session(
    local_supabase: Any, ann: tuple[AsyncClient, SignIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Realtime forgives nothing: a channel ends with its token, unless it is told the new one."""
    monkeypatch.setattr(realtime, "WATCH_INTERVAL", 0.05)
    supabase, server = ann
    await sign_in(supabase, server, 2)
    expiry = time.time() + 2
    heard: list[Change] = []
    readies: list[bool] = []
    connection = Connection(supabase)
    link = RealtimeLink(
        local_supabase.api_url,
        connection.credentials,
        "tasks",
        [Binding("todolist", "INSERT")],
        on_change=heard.append,
        on_ready=lambda: readies.append(True),
    )
    await link.start()
    async with TaskClient(supabase) as client:
        try:
            await eventually(lambda: link.is_live)
            task = await client.submit_task("test", "one")
            await eventually(lambda: len(heard) == 1)
            waiting = asyncio.create_task(client.wait_for_completion(task, timeout=30))
            async with aclosing(client.stream_events(task)) as stream:
                following = asyncio.ensure_future(anext(stream))
                server.life = 3600
                await supabase.auth.refresh_session()
                await eventually(lambda: len(readies) >= 2, what="subscribed anew, and told to catch up")
                await eventually(lambda: time.time() > expiry + 0.2, what="the first token has expired")
                other = await client.submit_task("test", "two")
                await eventually(lambda: len(heard) == 2)
                assert heard[1].record["id"] == other
                assert link.subscriptions == 1, "the channel has lived through it"
                await client.cancel_task(task)
                assert (await following).event_type == "task_cancelled"
            assert (await waiting).agent_status == "cancelled"
        finally:
            await link.stop()


async def test_a_workers_token_is_renewed_in_its_file(local_supabase: Any, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(mint_token(local_supabase.jwt_secret, expires_in=1, now=time.time() - 1000))
    credentials = Credentials(local_supabase.publishable_key, TokenFile(path))
    connection = await Connection.open(local_supabase.api_url, credentials)
    try:
        with pytest.raises(
            TokenExpiredError, match=r"reactive-worker token mint.*SUPABASE_WORKER_TOKEN_FILE"
        ):
            await connection.rpc("push_ways", {})
        path.write_text(mint_token(local_supabase.jwt_secret, expires_in=60))
        await connection.rpc("push_ways", {})
        with pytest.raises(PermissionDeniedError, match="may not do this"):
            await connection.rpc("todo_stats", {})
    finally:
        await connection.aclose()


async def test_a_worker_whose_token_has_expired_says_so_at_its_start(local_supabase: Any) -> None:
    settings = {
        "key": local_supabase.publishable_key,
        "worker_token": mint_token(local_supabase.jwt_secret, expires_in=1, now=time.time() - 1000),
    }
    with pytest.raises(TokenExpiredError, match="make a new one with `reactive-worker token mint`"):
        async with running_worker(
            local_supabase, executors={"test": Waits(asyncio.Event())}, settings=settings
        ):
            pass
    assert await query(local_supabase.db_url, "select 1 from workers") == []


async def test_a_worker_whose_token_expires_meanwhile_loses_no_result(
    local_supabase: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says what to do, keeps the result, and delivers it once the file holds another token."""
    path = tmp_path / "token"
    path.write_text(mint_token(local_supabase.jwt_secret, expires_in=3600))
    release = asyncio.Event()
    settings = {"key": local_supabase.publishable_key, "worker_token_file": str(path), "heartbeat": 0.2}
    async with (
        TaskClient.from_settings(url=local_supabase.api_url, key=local_supabase.secret_key) as client,
        running_worker(local_supabase, executors={"test": Waits(release)}, settings=settings) as worker,
    ):
        id = await client.submit_task("test", "precious")
        await eventually(lambda: worker.running)
        assert "renew it soon" in caplog.text, "an hour is soon"
        path.write_text(mint_token(local_supabase.jwt_secret, expires_in=1, now=time.time() - 1000))
        release.set()
        await eventually(lambda: "heartbeat refused" in caplog.text)
        await eventually(lambda: "events are not stored yet" in caplog.text)
        assert "SUPABASE_WORKER_TOKEN_FILE" in caplog.text
        path.write_text(mint_token(local_supabase.jwt_secret, expires_in=3600))
        todo = await client.wait_for_completion(id, timeout=20)
        assert (todo.agent_status, todo.attempt) == ("completed", 1)
