"""One Supabase for the whole suite, and clients that remember what was on the wire."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from supabase import Client, create_client

from reactive_worker.local.gateway import Gateway
from reactive_worker.local.postgres import Cluster
from reactive_worker.local.project import find_project
from tests.conformance.listening import Clients
from tests.conformance.target import Target, given, prepared


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Cases that need a switch of the embedded Supabase are skipped elsewhere."""
    mark = item.get_closest_marker("embedded")
    if mark is not None and given(item.config) is not None:
        pytest.skip(f"only on the embedded Supabase: {mark.args[0]}")


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Generator[Target]:
    """The Supabase under test."""
    with contextlib.ExitStack() as stack:
        settings = given(request.config)
        if settings is not None:
            yield stack.enter_context(prepared(**settings))
            return
        cluster: Cluster = request.getfixturevalue("pg_cluster")
        cluster.create_database("conformance", request.getfixturevalue("pg_template"))
        stack.callback(cluster.drop_database, "conformance")
        gateway = Gateway(project=find_project())
        stack.callback(gateway.stop)
        gateway.start(
            db_url=cluster.dsn("conformance"),
            authenticator_dsn=cluster.dsn("conformance", "authenticator"),
            admin_dsn=cluster.admin_dsn("conformance"),
        )
        yield stack.enter_context(
            prepared(
                gateway.api_url,
                gateway.service_role_key,
                gateway.anon_key,
                gateway.db_url,
                gateway.jwt_secret,
                embedded=gateway,
            )
        )


@dataclass
class World:
    """Clients of the target, and the last answer any of them got.

    Attributes
    ----------
    service, anon:
        supabase-py with the two keys.
    answers:
        What came back over HTTP, the latest last.
    """

    target: Target
    service: Client
    anon: Client
    answers: list[httpx.Response] = field(default_factory=list[httpx.Response])
    #: A case has written.
    changed: bool = False
    _users: dict[str, Client] = field(default_factory=dict[str, Client])

    def table(self, short: str) -> Any:
        """A query on one of this run's tables, with the service key."""
        return self.service.table(self.target.name(short))

    def rpc(self, short: str, arguments: Any = None, **options: Any) -> Any:
        """A call of one of this run's functions, with the service key."""
        return self.service.rpc(self.target.name(short), arguments or {}, **options)

    def user(self, user_id: str) -> Client:
        """supabase-py of a signed-in user."""
        if user_id not in self._users:
            self._users[user_id] = self.client(self.target.anon_key, self.target.user(user_id))
        return self._users[user_id]

    def client(self, key: str, token: str | None = None) -> Client:
        """Another client whose answers are remembered."""
        client = create_client(self.target.url, key)
        if token is not None:
            client.postgrest.auth(token)
        client.postgrest.session.event_hooks["response"].append(self._remember)
        return client

    def _remember(self, response: httpx.Response) -> None:
        response.read()
        self.answers.append(response)

    def close(self) -> None:
        """Close all connections."""
        for client in (self.service, self.anon, *self._users.values()):
            client.postgrest.aclose()


@pytest.fixture(scope="session")
def shared_world(target: Target) -> Generator[World]:
    """The clients of the whole run."""
    nobody: Any = None
    world = World(target, nobody, nobody)
    world.service, world.anon = world.client(target.service_key), world.client(target.anon_key)
    yield world
    world.close()


@pytest.fixture
def world(shared_world: World) -> World:
    """The clients, with nothing answered yet; the rows are those every case may count on."""
    if shared_world.changed:
        shared_world.target.refill()
        shared_world.changed = False
    shared_world.answers.clear()
    return shared_world


@pytest.fixture
def fresh(world: World) -> World:
    """The clients, for a case that writes."""
    world.changed = True
    return world


@pytest.fixture
async def clients(target: Target, fresh: World) -> AsyncGenerator[Clients]:
    """Makes clients."""
    made = Clients(target)
    if target.embedded is not None:
        # Five seconds on the real server.
        target.embedded.faults.join_refusal_delay = 0.05
    yield made
    await made.close()
    if target.embedded is not None:
        target.embedded.faults.reset()


Build = Callable[[World], Any]
