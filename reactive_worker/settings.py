"""Environment, `.env` and command-line options -> one frozen `Settings`.

Precedence: what is passed to `Settings.load`, then the process environment, then the `.env` file, then the
default. A value that is *unset* stays distinct from a default until all sources are merged, so a default can
never win over something the user wrote.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from dotenv import parser as dotenv_parser

from reactive_worker.access.credentials import Credentials, TokenFile, read_secret_file
from reactive_worker.access.redaction import redact
from reactive_worker.errors import ConfigurationError

#: Where the worker key is looked for, best first. The anon key is accepted here so that the predecessor's
#: `.env` files load; a worker then says clearly that it needs the service key.
KEY_VARIABLES = (
    "SUPABASE_SERVICE_ROLE_KEY",
    "SUPABASE_SECRET_KEY",
    "SUPABASE_KEY",
    "SUPABASE_ANON_KEY",
    "SUPABASE_PUBLISHABLE_KEY",
)

#: How workers hear of new rows: see docs/architecture.md.
PUSH_MODES = ("auto", "changes", "broadcast", "both")

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _setting(default: Any, env: tuple[str, ...], what: str) -> Any:
    return field(default=default, metadata={"env": env, "help": what})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a worker or client needs to know, checked when it is made.

    Example
    -------
    >>> Settings(url="http://127.0.0.1:54321", key="k", concurrency=4).concurrency
    4
    """

    url: str = _setting("", ("SUPABASE_URL",), "Project URL, for example https://abc.supabase.co")
    key: str = field(
        default="",
        repr=False,
        metadata={"env": KEY_VARIABLES, "help": "Service role (or secret) key; a worker needs this one"},
    )
    worker_token: str = field(
        default="",
        repr=False,
        metadata={"env": ("SUPABASE_WORKER_TOKEN",), "help": "Token of a worker; the key is then any key"},
    )
    worker_token_file: str = _setting(
        "", ("SUPABASE_WORKER_TOKEN_FILE",), "The same, in a file that is read again when it changes"
    )
    agent_type: str = _setting("", ("DEFAULT_AGENT_TYPE",), "Which rows of todolist this worker runs")
    polling_interval: float = _setting(
        5.0,
        ("DEFAULT_POLLING_INTERVAL", "POLLING_INTERVAL"),
        "Seconds between sweeps while push is not proven",
    )
    sweep_interval: float = _setting(
        30.0, ("REACTIVE_WORKER_SWEEP_INTERVAL",), "Seconds between sweeps while push is proven healthy"
    )
    concurrency: int = _setting(10, ("REACTIVE_WORKER_CONCURRENCY",), "Tasks run at the same time")
    lease: float = _setting(
        30.0, ("REACTIVE_WORKER_LEASE",), "Seconds until a silent worker's tasks go to others"
    )
    heartbeat: float = _setting(10.0, ("REACTIVE_WORKER_HEARTBEAT",), "Seconds between renewals of the lease")
    drain_timeout: float = _setting(
        30.0, ("REACTIVE_WORKER_DRAIN_TIMEOUT",), "Seconds running tasks get to finish at shutdown"
    )
    default_timeout: float | None = _setting(
        None,
        ("REACTIVE_WORKER_TASK_TIMEOUT",),
        "Seconds a task may run when its row sets no timeout_seconds; 0 = no limit",
    )
    cancel_grace: float = _setting(
        10.0, ("REACTIVE_WORKER_CANCEL_GRACE",), "Seconds an executor gets to end after it was cancelled"
    )
    stall_limit: float = _setting(
        600.0, ("REACTIVE_WORKER_STALL_LIMIT",), "Seconds a blocked event loop keeps its lease; 0 = for ever"
    )
    probe_interval: float = _setting(
        60.0, ("REACTIVE_WORKER_PROBE_INTERVAL",), "Seconds between probes of the push channel"
    )
    push: str = _setting(
        "auto",
        ("REACTIVE_WORKER_PUSH",),
        "How rows are pushed: broadcast, changes, both, or auto = broadcast where it works, else changes",
    )
    worker_name: str = _setting(
        "", ("REACTIVE_WORKER_NAME",), "Shown in `workers list`; default host name and pid"
    )
    spool: str = _setting(
        "", ("REACTIVE_WORKER_SPOOL",), "Directory for results that could not be delivered at shutdown"
    )
    artifacts_bucket: str = _setting(
        "",
        ("REACTIVE_WORKER_ARTIFACTS_BUCKET",),
        "Private storage bucket for files and large results; empty = in the row",
    )
    artifact_limit: int = _setting(
        262_144,
        ("REACTIVE_WORKER_ARTIFACT_LIMIT",),
        "Bytes of a result that stay in the row when there is a bucket",
    )
    artifact_url_life: int = _setting(
        604_800,
        ("REACTIVE_WORKER_ARTIFACT_URL_LIFE",),
        "Seconds the URLs of results in the bucket are good for",
    )
    log_level: str = _setting("INFO", ("LOG_LEVEL",), "DEBUG, INFO, WARNING or ERROR")

    def __post_init__(self) -> None:
        for name in ("polling_interval", "sweep_interval", "lease", "heartbeat", "probe_interval"):
            _positive(name, getattr(self, name))
        for name in ("drain_timeout", "cancel_grace", "stall_limit"):
            _positive(name, getattr(self, name), zero=True)
        if self.default_timeout is not None:
            _positive("default_timeout", self.default_timeout, zero=True)
        for name in ("artifact_limit", "artifact_url_life"):
            if getattr(self, name) < 1:
                raise ConfigurationError(
                    f"{name.replace('_', ' ')} must be at least 1, not {getattr(self, name)}"
                )
        if self.concurrency < 1:
            raise ConfigurationError(f"concurrency must be at least 1, not {self.concurrency}")
        if self.heartbeat * 2 > self.lease:
            raise ConfigurationError(
                f"heartbeat ({self.heartbeat:g} s) must be at most half the lease ({self.lease:g} s), "
                "so that one lost heartbeat does not hand running tasks to another worker"
            )
        if self.push not in PUSH_MODES:
            raise ConfigurationError(f"push must be one of {', '.join(PUSH_MODES)}, not {self.push!r}")
        if self.log_level.upper() not in LOG_LEVELS:
            raise ConfigurationError(
                f"log level must be one of {', '.join(LOG_LEVELS)}, not {self.log_level!r}"
            )

    def require_connection(self) -> Settings:
        """Return self when URL and key are usable; raise ConfigurationError saying what to set otherwise."""
        check_url(self.url)
        if not self.key:
            raise ConfigurationError(
                "no Supabase key: set SUPABASE_SERVICE_ROLE_KEY in the environment or .env "
                "(`reactive-worker dev` prints the local one)"
            )
        _check_secret("the Supabase key", self.key)
        return self

    def worker_credentials(self) -> Credentials:
        """What a worker identifies itself with: its token beside a key of the project, or the key alone.

        Raises
        ------
        ConfigurationError
            URL, key or token are missing or malformed; the message says what to set.
        """
        if self.worker_token and self.worker_token_file:
            raise ConfigurationError("set SUPABASE_WORKER_TOKEN or SUPABASE_WORKER_TOKEN_FILE, not both")
        if not (self.worker_token or self.worker_token_file):
            self.require_connection()
            return Credentials(self.key)
        check_url(self.url)
        source = TokenFile(self.worker_token_file) if self.worker_token_file else self.worker_token
        token = source if isinstance(source, str) else source()
        _check_secret("the worker token", token)
        _check_secret("the Supabase key", self.key)
        # A gateway that only looks at signatures takes the token for a key, too; Supabase's wants a real one.
        credentials = Credentials(self.key or token, source)
        if credentials.facts() is None:
            raise ConfigurationError(
                "the worker token is no JWT: make one with `reactive-worker token mint`; "
                "keys of the project belong into SUPABASE_SERVICE_ROLE_KEY or SUPABASE_PUBLISHABLE_KEY"
            )
        return credentials

    @classmethod
    def load(cls, env_file: str | Path | None = None, **overrides: Any) -> Settings:
        """Merge options, environment and `.env` into Settings.

        Parameters
        ----------
        env_file:
            The `.env` file to read; by default `.env` in the current directory, if it exists.
        **overrides:
            Field values that win over everything; None means "not given".

        Raises
        ------
        ConfigurationError
            A value is malformed; the message names the variable and the value.
        """
        source = {**read_env_file(env_file), **os.environ}
        values: dict[str, Any] = {}
        for spec in fields(cls):
            given = overrides.pop(spec.name, None)
            if given is not None:
                values[spec.name] = given
                continue
            for variable in cast("tuple[str, ...]", spec.metadata["env"]):
                text = source.get(variable, "").strip()
                if spec.name == "key" and not text and (path := source.get(f"{variable}_FILE", "").strip()):
                    text = read_secret_file(Path(path))
                if text:
                    values[spec.name] = _convert(spec.name, str(spec.type), variable, text)
                    break
        if overrides:
            raise ConfigurationError(f"unknown setting: {', '.join(sorted(overrides))}")
        if "url" in values:
            values["url"] = str(values["url"]).rstrip("/")
        return cls(**values)


