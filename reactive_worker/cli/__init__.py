"""`reactive-worker ...`: the command line.

One module a command group. Nothing heavy is imported before a command runs: `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (see the end of `reactive-worker --help`).

    Parameters
    ----------
    argv:
        Arguments without the program's name; by default those of the process.
    """
    try:
        from reactive_worker.cli.app import run

        return run(argv)
    except KeyboardInterrupt:
        # Also while modules are imported, which takes a second where many are: no traceback, one exit code.
        return 130
