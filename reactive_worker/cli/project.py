"""`init`: a Supabase project and a first agent, in a folder of one's own or beside what is there."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from reactive_worker.cli.console import Console
from reactive_worker.cli.options import Commands, add_command
from reactive_worker.cli.starter import starters
from reactive_worker.cli.styled import Styled
from reactive_worker.errors import ConfigurationError

_DESCRIPTION = """\
Write a Supabase project (migrations, config) and a first agent into a folder.

Where the folder has a Supabase project of its own (supabase/config.toml or
supabase/seed.sql), only migrations and supabase/optional/ are written. Run it
again after an upgrade: what you changed is kept, the rest brought up to date.
"""

#: What was written, by hash: tells what the user has changed from what an older version wrote.
MANIFEST = "supabase/optional/.written-by-init.json"
#: Files of a Supabase project that are its owner's.
_OWN = ("supabase/config.toml", "supabase/seed.sql")

_START = """\
next, each in a terminal of its own{where}:
  reactive-worker dev                        a Supabase on this machine
  reactive-worker run agents:hello           your agent, in agents.py
  reactive-worker submit "hi there" --wait   a task for it
for a hosted project: supabase link, then supabase db push"""

_BESIDE = """\
config.toml and the rest of your project stay as they are. next{where}:
  supabase db push{all}
  reactive-worker run mymodule:my_agent --agent-type mine"""

State = Literal["created", "updated", "unchanged", "kept", "replaced"]
_STYLES: dict[str, str] = {"created": "green", "updated": "green", "replaced": "yellow", "kept": "yellow"}


def add(commands: Commands) -> None:
    """Register the command."""
    init = add_command(
        commands, "init", _init, "write a Supabase project and a first agent", description=_DESCRIPTION
    )
    init.add_argument("dir", metavar="DIR", nargs="?", default=".", help="where to (.)")
    init.add_argument("--force", action="store_true", help="also replace what you have changed")


@dataclass(frozen=True, slots=True)
class _File:
    """One file to write."""

    name: str
    content: bytes
    #: False: the user's from the first moment; never looked at again.
    ours: bool = True


def source_files() -> list[tuple[Path, str]]:
    """``(file, path below the project)`` of everything `init` copies: from the wheel, or the checkout."""
    package = Path(__file__).resolve().parent.parent
    for root in (package / "_project", package.parent):
        if (root / "supabase" / "migrations").is_dir() and (root / "env.example").is_file():
            return [(file, str(file.relative_to(root))) for file in sorted(_files(root))]
    raise ConfigurationError("this installation has no supabase/ folder; install reactive-worker again")


def _files(root: Path) -> Iterator[Path]:
    yield root / "env.example"
    yield from (file for name in _OWN if (file := root / name).is_file())
    yield from (root / "supabase" / "migrations").glob("*.sql")
    # Never applied by themselves: see docs/security.md.
    yield from (root / "supabase" / "optional").glob("*.sql")


def _init(args: argparse.Namespace, console: Console) -> int:
    target = Path(args.dir)
    if target.exists() and not target.is_dir():
        raise ConfigurationError(f"{target} is no directory")
    sources = {name: file.read_bytes() for file, name in source_files()}
    written = _manifest(target)
    beside = any(_is_theirs(target / name, written.get(name), sources.get(name)) for name in _OWN)
    files = _chosen(sources, beside=beside)
    states: dict[str, State] = {
        file.name: _state(file, target / file.name, written, force=args.force) for file in files
    }
    try:
        for file in files:
            if states[file.name] in ("created", "updated", "replaced"):
                (target / file.name).parent.mkdir(parents=True, exist_ok=True)
                (target / file.name).write_bytes(file.content)
        _remember(target, files, states, written)
    except OSError as error:
        raise ConfigurationError(f"cannot write {error.filename}: {error.strerror}") from None
    _say(console, target, states)
    where = "" if args.dir == "." else f", in {args.dir}"
    # The CLI refuses migrations that sort before one it has applied, unless it is told to take them.
    newer = " --include-all    (some of yours are newer)" if _are_newer(target, sources) else ""
    console.say()
    console.say((_BESIDE if beside else _START).format(where=where, all=newer))
    return 0


def _chosen(sources: Mapping[str, bytes], *, beside: bool) -> list[_File]:
    if beside:
        return [
            _File(name, content)
            for name, content in sources.items()
            if name.startswith(("supabase/migrations/", "supabase/optional/"))
        ]
    ours = [_File(name, content) for name, content in sources.items()]
    return ours + [_File(name, text.encode(), ours=False) for name, text in starters().items()]


def _is_theirs(path: Path, written: str | None, ours: bytes | None) -> bool:
    """Whether a file is there that neither this version nor an earlier `init` wrote."""
    if not path.exists():
        return False
    content = path.read_bytes() if path.is_file() else b""
    return content != ours and _hash(content) != written


def _state(file: _File, path: Path, written: Mapping[str, str], *, force: bool) -> State:
    if not path.exists():
        return "created"
    if not file.ours:
        return "unchanged"
    content = path.read_bytes() if path.is_file() else None
    if content == file.content:
        return "unchanged"
    if content is not None and _hash(content) == written.get(file.name):
        return "updated"
    return "replaced" if force and content is not None else "kept"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _manifest(target: Path) -> dict[str, str]:
    try:
        found: Any = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # not written yet, or no longer readable: then whatever differs counts as changed
    return cast("dict[str, str]", found) if isinstance(found, dict) else {}


def _remember(
    target: Path, files: list[_File], states: Mapping[str, State], written: Mapping[str, str]
) -> None:
    known = dict(written)
    for file in files:
        if file.ours and states[file.name] != "kept":
            known[file.name] = _hash(file.content)
    if known != written:
        text = json.dumps(known, indent=1, sort_keys=True) + "\n"
        (target / MANIFEST).write_text(text, encoding="utf-8")


def _are_newer(target: Path, sources: Mapping[str, bytes]) -> bool:
    """Whether the project has migrations of its own that sort behind one of ours."""
    ours = {Path(name).name for name in sources if name.startswith("supabase/migrations/")}
    theirs = {path.name for path in (target / "supabase" / "migrations").glob("*.sql")} - ours
    return any(name > min(ours) for name in theirs if name.partition("_")[0].isdigit())


def _say(console: Console, target: Path, states: Mapping[str, State]) -> None:
    for name, state in states.items():
        console.emit({"file": str(target / name), "result": state})
    told: dict[str, list[str]] = {}
    for name, state in states.items():
        # Fourteen migrations are one line: who wants to see them looks into the folder.
        many = name.startswith(("supabase/migrations/", "supabase/optional/")) and state != "kept"
        told.setdefault(f"{state}\n{Path(name).parent}/" if many else f"{state}\n{name}", []).append(name)
    for head, names in told.items():
        state, _, shown = head.partition("\n")
        more = f"  ({len(names)} files)" if shown.endswith("/") else ""
        why = "  (you have changed it; --force takes the new one)" if state == "kept" else ""
        console.say(Styled(_STYLES.get(state, "dim"), f"{state:<10}"), f" {target / shown}{more}{why}")
