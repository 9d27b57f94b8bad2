"""Sessions on the test's own database, in the roles of the API."""

from __future__ import annotations

import pytest

from reactive_worker.testing.database import Database
from tests.integration.sql.calling import Caller


@pytest.fixture
async def service(database: Database) -> Caller:
    """What a worker or a backend is to the database."""
    return Caller(await database.connect("service_role"))


@pytest.fixture
async def other(database: Database) -> Caller:
    """A second session like `service`, for races."""
    return Caller(await database.connect("service_role"))
