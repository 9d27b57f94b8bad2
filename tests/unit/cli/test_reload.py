"""What `run --reload` looks at."""

from __future__ import annotations

import os
from pathlib import Path

from reactive_worker.cli.reload import difference, snapshot


def test_python_files_and_env_are_watched_but_no_environments(tmp_path: Path) -> None:
    for name in ("a.py", "pkg/b.py", ".env", "venv/pyvenv.cfg", "venv/lib/c.py", ".hidden/d.py", "note.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    before = snapshot(tmp_path)
    assert set(before) == {"a.py", "pkg/b.py", ".env"}
    assert difference(before, snapshot(tmp_path)) == ""
    os.utime(tmp_path / "pkg" / "b.py", (1, 1))
    assert difference(before, snapshot(tmp_path)) == "pkg/b.py"
    (tmp_path / "a.py").unlink()
    assert difference(before, snapshot(tmp_path)) == "a.py"
