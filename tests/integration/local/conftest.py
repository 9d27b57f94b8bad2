"""One gateway for a module of REST tests, and fresh rows for each test."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from reactive_worker.local.gateway import Gateway
from reactive_worker.local.postgres import Cluster
from reactive_worker.local.project import find_project
from tests.integration.local.attacks import MARK

_ROWS = """
truncate people, notes, log, "Odd ""Table" restart identity;
insert into people (name, age, tags, data, email, mood, born, score) values
  ('Ada', 36, '{math,code}', '{"lang": {"first": "en"}, "n": [1, 2]}', 'ada@x', 'happy', '1815-12-10', 9.50),
  ('Bob', 17, '{code}', '{"lang": {"first": "de"}}', 'bob@x', 'ok', null, null),
  ('Cy, "C"', null, null, null, null, 'sad', null, 1),
  ('dora', 52, '{}', '{}', 'dora@x', null, null, 2);
"""

_numbers = itertools.count(1)


class Api:
    """A gateway with the schema of these tests, as a client sees it.

    Attributes
    ----------
    gateway:
        Keys, URL and fault switches.
    connection:
        A session of the tables' owner, past the API.
    """

    def __init__(self, gateway: Gateway, connection: psycopg.Connection[Any]) -> None:
        self.gateway = gateway
        self.connection = connection
        self._http = httpx.Client(base_url=f"{gateway.api_url}/rest/v1", timeout=20)

    def request(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> httpx.Response:
        """One request, with the service key unless another is given."""
        all_headers = {"apikey": key or self.gateway.secret_key, **(headers or {})}
        return self._http.request(method, path, headers=all_headers, **options)

    def get(self, path: str, prefer: str = "", **options: Any) -> httpx.Response:
        """GET, with a Prefer header if one is given."""
        return self.request("GET", path, headers={"Prefer": prefer} if prefer else None, **options)

    def post(self, path: str, json: Any = None, prefer: str = "", **options: Any) -> httpx.Response:
        """POST of JSON."""
        headers = {"Prefer": prefer} if prefer else None
        return self.request("POST", path, headers=headers, json=json, **options)

    def rpc(self, name: str, /, **arguments: Any) -> httpx.Response:
        """Call a function."""
        return self.post(f"/rpc/{name}", arguments)

    def user(self, user_id: str, **claims: Any) -> dict[str, str]:
        """Headers of a signed-in user."""
        token = self.gateway.keys.mint_user(user_id, **claims)
        return {"apikey": self.gateway.publishable_key, "Authorization": f"Bearer {token}"}

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What is really in the database."""
        return self.connection.execute(sql.encode()).fetchall()

    def close(self) -> None:
        """Close the client's connections."""
        self._http.close()


@pytest.fixture(scope="module")
def module_api(pg_cluster: Cluster, pg_template: str) -> Generator[Api]:
    """The gateway of a module."""
    name = f"rest_{next(_numbers)}"
    pg_cluster.create_database(name, pg_template)
    with contextlib.ExitStack() as stack:
        stack.callback(pg_cluster.drop_database, name)
        connection = stack.enter_context(psycopg.connect(pg_cluster.dsn(name), autocommit=True))
        connection.execute(Path(__file__).with_name("schema.sql").read_bytes())
        gateway = Gateway(project=find_project())
        stack.callback(gateway.stop)
        gateway.start(
            db_url=pg_cluster.dsn(name),
            authenticator_dsn=pg_cluster.dsn(name, "authenticator"),
            admin_dsn=pg_cluster.admin_dsn(name),
        )
        api = Api(gateway, connection)
        stack.callback(api.close)
        yield api


@pytest.fixture
def api(module_api: Api) -> Generator[Api]:
    """The module's gateway, with fresh rows."""
    module_api.connection.execute(_ROWS.encode())
    yield module_api
    module_api.gateway.faults.reset()


@pytest.fixture
def vault(api: Api) -> Generator[Api]:
    """The API with a table that no request of these tests names honestly."""
    api.connection.execute(
        "create table if not exists vault (line text); truncate vault;"
        f"insert into vault values ('{MARK}'); grant all on vault to service_role"
    )
    yield api
    api.connection.execute("drop table if exists vault")
