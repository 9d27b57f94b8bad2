"""The patient, who is kept from one test to the next for as long as each leaves it healthy."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from reactive_worker.local.gateway import Gateway
from reactive_worker.local.postgres import Cluster
from reactive_worker.local.project import find_project
from reactive_worker.testing.database import Database
from tests.integration.doctor.patient import Patient, bad

_numbers = itertools.count(1)


class Ward:
    """Has one patient at a time: a database and a gateway cost more than most looks at them."""

    def __init__(self, cluster: Cluster, template: str) -> None:
        self._cluster, self._template = cluster, template
        self._patient: Patient | None = None

    def patient(self) -> Patient:
        """The one there is, or a new one."""
        if self._patient is None:
            name = f"ward_{next(_numbers)}"
            self._cluster.create_database(name, self._template)
            database, gateway = Database(self._cluster, name), Gateway(project=find_project())
            gateway.start(
                db_url=database.dsn,
                authenticator_dsn=database.authenticator_dsn,
                admin_dsn=database.admin_dsn,
            )
            self._patient = Patient(gateway, database.admin_dsn)
            self._name = name
        return self._patient

    def discharge(self) -> None:
        """Whoever comes next gets a new one."""
        patient, self._patient = self._patient, None
        if patient is not None:
            patient.supabase.stop()
            self._cluster.drop_database(self._name)


@pytest.fixture(scope="module")
def ward(pg_cluster: Cluster, pg_template: str) -> Iterator[Ward]:
    ward = Ward(pg_cluster, pg_template)
    yield ward
    ward.discharge()


@pytest.fixture
async def patient(ward: Ward) -> AsyncIterator[Patient]:
    patient = ward.patient()
    yield patient
    patient.recover()
    if bad(await patient.look()):
        ward.discharge()
