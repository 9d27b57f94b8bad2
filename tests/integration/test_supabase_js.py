"""The official JavaScript client as judge: supabase-js on Node, which speaks protocol 2.0.0."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reactive_worker.local.gateway import Gateway

pytestmark = pytest.mark.node


def _run(folder: Path, gateway: Gateway) -> list[dict[str, Any]]:
    script = Path(__file__).parent / "js" / "client.mjs"
    done = subprocess.run(
        ["node", str(script), str(folder), gateway.api_url, gateway.service_role_key],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_supabase_js_reads_writes_calls_and_hears(supabase_js: Path, local_supabase: Gateway) -> None:
    steps = _run(supabase_js, local_supabase)
    said = {step["step"]: step for step in steps}
    assert said["insert"] == {"step": "insert", "status": 201, "error": None, "prompt": "first"}
    assert (said["select"]["error"], said["select"]["count"], said["select"]["rows"]) == (None, 1, 1)
    assert said["select"]["data"] == {"n": [1, 2.5, None]}
    assert said["rpc"]["error"] is None
    assert isinstance(said["rpc"]["data"], int)
    assert said["missing"] == {"step": "missing", "status": 404, "code": "PGRST205"}
    assert said["endpoint"]["vsn"] == "2.0.0"
    assert [step["status"] for step in steps if step["step"] == "status"] == ["SUBSCRIBED", "CLOSED"]
    assert said["system"]["message"] == "Subscribed to PostgreSQL"
    change = {"step": "change", "type": "INSERT", "prompt": "second", "errors": None, "table": "todolist"}
    assert said["change"] == change
    assert said["sent"]["answer"] == "ok"
    assert said["broadcast"]["payload"] == {"queue": "mail"}
    assert said["tracked"]["answer"] == "ok"
    assert said["presence"]["key"] == "w1"
    assert said["removed"]["answer"] == "ok"
