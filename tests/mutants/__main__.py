"""Changes one thing in the product at a time and asks the tests whether they notice. Run by hand.

    python -m tests.mutants                 all of them: an hour on two cores
    python -m tests.mutants rls             those whose name begins with this
    python -m tests.mutants --list          their names, and whether their text is still there

A mutant that no test notices has survived: a duty that could be lost without anybody knowing. The list is
`mutants.toml` beside this file; each entry names

    name    what is lost
    file    glob of the one file to change
    old     the text to replace, as it stands there, but for the amount of white space
    new     what takes its place
    tests   the tests that have to notice, as pytest takes them

The checkout is copied first; nothing is changed in it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutants.toml")
#: Seconds the tests of one mutant may take; one that makes them hang is noticed, too.
PATIENCE = 600
#: What pytest says when a test failed; anything else but 0 says that the tests did not run.
FAILED = 1


@dataclass(frozen=True)
class Mutant:
    """One change, and the tests that shall notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> tuple[Path, str]:
        """The file and what shall stand in it; raises LookupError unless the text is there exactly once."""
        # White space and line breaks may differ: formatting is not what is tested.
        wanted = re.compile(r"\s+".join(re.escape(word) for word in self.old.split()))
        found = [
            (path, match)
            for path in sorted(root.glob(self.file))
            for match in wanted.finditer(path.read_text(encoding="utf-8"))
        ]
        if len(found) != 1:
            raise LookupError(f"{self.name}: the text is {len(found)} times in {self.file}, not once")
        ((path, match),) = found
        text = path.read_text(encoding="utf-8")
        return path, text[: match.start()] + self.new + text[match.end() :]


def mutants() -> list[Mutant]:
    """The list."""
    entries = tomllib.loads(LIST.read_text(encoding="utf-8"))["mutant"]
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


def copy_of_the_checkout(target: Path) -> None:
    """Every file that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def judge(mutant: Mutant, copy: Path) -> str:
    """``killed``, ``survived``, or what kept the tests from running."""
    path, text = mutant.apply(copy)
    original = path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", *mutant.tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return "killed (the tests hang)"
    finally:
        path.write_text(original, encoding="utf-8")
    if done.returncode == FAILED:
        return "killed by " + "; ".join(re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE))
    if done.returncode == 0:
        return "survived"
    return f"cannot be judged: {(done.stdout + done.stderr)[-1500:]}"


def main() -> int:
    """Judge the mutants that were asked for; 0 when all were killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Do the tests notice?")
    parser.add_argument("names", nargs="*", metavar="NAME", help="beginnings of names; all by default")
    parser.add_argument("--list", action="store_true", help="only look whether their texts are there")
    args = parser.parse_args()
    chosen = [mutant for mutant in mutants() if not args.names or mutant.name.startswith(tuple(args.names))]
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        copy_of_the_checkout(copy)
        for mutant in chosen:
            begin = time.monotonic()
            try:
                verdict = mutant.apply(copy) and "there" if args.list else judge(mutant, copy)
            except LookupError as error:
                verdict = f"gone: {error}"
            bad += not verdict.startswith(("killed", "there"))
            print(f"{mutant.name:44} {time.monotonic() - begin:5.0f} s  {verdict}", flush=True)
    print(f"{len(chosen)} mutants, {bad} of them not killed" if not args.list else f"{bad} not there")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
