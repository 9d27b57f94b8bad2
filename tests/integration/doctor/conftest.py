"""The patient."""

from __future__ import annotations

import pytest

from reactive_worker.local.gateway import Gateway
from tests.integration.doctor.patient import Patient


@pytest.fixture
def patient(local_supabase: Gateway) -> Patient:
    return Patient(local_supabase)
