"""`token mint` and `token show`: a worker's own token, and what one says."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

from reactive_worker.access.tokens import LOCAL_JWT_SECRET, WORKER_ROLE, mint_token, read_token
from reactive_worker.cli.console import Console
from reactive_worker.cli.options import Commands, add_command, add_common
from reactive_worker.errors import ConfigurationError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

_MINT = """\
Signs a token that lets its bearer do a worker's work and nothing else.

The project's JWT secret is read from SUPABASE_JWT_SECRET (environment or .env) or from --secret-file, never
from an argument: arguments show up in `ps`. A project with asymmetric signing keys takes a private key as a
JSON Web Key instead, as `supabase gen signing-key` writes it. The secret that every local Supabase has is
taken by itself when SUPABASE_URL is on this machine.
"""

_EPILOG = """\
The token goes to standard output, the rest to standard error:
  reactive-worker token mint > worker-token
  SUPABASE_WORKER_TOKEN_FILE=worker-token reactive-worker run ...
"""


def add(commands: Commands) -> None:
    """Register the commands."""
    group = commands.add_parser(
        "token", help="make or look at a worker's token", description="Make or look at tokens."
    )
    add_common(group)
    verbs = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    mint = add_command(verbs, "mint", _mint, "sign a token for workers", description=_MINT, epilog=_EPILOG)
    mint.add_argument("--role", default=WORKER_ROLE, help="database role (%(default)s)")
    mint.add_argument(
        "--expires", default="90d", metavar="TIME", help="how long it is good: 30d, 12h, 3600 (%(default)s)"
    )
    mint.add_argument("--sub", metavar="UUID", help="user id, for --role authenticated")
    mint.add_argument("--secret-file", metavar="FILE", help="holds the JWT secret or signing key; - = stdin")
    _add_environment(mint)
    show = add_command(verbs, "show", _show, "say role and end of a token, without checking its signature")
    show.add_argument(
        "file", metavar="FILE", nargs="?", default="-", help="holds the token; standard input by default"
    )


def _add_environment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", metavar="URL", help="project URL (SUPABASE_URL)")
    parser.add_argument("--env-file", metavar="FILE", help="read settings from this file instead of .env")


def _mint(args: argparse.Namespace, console: Console) -> int:
    secret = _secret(args)
    token = mint_token(secret, role=args.role, expires_in=_seconds(args.expires), subject=args.sub)
    facts = read_token(token)
    until = facts.expires_at if facts is not None else None
    # This is what was asked for, and the one place where a token is printed.
    console.emit({"token": token, "role": args.role, "expires_at": until})
    console.say(token)
    local = secret == LOCAL_JWT_SECRET
    console.note(f"{facts}{', for a local Supabase' if local else '; keep it like a password'}")
    return 0


def _show(args: argparse.Namespace, console: Console) -> int:
    facts = read_token(_read(args.file))
    if facts is None:
        raise ConfigurationError("this is no JSON web token")
    console.emit({"role": facts.role, "expires_at": facts.expires_at})
    console.say(str(facts))
    return 0


def _secret(args: argparse.Namespace) -> str:
    from reactive_worker.access.env_file import read_env_file
    from reactive_worker.access.redaction import keep_secret

    environment = {**read_env_file(args.env_file), **os.environ}
    if args.secret_file:
        secret = _read(args.secret_file)
    else:
        secret = environment.get("SUPABASE_JWT_SECRET", "").strip()
    if not secret:
        url = args.url or environment.get("SUPABASE_URL", "")
        if not _is_loopback(url):
            raise ConfigurationError(
                "no JWT secret: set SUPABASE_JWT_SECRET in the environment or .env, or give --secret-file "
                "(on supabase.com: project settings, JWT keys)"
            )
        return LOCAL_JWT_SECRET
    keep_secret(secret)
    return secret


def _read(path: str) -> str:
    from reactive_worker.access.credentials import read_secret_file

    return sys.stdin.read().strip() if path == "-" else read_secret_file(Path(path))


def _is_loopback(url: str) -> bool:
    try:
        return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    except ValueError:
        return False


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text.strip().lower())
    if match is None:
        raise ConfigurationError(f"--expires must be a number with s, m, h, d or w after it, not {text!r}")
    return float(match[1]) * _UNITS[match[2] or "s"]
