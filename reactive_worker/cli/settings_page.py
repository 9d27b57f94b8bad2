"""docs/settings.md and env.example, written from the settings' own metadata.

python -m reactive_worker.cli.settings_page
"""

from __future__ import annotations

import textwrap
from dataclasses import Field, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from reactive_worker.cli.options import shown_default
from reactive_worker.local.keys import Keys
from reactive_worker.settings import KEY_VARIABLES, Settings, option_of

_HEAD = """\
# Settings

*Written by `python -m reactive_worker.cli.settings_page`; a test compares the two.*

A setting is looked for in this order: what a program passes (`ReactiveWorker(..., lease=60)`) or an option
of `reactive-worker run`, the environment, the file `.env` in the current directory (`--env-file` names
another), the default. An empty variable counts as not set. All are checked before anything starts, and what
is wrong is named with where it came from. `reactive-worker init` writes an `env.example` that holds them
all, explained.

| setting | option of `run` | variable | default | |
| --- | --- | --- | --- | --- |
"""

_TAIL = """
Where several variables are named, the first that is set wins.

Read by single commands only:

| variable | |
| --- | --- |
| `SUPABASE_JWT_SECRET`, `SUPABASE_JWT_SECRET_FILE` | `token mint` signs with it |
| `SUPABASE_DB_URL` | `doctor --db-url` looks into the database itself with it |
| `REACTIVE_WORKER_PG_BIN` | folder of another PostgreSQL for the pytest fixtures; `dev` takes `--pg-bin` |
"""

_ENV_HEAD = """\
# Copy this file to .env and fill in the first two. Options of the command line win over the environment,
# the environment wins over .env. What is commented out shows its default.
# Written by `python -m reactive_worker.cli.settings_page`.
"""

#: What no setting's own metadata says, below the setting it belongs to.
_BELOW = {
    "key": f"""\
# Also read when that one is empty, in this order:
# {", ".join(KEY_VARIABLES[1:])}.
# With the last two nothing works unless a user is signed in.
# Each of them may be in a file instead, as mounted secrets are:
# SUPABASE_SERVICE_ROLE_KEY_FILE=/run/secrets/key

# For `reactive-worker dev` and `supabase start`, whose keys are the same on every machine and no secret:
# SUPABASE_URL=http://127.0.0.1:54321
# SUPABASE_SERVICE_ROLE_KEY={Keys.default().service_role_key}
# SUPABASE_SECRET_KEY={Keys.default().secret_key}
# SUPABASE_ANON_KEY={Keys.default().anon_key}
# SUPABASE_PUBLISHABLE_KEY={Keys.default().publishable_key}
""",
    "worker_token_file": """\
# `token mint` signs with this: project settings, JWT keys. A worker never needs it, so keep it elsewhere.
# SUPABASE_JWT_SECRET=

# `doctor --db-url` looks into the database itself with this: the button Connect, session pooler. Only there.
# SUPABASE_DB_URL=
""",
}
#: What has to be filled in.
_NEEDED = ("url", "key")


def markdown() -> str:
    """The page docs/settings.md.

    Example
    -------
    >>> "REACTIVE_WORKER_LEASE" in markdown()
    True
    """
    return _HEAD + "".join(_row(spec) for spec in fields(Settings)) + _TAIL


def env_example() -> str:
    """The file env.example.

    Example
    -------
    >>> "# REACTIVE_WORKER_LEASE=30" in env_example().splitlines()
    True
    """
    parts = [_ENV_HEAD]
    for section, specs in groupby(fields(Settings), key=lambda spec: str(spec.metadata["section"])):
        parts.append(f"# -- {section} ".ljust(107, "-") + "\n")
        for spec in specs:
            parts += [_block(spec), *([_BELOW[spec.name]] if spec.name in _BELOW else [])]
    return "\n".join(parts)


def _block(spec: Field[Any]) -> str:
    note = f" {spec.metadata['note']}" if spec.metadata["note"] else ""
    said = textwrap.fill(f"{spec.metadata['help']}.{note}", 110, initial_indent="# ", subsequent_indent="# ")
    head = "" if spec.name in _NEEDED else "# "
    return f"{said}\n{head}{spec.metadata['env'][0]}={shown_default(spec)}\n"


def _row(spec: Field[Any]) -> str:
    cells = [
        f"`{spec.name}`",
        f"`{option_of(spec)}`" if option_of(spec) else "",
        ", ".join(f"`{name}`" for name in spec.metadata["env"]),
        shown_default(spec),
        str(spec.metadata["help"]).replace("|", "\\|"),
    ]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    (root / "docs" / "settings.md").write_text(markdown(), encoding="utf-8")
    (root / "env.example").write_text(env_example(), encoding="utf-8")
