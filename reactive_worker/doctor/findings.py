"""What a check found, and what mends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warn", "fail"]
Kind = Literal["", "sql", "shell", "setting"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Parameters
    ----------
    name:
        What was looked at, for example ``publication``; the same in every version, for scripts.
    level:
        ``ok``; ``warn``: it works, less well or less safely than it should; ``fail``: something does not.
    what:
        What was found, in words.
    mend:
        What mends it, ready to be used; empty when all is well.
    kind:
        What `mend` is: statements for the SQL editor or psql, a command for the shell, or something to set.

    Example
    -------
    >>> Finding("reach", "ok", "http://127.0.0.1:54321 answers").as_json()["level"]
    'ok'
    """

    name: str
    level: Level
    what: str
    mend: str = ""
    kind: Kind = ""

    def as_json(self) -> dict[str, Any]:
        """All fields, for ``--json``."""
        return asdict(self)


#: Nothing answers at the URL.
EXIT_UNREACHABLE = 3


def exit_code(findings: Iterable[Finding]) -> int:
    """0: nothing fails; 1: something does; 3: Supabase cannot be reached, so that nothing else is known.

    >>> exit_code([Finding("clock", "warn", "5 s ahead")])
    0
    """
    failed = {finding.name for finding in findings if finding.level == "fail"}
    if "reach" in failed:
        return EXIT_UNREACHABLE
    return 1 if failed else 0
