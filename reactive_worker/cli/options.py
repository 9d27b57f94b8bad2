"""Options several commands share, and how they become Settings and logging."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reactive_worker.cli.console import Console

if TYPE_CHECKING:
    from reactive_worker.settings import Settings

Handler = Callable[[argparse.Namespace, Console], int]
Commands = Any
"""What `add_subparsers` returns; argparse does not name the type."""

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def add_common(parser: argparse.ArgumentParser) -> None:
    """`--json` and `--log-level`, before or after the command."""
    # SUPPRESS: the subparser's default must not undo what was given before the command.
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON lines, for scripts"
    )
    parser.add_argument(
        "--log-level",
        type=str.upper,
        choices=LOG_LEVELS,
        default=argparse.SUPPRESS,
        metavar="LEVEL",
        help=f"{', '.join(LOG_LEVELS)}; DEBUG also shows tracebacks",
    )


def add_command(
    commands: Commands, name: str, handler: Handler, help: str, **more: Any
) -> argparse.ArgumentParser:
    """A command with the options all have."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=more.pop("description", f"{help[0].upper()}{help[1:]}."),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **more,
    )
    add_common(parser)
    parser.set_defaults(handler=handler)
    return parser


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Where Supabase is. Keys come from the environment or a file only: arguments show up in `ps`."""
    group = parser.add_argument_group("connection")
    group.add_argument("--url", metavar="URL", help="project URL (SUPABASE_URL)")
    group.add_argument("--env-file", metavar="FILE", help="read settings from this file instead of .env")


def load_settings(args: argparse.Namespace, **overrides: Any) -> Settings:
    """Settings with URL and key, from options, environment and `.env`; raises ConfigurationError."""
    from reactive_worker.settings import Settings

    return Settings.load(
        args.env_file, url=args.url, log_level=getattr(args, "log_level", None), **overrides
    ).require_connection()


def quiet_logging(args: argparse.Namespace) -> None:
    """Logging of the commands that are not a worker: silent unless something is wrong, or DEBUG."""
    from reactive_worker.cli.logs import configure

    configure(getattr(args, "log_level", None) or "WARNING")