def _check_secret(what: str, value: str) -> None:
    if not value.isascii() or any(c.isspace() for c in value):
        raise ConfigurationError(f"{what} contains blanks or non-ASCII characters: copy it again")


def _positive(name: str, value: float, *, zero: bool = False) -> None:
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        option = name.replace("_", "-")
        raise ConfigurationError(
            f"--{option} must be a {'' if zero else 'positive '}number of seconds, not {value:g}"
        )


def _convert(name: str, kind: str, variable: str, text: str) -> Any:
    converters: Mapping[str, Callable[[str], Any]] = {"int": int, "float": float, "float | None": float}
    try:
        return converters.get(kind, str)(text)
    except ValueError:
        raise ConfigurationError(
            f"{variable} must be a number, not {redact(text)!r} (setting {name})"
        ) from None


def check_url(url: str) -> str:
    """Return `url` when it can be a Supabase project URL; raise ConfigurationError otherwise."""
    if not url:
        raise ConfigurationError(
            "no SUPABASE_URL: set it in the environment or .env, for example "
            "SUPABASE_URL=http://127.0.0.1:54321 (`reactive-worker dev` starts a local Supabase there)"
        )
    try:
        parts = urlsplit(url)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_ok = urlsplit(""), False
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or not port_ok
        or any(c.isspace() for c in url)
    ):
        raise ConfigurationError(
            f"SUPABASE_URL is malformed: {redact(url)!r} (expected https://<project>.supabase.co)"
        )
    if parts.path not in ("", "/") or parts.query:
        raise ConfigurationError(f"SUPABASE_URL must be the project URL without a path: {redact(url)!r}")
    return url


def read_env_file(path: str | Path | None = None) -> dict[str, str]:
    """Read a `.env` file; a file that was asked for must exist, and every line must parse.

    python-dotenv only logs lines it cannot parse; a key that silently went missing costs an hour, so a
    malformed line is an error here.
    """
    chosen = Path(path) if path is not None else Path(".env")
    if not chosen.exists():
        if path is not None:
            raise ConfigurationError(f"no such env file: {chosen}")
        return {}
    values: dict[str, str] = {}
    try:
        with chosen.open(encoding="utf-8") as stream:
            for binding in dotenv_parser.parse_stream(stream):
                if binding.error:
                    raise ConfigurationError(
                        f"{chosen}, line {binding.original.line}: cannot read this line; expected NAME=value"
                    )
                if binding.key is not None and binding.value is not None:
                    values[binding.key] = binding.value
                elif binding.key is not None:
                    raise ConfigurationError(
                        f"{chosen}, line {binding.original.line}: "
                        f"{binding.key} has no value; expected NAME=value"
                    )
    except UnicodeDecodeError:
        raise ConfigurationError(f"{chosen} is not UTF-8 text") from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {chosen}: {error.strerror}") from None
    return values
