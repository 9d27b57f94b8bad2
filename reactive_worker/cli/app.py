"""The parser of all commands, and the one place where an exception becomes an exit code."""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from reactive_worker import __version__
from reactive_worker.access.redaction import redact
from reactive_worker.cli import (
    acts,
    artifact,
    completion,
    demo,
    dev,
    doctor,
    events,
    monitor,
    project,
    run_worker,
    submit,
    tasks,
    tokens,
    wait,
    watch,
    workers,
)
from reactive_worker.cli.console import Console
from reactive_worker.cli.options import Handler, Help, add_common
from reactive_worker.errors import ReactiveWorkerError

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_DESCRIPTION = "Runs A2A agents on rows of a Supabase table: Realtime tells, a sweep makes sure."

_EPILOG = """\
exit codes:
  0    ok
  1    the task or the worker failed
  2    wrong usage or configuration
  3    Supabase refused or cannot be reached
  4    the worker stopped because one of its own duties died
  130  ended by Ctrl-C (`dev`: 0, that is how it ends)

Settings come from options, then the environment, then .env; `reactive-worker init` writes an env.example
that lists them all. With --json every line on standard output is one JSON value.
"""


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Write the error and end with code 2."""
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of `reactive-worker` with all its commands."""
    parser = _Parser(
        prog="reactive-worker",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=Help,
    )
    parser.add_argument("--version", action="version", version=f"reactive-worker {__version__}")
    add_common(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in (
        project,
        dev,
        demo,
        run_worker,
        submit,
        tasks,
        acts,
        wait,
        artifact,
        events,
        monitor,
        watch,
        workers,
        tokens,
        doctor,
        completion,
    ):
        group.add(commands)
    return parser


def run(argv: Sequence[str] | None = None) -> int:
    """Parse, run the command, and turn whatever it raises into one line and an exit code."""
    parser = build_parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    # What `run --reload` starts again, and what `completion` describes.
    args.argv, args.parser = [*(sys.argv[1:] if argv is None else argv)], parser
    # Called by a program, the process is not ours to end.
    args.owns_process = argv is None
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its number; that must not end a command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    console = Console(json_output=bool(getattr(args, "json", False)))
    debug = str(getattr(args, "log_level", None) or os.environ.get("LOG_LEVEL", "")).upper() == "DEBUG"
    handler: Handler = args.handler
    try:
        return handler(args, console)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `reactive-worker tasks | head`: the reader has seen enough. Python would complain at exit otherwise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ReactiveWorkerError as error:
        _explain(console, error, str(error), debug=debug)
        return error.exit_code
    except TimeoutError as error:
        _explain(console, error, str(error) or "timed out", debug=debug)
        return EXIT_FAILURE
    except Exception as error:  # noqa: BLE001 - the last line of defence: a person gets a line, not a trace
        hint = "" if debug else " (--log-level DEBUG shows the traceback)"
        _explain(console, error, f"{type(error).__name__}: {error}{hint}", debug=debug)
        return EXIT_FAILURE


def _explain(console: Console, error: BaseException, message: str, *, debug: bool) -> None:
    if debug:
        sys.stderr.write(redact("".join(traceback.format_exception(error))))
    console.error(message)
