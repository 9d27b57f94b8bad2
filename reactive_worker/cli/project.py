"""`init`: the Supabase project (migrations, seed, config) and env.example, copied into a user's folder."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from reactive_worker.cli.console import Console
from reactive_worker.cli.options import Commands, add_command
from reactive_worker.cli.styled import Styled
from reactive_worker.errors import ConfigurationError

_NEXT = """\
next:
  reactive-worker dev                    a local Supabase with these tables, no Docker (or: supabase start)
  cp env.example .env                    then fill in SUPABASE_URL and the key
  supabase link && supabase db push      for a hosted project
  reactive-worker run mymodule:MyExecutor --agent-type mine\
"""


def add(commands: Commands) -> None:
    """Register the command."""
    init = add_command(commands, "init", _init, "copy supabase/ and env.example into your project")
    init.add_argument("dir", metavar="DIR", nargs="?", default=".", help="where to (.)")
    init.add_argument("--force", action="store_true", help="overwrite files that are there and differ")


def source_files() -> list[tuple[Path, str]]:
    """``(file, path below the project)`` of everything `init` copies: from the wheel, or the checkout."""
    package = Path(__file__).resolve().parent.parent
    for root in (package / "_project", package.parent):
        if (root / "supabase" / "migrations").is_dir() and (root / "env.example").is_file():
            return [(file, str(file.relative_to(root))) for file in sorted(_files(root))]
    raise ConfigurationError("this installation has no supabase/ folder; install reactive-worker again")


def _files(root: Path) -> Iterator[Path]:
    yield root / "env.example"
    supabase = root / "supabase"
    yield from (file for file in (supabase / "config.toml", supabase / "seed.sql") if file.is_file())
    yield from (supabase / "migrations").glob("*.sql")
    # Never applied by themselves: see docs/security.md.
    yield from (supabase / "optional").glob("*.sql")


def _init(args: argparse.Namespace, console: Console) -> int:
    target = Path(args.dir)
    files = source_files()
    if target.exists() and not target.is_dir():
        raise ConfigurationError(f"{target} is no directory")
    # Looked at before the first copy: half a project is worse than none.
    states = {name: _state(file, target / name) for file, name in files}
    changed = [name for name, state in states.items() if state == "differs"]
    if changed and not args.force:
        raise ConfigurationError(
            f"{target / changed[0]} is there already and differs"
            + (f" (and {len(changed) - 1} more)" if len(changed) > 1 else "")
            + "; nothing was written. --force overwrites"
        )
    try:
        for file, name in files:
            if states[name] != "same":
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / name)
    except OSError as error:
        raise ConfigurationError(f"cannot write {error.filename}: {error.strerror}") from None
    for _, name in files:
        done = {"new": "created", "differs": "replaced", "same": "unchanged"}[states[name]]
        console.emit({"file": str(target / name), "result": done})
        console.say(Styled("green" if done == "created" else "dim", f"{done:<10}"), f" {target / name}")
    console.say()
    console.say(_NEXT)
    return 0


def _state(file: Path, target: Path) -> str:
    if not target.exists():
        return "new"
    return "same" if target.is_file() and target.read_bytes() == file.read_bytes() else "differs"
