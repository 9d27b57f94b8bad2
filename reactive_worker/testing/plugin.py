"""Pytest fixtures: a real PostgreSQL, a database per test, and a Supabase in front of it.

Loaded by pytest by itself (entry point). Nothing is imported or started until a test asks for a fixture.

=================  ========  ==================================================================
fixture            scope     gives
=================  ========  ==================================================================
pg_cluster         session   a running PostgreSQL server (`Cluster`)
pg_template        session   name of a database with all migrations, copied for each test
database           function  `Database`: a copy of the template, dropped after the test
local_supabase     function  `Gateway`: REST and Realtime on the test's own database
=================  ========  ==================================================================

``REACTIVE_WORKER_PG_BIN`` names the folder of another PostgreSQL than the one from the wheel.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from reactive_worker.local.gateway import Gateway
    from reactive_worker.local.postgres import Cluster
    from reactive_worker.testing.database import Database

_numbers = itertools.count(1)


def _need_extra() -> None:
    try:
        importlib.import_module("reactive_worker.local")
    except ImportError as error:
        pytest.fail(f"{error} (a test asked for a database fixture)", pytrace=False)


@pytest.fixture(scope="session")
def pg_cluster() -> Generator[Cluster]:
    """A running PostgreSQL server, shared by the whole test session."""
    _need_extra()
    from reactive_worker.local.postgres import Cluster

    pg_bin = os.environ.get("REACTIVE_WORKER_PG_BIN")
    with Cluster(pg_bin=Path(pg_bin) if pg_bin else None) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def pg_template(pg_cluster: Cluster) -> str:
    """Name of a database with all migrations applied and no rows; do not connect to it."""
    from reactive_worker.local.migrations import migrate
    from reactive_worker.local.project import find_project

    name = "reactive_worker_template"
    pg_cluster.create_database(name)
    migrate(pg_cluster.dsn(name), find_project(), seed=False)
    return name


@pytest.fixture
def database(pg_cluster: Cluster, pg_template: str) -> Generator[Database]:
    """A migrated, empty database of this test's own."""
    from reactive_worker.testing.database import Database

    name = f"test_{next(_numbers)}"
    pg_cluster.create_database(name, pg_template)
    database = Database(pg_cluster, name)
    try:
        yield database
    finally:
        database.close()
        pg_cluster.drop_database(name)


@pytest.fixture
def local_supabase(database: Database) -> Generator[Gateway]:
    """REST and Realtime on this test's own database, with `api_url`, `db_url`, the keys and `faults`.

    It serves in a thread of its own, so a test may block its event loop.
    """
    from reactive_worker.local.gateway import Gateway
    from reactive_worker.local.project import find_project

    gateway = Gateway(project=find_project())
    try:
        gateway.start(
            db_url=database.dsn,
            authenticator_dsn=database.authenticator_dsn,
            admin_dsn=database.admin_dsn,
        )
        yield gateway
    finally:
        gateway.stop()
