"""`artifact`: a task's result as a file, wherever it lies."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from reactive_worker.cli.console import Console
from reactive_worker.cli.ids import check_ids, whole_id
from reactive_worker.cli.options import Commands, add_command, add_connection
from reactive_worker.cli.with_client import Supabase, run_connected
from reactive_worker.errors import ConfigurationError


def add(commands: Commands) -> None:
    """Register the command."""
    artifact = add_command(
        commands,
        "artifact",
        _artifact,
        "write one part of a task's result to a file or standard output",
        epilog="Also what was too large for the row and lies in Storage.",
    )
    artifact.add_argument("id", metavar="ID")
    artifact.add_argument("artifact", metavar="ARTIFACT", nargs="?", help="its id; by default the first")
    artifact.add_argument("--part", type=int, default=0, metavar="N", help="which of its parts, from 0 (0)")
    artifact.add_argument("-o", "--output", metavar="FILE", help="where to; by default standard output")
    add_connection(artifact)


def _artifact(args: argparse.Namespace, console: Console) -> int:
    check_ids([args.id])

    async def work(supabase: Supabase) -> int:
        id = await whole_id(supabase.store, args.id)
        content = await supabase.client.download_artifact(id, args.artifact, part=args.part)
        if args.output is None:
            sys.stdout.buffer.write(content)
            sys.stdout.flush()
            return 0
        try:
            await asyncio.to_thread(Path(args.output).write_bytes, content)
        except OSError as error:
            raise ConfigurationError(f"cannot write {args.output}: {error.strerror}") from None
        console.emit({"id": id, "file": args.output, "size": len(content)})
        console.say(f"{args.output}  {len(content)} bytes")
        return 0

    return run_connected(args, work)
