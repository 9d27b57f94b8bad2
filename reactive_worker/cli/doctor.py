"""`doctor`: is this Supabase as it must be, and what mends it?"""

from __future__ import annotations

import argparse
import asyncio
import os
import textwrap
from typing import TYPE_CHECKING

from reactive_worker.cli.console import Console
from reactive_worker.cli.options import Commands, add_command, add_connection
from reactive_worker.cli.styled import Styled
from reactive_worker.cli.text import short
from reactive_worker.errors import ConfigurationError

if TYPE_CHECKING:
    from reactive_worker.doctor import Finding

_DESCRIPTION = """\
Looks at a Supabase as a worker would use it, and says what is not as it must be and what mends it.

Only reads, but for one probe through Realtime: a worker that serves nobody and a task for it, both taken
away again. Looks through the API; with --db-url also into the database itself, which tells more while
migrations are missing.
"""

_EPILOG = """\
exit codes:
  0    all is well, or works with warnings
  1    something fails
  2    wrong usage or configuration
  3    Supabase cannot be reached
"""

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}
_TITLES = {"sql": "SQL:", "shell": "run:", "setting": "set:"}


def add(commands: Commands) -> None:
    """Register the command."""
    doctor = add_command(
        commands,
        "doctor",
        _doctor,
        "check a Supabase from end to end; says what mends it",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add_connection(doctor)
    doctor.add_argument(
        "--db-url",
        metavar="URL",
        nargs="?",
        const="",
        help="look into the database directly, too; without URL: the one in SUPABASE_DB_URL "
        "(better for one with a password: arguments show up in `ps`)",
    )
    doctor.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="for each wait for Realtime (%(default)s)",
    )
    doctor.add_argument("--no-probe", action="store_true", help="write nothing: leave Realtime's probe out")


def _doctor(args: argparse.Namespace, console: Console) -> int:
    from reactive_worker.access.logs import configure
    from reactive_worker.doctor import examine, exit_code
    from reactive_worker.settings import Settings

    if args.timeout <= 0:
        raise ConfigurationError(f"--timeout must be a positive number of seconds, not {args.timeout:g}")
    # What the libraries warn of on the way is what the findings say better.
    configure(getattr(args, "log_level", None) or "ERROR")
    settings = Settings.load(args.env_file, url=args.url, log_level=getattr(args, "log_level", None))
    credentials = settings.worker_credentials()
    findings = asyncio.run(
        examine(
            settings.url, credentials, db_url=_db_url(args), timeout=args.timeout, probe=not args.no_probe
        )
    )
    for finding in findings:
        console.emit(finding.as_json())
        say_finding(console, finding)
    counts = {level: sum(finding.level == level for finding in findings) for level in _STYLES}
    console.say(f"\n{counts['ok']} ok, {counts['warn']} warn, {counts['fail']} fail")
    return exit_code(findings)


def say_finding(console: Console, finding: Finding) -> None:
    """What was found, and below it what mends it."""
    head = f"{finding.name:<18}  "
    room = console.columns(1000 + len(head)) - len(head) - 6
    lines = textwrap.wrap(short(finding.what, 2000), max(20, room)) or [""]
    console.say(Styled(_STYLES[finding.level], f"{finding.level:<4}"), f"  {head}{lines[0]}")
    for line in lines[1:]:
        console.say(" " * (6 + len(head)) + line)
    if finding.mend:
        console.say(Styled("dim", f"      {_TITLES[finding.kind]}"))
        for line in finding.mend.splitlines():
            console.say(f"      {line}")


def _db_url(args: argparse.Namespace) -> str | None:
    from reactive_worker.access.env_file import read_env_file
    from reactive_worker.access.redaction import keep_secret

    if args.db_url is None:
        return None
    url = args.db_url or {**read_env_file(args.env_file), **os.environ}.get("SUPABASE_DB_URL", "").strip()
    if not url:
        raise ConfigurationError("--db-url without a URL needs SUPABASE_DB_URL in the environment or .env")
    keep_secret(url)
    return url
