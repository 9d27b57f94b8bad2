"""Settings of the API server that live in the database: ``alter role authenticator set pgrst...``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

_log = logging.getLogger(__name__)

_KNOWN = frozenset(
    {"pgrst.db_aggregates_enabled", "pgrst.db_extra_search_path", "pgrst.db_max_rows", "pgrst.db_pre_request"}
    | {"pgrst.db_schemas"}
)


@dataclass(frozen=True)
class ServerSettings:
    """What a project has set; None: as its config.toml says.

    Attributes
    ----------
    aggregates:
        Whether aggregate functions may be used in ``select=``.
    schemas, extra_search_path, max_rows:
        As in config.toml.
    pre_request:
        Name of the function that is called before each request, with its schema.
    """

    aggregates: bool = False
    schemas: tuple[str, ...] | None = None
    extra_search_path: tuple[str, ...] | None = None
    max_rows: int | None = None
    pre_request: tuple[str, ...] | None = None

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> ServerSettings:
        """Read the settings.

        Parameters
        ----------
        settings:
            By name, ``pgrst.`` included. Others than those above are told in the log, and do nothing.
        """
        for name in sorted(settings.keys() - _KNOWN):
            _log.warning("the embedded Supabase does not know the setting %s of the role authenticator", name)
        rows = settings.get("pgrst.db_max_rows", "")
        function = settings.get("pgrst.db_pre_request", "").strip()
        return cls(
            aggregates=settings.get("pgrst.db_aggregates_enabled", "").lower() in ("true", "on", "t", "1"),
            schemas=_names(settings.get("pgrst.db_schemas")),
            extra_search_path=_names(settings.get("pgrst.db_extra_search_path")),
            max_rows=int(rows) if rows.isdigit() else None,
            pre_request=tuple(part.strip('"') for part in function.split(".")) if function else None,
        )


def _names(text: str | None) -> tuple[str, ...] | None:
    names = tuple(name.strip().strip('"') for name in (text or "").split(",") if name.strip())
    return names or None
