"""supabase-js on Node.js, for the tests that let it judge."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

#: Read here, before each test starts with an environment of its own.
_PREPARED = os.environ.get("REACTIVE_WORKER_NODE_MODULES", "")
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reactive-worker" / "js"
#: `ws` is the WebSocket of Node before version 22.
_PACKAGES = ("@supabase/supabase-js@2.119.1", "ws@8")


def _complete(folder: Path) -> bool:
    return all((folder / "node_modules" / name.rsplit("@", 1)[0]).is_dir() for name in _PACKAGES)


def folder_with_supabase_js() -> Path:
    """A folder whose ``node_modules`` has supabase-js; installed once, outside the checkout.

    Skips the test where that cannot be had.
    """
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
