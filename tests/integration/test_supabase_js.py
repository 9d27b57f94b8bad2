"""The official JavaScript client as judge: supabase-js on Node, which speaks protocol 2.0.0."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reactive_worker.local.gateway import Gateway

#: Read here, before each test starts with an environment of its own.
_PREPARED = os.environ.get("REACTIVE_WORKER_NODE_MODULES", "")
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reactive-worker" / "js"
#: `ws` is the WebSocket of Node before version 22.
_PACKAGES = ("@supabase/supabase-js@2.119.1", "ws@8")

pytestmark = pytest.mark.node


def _complete(folder: Path) -> bool:
    return all((folder / "node_modules" / name.rsplit("@", 1)[0]).is_dir() for name in _PACKAGES)


@pytest.fixture(scope="module")
def node_folder() -> Path:
    """A folder whose ``node_modules`` has supabase-js; installed once, outside the checkout."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node.js with npm is not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < 20:
        pytest.skip(f"supabase-js needs Node.js 20 or newer, this is {version}")
    if _PREPARED and _complete(prepared := Path(_PREPARED).parent):
        return prepared
    if not _complete(_CACHE):
        _CACHE.mkdir(parents=True, exist_ok=True)
        (_CACHE / "package.json").write_text('{"private": true}\n')
        command = [npm, "install", "--prefix", str(_CACHE), "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run([*command, *_PACKAGES], capture_output=True, text=True, check=False, timeout=90)
        if done.returncode != 0 or not _complete(_CACHE):
            pytest.skip(f"npm cannot install supabase-js: {done.stderr.strip()[-300:]}")
    return _CACHE


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


def test_supabase_js_reads_writes_calls_and_hears(node_folder: Path, local_supabase: Gateway) -> None:
    steps = _run(node_folder, local_supabase)
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
