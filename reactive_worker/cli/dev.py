"""`dev`: the embedded Supabase, for as long as you work."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from reactive_worker.cli.console import Console
from reactive_worker.cli.options import Commands, add_command

_EPILOG = """\
It prints the URL and keys as `supabase status` does; they are the same as those of `supabase start`, so one
.env fits both. Migrations and seed come from ./supabase if there is one (`reactive-worker init`), else from
the package. Loopback only, with keys everybody knows: for development.
"""


def add(commands: Commands) -> None:
    """Register the command."""
    dev = add_command(commands, "dev", _dev, "run a local Supabase, without Docker", epilog=_EPILOG)
    dev.add_argument("--port", type=int, default=54321, metavar="N", help="of the API (54321); 0 = any free")
    dev.add_argument(
        "--db-port", type=int, default=54322, metavar="N", help="of PostgreSQL (54322); 0 = any free"
    )
    where = dev.add_mutually_exclusive_group()
    where.add_argument(
        "--data-dir", default=".reactive-worker", metavar="DIR", help="keeps the data (.reactive-worker)"
    )
    where.add_argument("--ephemeral", action="store_true", help="throw the data away at the end")
    dev.add_argument(
        "--pacing",
        choices=("fast", "hosted"),
        default="fast",
        help="of Realtime; hosted is as slow as hosted",
    )
    dev.add_argument("--pg-bin", metavar="DIR", help="use the PostgreSQL server in this folder")
    dev.add_argument("--project", metavar="DIR", help="whose supabase/ folder to apply (.)")


def _project(args: argparse.Namespace) -> Path | None:
    if args.project is not None:
        return Path(args.project)
    here = Path.cwd()
    return here if (here / "supabase" / "migrations").is_dir() else None


def _dev(args: argparse.Namespace, console: Console) -> int:
    from reactive_worker.access.logs import configure
    from reactive_worker.local import run_dev

    configure(getattr(args, "log_level", None) or "WARNING")
    return asyncio.run(
        run_dev(
            port=args.port,
            db_port=args.db_port,
            data_dir=None if args.ephemeral else Path(args.data_dir),
            pg_bin=args.pg_bin,
            pacing=args.pacing,
            project_dir=_project(args),
            json_output=console.json,
        )
    )
