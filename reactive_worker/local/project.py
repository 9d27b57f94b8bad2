"""The `supabase/` folder: where it is, and the few settings of its config.toml that matter here."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from reactive_worker.errors import ConfigurationError

_MIGRATION_NAME = re.compile(r"([0-9]+)_(.*)\.sql")


@dataclass(frozen=True)
class Migration:
    """One file of `supabase/migrations`."""

    version: str
    name: str
    path: Path


@dataclass(frozen=True)
class AuthSettings:
    """The section ``[auth]`` of config.toml, as far as it matters here.

    Attributes
    ----------
    signup:
        Whether users may sign up.
    anonymous:
        Whether they may sign in without an address.
    confirmations:
        Whether an address has to be confirmed.
    jwt_expiry:
        Life of an access token, in seconds.
    reuse_interval:
        Seconds for which a refresh token may be used again.
    minimum_password_length:
        In characters.
    """

    signup: bool = True
    anonymous: bool = False
    confirmations: bool = False
    jwt_expiry: int = 3600
    reuse_interval: int = 10
    minimum_password_length: int = 6


@dataclass(frozen=True)
class Project:
    """A `supabase/` folder and its settings, with the CLI's defaults for what is not set.

    Attributes
    ----------
    folder:
        The `supabase/` folder itself.
    schemas:
        Schemas the REST API exposes; the first one is the default.
    extra_search_path:
        Schemas searched after the exposed one.
    max_rows:
        Most rows a read or an rpc returns; the rest is cut off silently.
    seed_paths:
        Patterns of seed files, relative to `folder`; empty when seeding is off.
    auth:
        Who may sign up, and how.
    file_size_limit:
        Most bytes of a file in storage.
    """

    folder: Path
    schemas: tuple[str, ...] = ("public", "graphql_public")
    extra_search_path: tuple[str, ...] = ("public", "extensions")
    max_rows: int = 1000
    seed_paths: tuple[str, ...] = ("./seed.sql",)
    auth: AuthSettings = AuthSettings()
    file_size_limit: int = 50 * 1024 * 1024

    def migrations(self) -> list[Migration]:
        """All migrations in the order of their versions.

        Raises
        ------
        ConfigurationError
            Two files have the same version.
        """
        found: dict[str, Migration] = {}
        for path in sorted((self.folder / "migrations").glob("*.sql")):
            match = _MIGRATION_NAME.fullmatch(path.name)
            # The CLI skips files that are not named <version>_<name>.sql, and so do we.
            if match is None:
                continue
            migration = Migration(match[1], match[2], path)
            other = found.setdefault(migration.version, migration)
            if other is not migration:
                raise ConfigurationError(
                    f"two migrations have version {migration.version}: {other.path} and {path}"
                )
        return [found[version] for version in sorted(found)]

    def seed_files(self) -> list[Path]:
        """The seed files there are, in the order config.toml names them."""
        files: list[Path] = []
        for pattern in self.seed_paths:
            matches = sorted(self.folder.glob(pattern.removeprefix("./")))
            files += [path for path in matches if path not in files and path.is_file()]
        return files


def find_project(project_dir: Path | None = None) -> Project:
    """Find and read a `supabase/` folder.

    Parameters
    ----------
    project_dir:
        A project that contains a `supabase/` folder, or that folder itself. None: the one that comes with
        reactive-worker (in a wheel, or beside the package in a checkout).

    Raises
    ------
    ConfigurationError
        There is none, or its config.toml cannot be used.
    """
    if project_dir is not None:
        for folder in (project_dir / "supabase", project_dir):
            if (folder / "migrations").is_dir() or (folder / "config.toml").is_file():
                return _read(folder.resolve())
        raise ConfigurationError(
            f"no supabase/ folder in {project_dir}: create one with `reactive-worker init`."
        )
    package = Path(__file__).resolve().parent.parent
    # In a checkout the folder beside the package is the truth; in an installation only the copy exists.
    for folder in (package.parent / "supabase", package / "_project" / "supabase"):
        if (folder / "migrations").is_dir():
            return _read(folder)
    raise ConfigurationError(
        f"the installation of reactive-worker in {package} is incomplete: install it again."
    )


def _read(folder: Path) -> Project:
    path = folder / "config.toml"
    if not path.is_file():
        return Project(folder)
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    api = _section(path, config, "api")
    seed = _section(path, _section(path, config, "db"), "seed")
    defaults = Project(folder)
    seed_paths = _texts(path, "db.seed.sql_paths", seed.get("sql_paths"), defaults.seed_paths)
    return Project(
        folder,
        # `public` and `graphql_public` are always exposed by the CLI's own configuration, `public` first.
        schemas=_texts(path, "api.schemas", api.get("schemas"), defaults.schemas) or defaults.schemas,
        extra_search_path=_texts(
            path, "api.extra_search_path", api.get("extra_search_path"), defaults.extra_search_path
        ),
        max_rows=_positive(path, "api.max_rows", api.get("max_rows"), defaults.max_rows),
        seed_paths=seed_paths if seed.get("enabled", True) is True else (),
        auth=_auth(path, _section(path, config, "auth")),
        file_size_limit=_bytes(
            path, _section(path, config, "storage").get("file_size_limit"), defaults.file_size_limit
        ),
    )


def _auth(path: Path, auth: dict[str, Any]) -> AuthSettings:
    email, usual = _section(path, auth, "email"), AuthSettings()
    return AuthSettings(
        signup=auth.get("enable_signup", True) is True,
        anonymous=auth.get("enable_anonymous_sign_ins", False) is True,
        confirmations=email.get("enable_confirmations", False) is True,
        jwt_expiry=_positive(path, "auth.jwt_expiry", auth.get("jwt_expiry"), usual.jwt_expiry),
        reuse_interval=_positive(
            path,
            "auth.refresh_token_reuse_interval",
            auth.get("refresh_token_reuse_interval"),
            usual.reuse_interval,
        ),
        minimum_password_length=_positive(
            path,
            "auth.minimum_password_length",
            auth.get("minimum_password_length"),
            usual.minimum_password_length,
        ),
    )


def _bytes(path: Path, value: Any, default: int) -> int:
    if value is None:
        return default
    size = size_in_bytes(value)
    if size is None:
        raise ConfigurationError(f"{path}: storage.file_size_limit must be a size such as 50MiB")
    return size


_UNITS = {"": 1, "B": 1} | {
    f"{letter}{unit}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for unit, base in (("B", 1000), ("iB", 1024))
}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]{0,3})")


def size_in_bytes(value: Any) -> int | None:
    """A number of bytes from a number or a text such as ``50MiB`` or ``1.5GB``; None for what is none.

    Example
    -------
    >>> size_in_bytes("50MiB"), size_in_bytes("1KB"), size_in_bytes("much")
    (52428800, 1000, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    match = _SIZE.fullmatch(str(value).strip())
    units = {name.lower(): size for name, size in _UNITS.items()}
    if match is None or match[2].lower() not in units:
        return None
    return int(float(match[1]) * units[match[2].lower()])


def _section(path: Path, config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name, {})
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: {name} must be a table")
    return cast("dict[str, Any]", value)


def _texts(path: Path, name: str, value: Any, default: Sequence[str]) -> tuple[str, ...]:
    if value is None:
        return tuple(default)
    items = cast("list[Any]", value)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in items):
        raise ConfigurationError(f"{path}: {name} must be a list of texts")
    return tuple(cast("list[str]", items))


def _positive(path: Path, name: str, value: Any, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{path}: {name} must be a number above 0")
    return value
