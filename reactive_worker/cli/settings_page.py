"""The settings reference, written from the settings themselves.

python -m reactive_worker.cli.settings_page > docs/settings.md
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from reactive_worker.settings import Settings

#: Fields whose option is not their own name.
OPTIONS = {"default_timeout": "--timeout", "worker_name": "--name"}
#: Secrets and their like are no options: arguments show up in `ps`.
NO_OPTION = frozenset({"key", "worker_token", "worker_token_file", "artifact_limit", "artifact_url_life"})

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
| `REACTIVE_WORKER_PG_BIN` | folder of another PostgreSQL for the pytest fixtures; `dev` takes `--pg-bin` |
"""


def option(name: str) -> str:
    """The option of `reactive-worker run` that sets a field; empty when there is none."""
    if name in NO_OPTION:
        return ""
    return OPTIONS.get(name, "--" + name.replace("_", "-"))


def markdown() -> str:
    """The page.

    Example
    -------
    >>> "REACTIVE_WORKER_LEASE" in markdown()
    True
    """
    rows = [_row(spec) for spec in fields(Settings)]
    return _HEAD + "".join(rows) + _TAIL


def _row(spec: Any) -> str:
    variables = ", ".join(f"`{name}`" for name in spec.metadata["env"])
    cells = [
        f"`{spec.name}`",
        f"`{option(spec.name)}`" if option(spec.name) else "",
        variables,
        _shown(spec.default),
        str(spec.metadata["help"]).replace("|", "\\|"),
    ]
    return f"| {' | '.join(cells)} |\n"


def _shown(default: object) -> str:
    if default is None or default == "":
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)


if __name__ == "__main__":
    print(markdown(), end="")
