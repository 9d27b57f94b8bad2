"""Folders, the page about them and the import contracts say the same; released migrations do not change."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "reactive_worker"
MIGRATIONS = ROOT / "supabase" / "migrations"
#: ``hash  file`` of every migration of a release; `python -m tests.unit.test_architecture` writes it anew.
RELEASED = ROOT / "tests" / "released_migrations.txt"


def on_disk() -> set[str]:
    """The rooms and modules of the package."""
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return (modules | rooms) - {"__init__", "__main__"}


def contract() -> dict[str, Any]:
    """The contract of the layers."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (found,) = [each for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "layers"]
    return found


def layers() -> list[set[str]]:
    """Its layers, the highest first."""
    return [set(re.split(r"\s*[|:]\s*", layer)) for layer in contract()["layers"]]


def page() -> str:
    """What docs/architecture.md says of the rooms."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return text.partition("## The rooms")[2].partition("\n## ")[0]


def test_the_contract_has_every_room_and_module_once() -> None:
    assert contract()["exhaustive"] is True
    assert set().union(*layers()) == on_disk()
    assert sum(map(len, layers())) == len(on_disk())


def test_the_table_has_every_room_and_module_once() -> None:
    cells = re.findall(r"^\| (`.*?) \|", page(), re.MULTILINE)
    named = [name.removesuffix("/") for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert sorted(named) == sorted(on_disk())
    # A room is a folder, and the table says so by a slash.
    slashed = {name for cell in cells for name in re.findall(r"`([^`/]+)/`", cell)}
    assert slashed == {name for name in on_disk() if (PACKAGE / name).is_dir()}


def test_the_picture_has_the_layers_of_the_contract() -> None:
    (picture,) = re.findall(r"^```\n(.*?)^```", page(), re.MULTILINE | re.DOTALL)
    drawn = [set(re.split(r"\s*[|,]\s*", line.strip(" └─"))) for line in picture.splitlines() if line.strip()]
    assert drawn == layers()


def hashes() -> dict[str, str]:
    """Name and SHA-256 of every migration there is."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in MIGRATIONS.glob("*.sql")}


def test_released_migrations_are_what_they_were() -> None:
    """Databases have applied them, and will not again: what is to change needs a migration of its own."""
    lines = [line.split() for line in RELEASED.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    released = {name: digest for digest, name in lines}
    now = hashes()
    assert {name: now.get(name, "gone") for name in released} == released
    added = sorted(set(now) - set(released))
    # Applied in the order of their names: what is added comes last.
    assert not released or not added or added[0] > max(released)


if __name__ == "__main__":
    head = "# Migrations of releases. When one is cut: python -m tests.unit.test_architecture\n"
    RELEASED.write_text(
        head + "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes().items())), encoding="utf-8"
    )
