"""Options several commands share, and how they become Settings and logging."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from dataclasses import Field, fields
from itertools import groupby
from typing import Any

from reactive_worker.cli.console import Console
from reactive_worker.settings import Settings, converter, option_of

Handler = Callable[[argparse.Namespace, Console], int]
Commands = Any
"""What `add_subparsers` returns; argparse does not name the type."""

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class Help(argparse.HelpFormatter):
    """Fills paragraphs to the terminal's width; leaves lists (lines that begin with a blank) alone."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        shown: list[str] = []
        for paragraph in text.strip("\n").split("\n\n"):
            for is_list, group in groupby(paragraph.splitlines(), key=lambda line: line.startswith(" ")):
                lines = list(group)
                shown += lines if is_list else textwrap.wrap(" ".join(lines), width)
            shown.append("")
        return "\n".join(f"{indent}{line}" if line else "" for line in shown[:-1]) + "\n"


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
        formatter_class=Help,
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


#: Of every command, or of every command that connects.
_SHARED = frozenset({"url", "log_level"})


def add_settings(parser: argparse.ArgumentParser) -> None:
    """An option for every setting that has one; unset ones leave the environment and `.env` their say."""
    for spec in _own_settings():
        parser.add_argument(
            option_of(spec),
            dest=spec.name,
            type=converter(str(spec.type)),
            metavar=spec.metadata["unit"] or "VALUE",
            help=_help(spec),
        )


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_settings`' options were given, for `Settings.load`; None where they were not."""
    return {spec.name: getattr(args, spec.name) for spec in _own_settings()}


def _own_settings() -> list[Field[Any]]:
    return [spec for spec in fields(Settings) if option_of(spec) and spec.name not in _SHARED]


def _help(spec: Field[Any]) -> str:
    what = str(spec.metadata["help"])
    default = shown_default(spec)
    return f"{what[0].lower()}{what[1:]}{f' ({default})' if default else ''}".replace("%", "%%")


def shown_default(spec: Field[Any]) -> str:
    """A setting's default as a person writes it; empty when there is none."""
    if spec.default is None or spec.default == "":
        return ""
    return f"{spec.default:g}" if isinstance(spec.default, float) else str(spec.default)


def load_settings(args: argparse.Namespace, **overrides: Any) -> Settings:
    """Settings with URL and key, from options, environment and `.env`; raises ConfigurationError."""
    return Settings.load(
        args.env_file, url=args.url, log_level=getattr(args, "log_level", None), **overrides
    ).require_connection()


def quiet_logging(args: argparse.Namespace) -> None:
    """Logging of the commands that are not a worker: silent unless something is wrong, or DEBUG."""
    from reactive_worker.access.logs import configure

    configure(getattr(args, "log_level", None) or "WARNING")
