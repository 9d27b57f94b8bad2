"""Environment, `.env` and command-line options -> one frozen `Settings`.

Precedence: what is passed to `Settings.load`, then the process environment, then the `.env` file, then the
default. A value that is *unset* stays distinct from a default until all sources are merged, so a default can
never win over something the user wrote.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from reactive_worker.access.env_file import read_env_file
from reactive_worker.access.project import check_secret, check_url
from reactive_worker.access.redaction import redact
from reactive_worker.errors import ConfigurationError

if TYPE_CHECKING:
    # Brings cryptography, which takes longer than all the rest of `reactive-worker --help`.
    from reactive_worker.access.credentials import Credentials

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


def _setting(
    default: Any,
    env: str | tuple[str, ...],
    what: str,
    *,
    section: str,
    note: str = "",
    option: str | None = None,
    unit: str = "",
    least: float | None = None,
    secret: bool = False,
) -> Any:
    """A field that says everything about itself: options, env.example and docs/settings.md come from it.

    Parameters
    ----------
    env:
        Variables, the best first.
    what:
        One phrase; the option's help, too.
    section:
        Its heading in env.example.
    note:
        More for env.example, in whole sentences.
    option:
        The option of `run` where it is not the field's name; empty: none, for what must not show up in `ps`
        and for what nobody changes from one start to the next.
    unit:
        What the option's value is called.
    least:
        The smallest value; of seconds, 0 stands for "more than 0".
    secret:
        True keeps it out of `repr`.
    """
    metadata = {
        "env": (env,) if isinstance(env, str) else env,
        "help": what,
        "section": section,
        "note": note,
        "option": option,
        "unit": unit,
        "least": least,
    }
    return field(default=default, repr=not secret, metadata=metadata)


_SUPABASE, _RUNS, _WRONG = "Supabase", "What runs", "When things go wrong"
_LARGE, _LOGS = "Large results", "Logs"
#: In place of a smallest number of seconds: 0 is none, or for ever, and allowed.
_OR_ZERO = -1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a worker or client needs to know, checked when it is made.

    Example
    -------
    >>> Settings(url="http://127.0.0.1:54321", key="k", concurrency=4).concurrency
    4
    """

    url: str = _setting(
        "", "SUPABASE_URL", "Project URL, for example https://abc.supabase.co", section=_SUPABASE, unit="URL"
    )
    key: str = _setting(
        "",
        KEY_VARIABLES,
        "Service role (or secret) key; a worker needs this one",
        section=_SUPABASE,
        note="It may do everything: never give it to a browser.",
        option="",
        secret=True,
    )
    worker_token: str = _setting(
        "",
        "SUPABASE_WORKER_TOKEN",
        "Token of a worker; the key is then any key",
        section=_SUPABASE,
        note="A worker can do with less, so that a leaked key opens nothing else: a token of its own, made "
        "with `reactive-worker token mint` (docs/security.md). The key above is then any key of the "
        "project; the publishable one is enough.",
        option="",
        secret=True,
    )
    worker_token_file: str = _setting(
        "",
        "SUPABASE_WORKER_TOKEN_FILE",
        "The same, in a file that is read again when it changes",
        section=_SUPABASE,
        note="So a token can be renewed without a restart.",
        option="",
    )
    agent_type: str = _setting(
        "",
        "DEFAULT_AGENT_TYPE",
        "Which rows of todolist this worker runs",
        section=_RUNS,
        note="What `submit` submits, too, when none is given. Must match exactly.",
        unit="TYPE",
    )
    polling_interval: float = _setting(
        5.0,
        ("DEFAULT_POLLING_INTERVAL", "POLLING_INTERVAL"),
        "Seconds between sweeps while push is not proven",
        section=_RUNS,
        unit="SECONDS",
        least=0,
    )
    sweep_interval: float = _setting(
        30.0,
        "REACTIVE_WORKER_SWEEP_INTERVAL",
        "Seconds between sweeps while push is proven healthy",
        section=_RUNS,
        unit="SECONDS",
        least=0,
    )
    push: str = _setting(
        "auto",
        "REACTIVE_WORKER_PUSH",
        "How rows are pushed: broadcast, changes, both, or auto = broadcast where it works, else changes",
        section=_RUNS,
        note="Broadcast takes about a millisecond, changes some 200.",
        unit="WAY",
    )
    concurrency: int = _setting(
        10, "REACTIVE_WORKER_CONCURRENCY", "Tasks run at the same time", section=_RUNS, unit="N", least=1
    )
    default_timeout: float | None = _setting(
        None,
        "REACTIVE_WORKER_TASK_TIMEOUT",
        "Seconds a task may run when its row sets no timeout_seconds; 0 = no limit",
        section=_RUNS,
        option="--timeout",
        unit="SECONDS",
        least=_OR_ZERO,
    )
    worker_name: str = _setting(
        "",
        "REACTIVE_WORKER_NAME",
        "Shown in `workers list`; default host name and pid",
        section=_RUNS,
        option="--name",
        unit="NAME",
    )
    lease: float = _setting(
        30.0,
        "REACTIVE_WORKER_LEASE",
        "Seconds until a silent worker's tasks go to others",
        section=_WRONG,
        unit="SECONDS",
        least=0,
    )
    heartbeat: float | None = _setting(
        None,
        "REACTIVE_WORKER_HEARTBEAT",
        "Seconds between renewals of the lease; default a third of it",
        section=_WRONG,
        unit="SECONDS",
        least=0,
    )
    drain_timeout: float = _setting(
        30.0,
        "REACTIVE_WORKER_DRAIN_TIMEOUT",
        "Seconds running tasks get to finish at shutdown",
        section=_WRONG,
        unit="SECONDS",
        least=_OR_ZERO,
    )
    cancel_grace: float = _setting(
        10.0,
        "REACTIVE_WORKER_CANCEL_GRACE",
        "Seconds an executor gets to end after it was cancelled",
        section=_WRONG,
        unit="SECONDS",
        least=_OR_ZERO,
    )
    stall_limit: float = _setting(
        600.0,
        "REACTIVE_WORKER_STALL_LIMIT",
        "Seconds a blocked event loop keeps its lease; 0 = for ever",
        section=_WRONG,
        unit="SECONDS",
        least=_OR_ZERO,
    )
    probe_interval: float = _setting(
        60.0,
        "REACTIVE_WORKER_PROBE_INTERVAL",
        "Seconds between probes of the push channel",
        section=_WRONG,
        unit="SECONDS",
        least=0,
    )
    spool: str = _setting(
        "",
        "REACTIVE_WORKER_SPOOL",
        "Directory for results that could not be delivered at shutdown",
        section=_WRONG,
        unit="DIR",
    )
    artifacts_bucket: str = _setting(
        "",
        "REACTIVE_WORKER_ARTIFACTS_BUCKET",
        "Private storage bucket for files and large results; empty = in the row",
        section=_LARGE,
        note="Made when a worker starts.",
        unit="NAME",
    )
    artifact_limit: int = _setting(
        262_144,
        "REACTIVE_WORKER_ARTIFACT_LIMIT",
        "Bytes of a result that stay in the row when there is a bucket",
        section=_LARGE,
        option="",
        least=1,
    )
    artifact_url_life: int = _setting(
        604_800,
        "REACTIVE_WORKER_ARTIFACT_URL_LIFE",
        "Seconds the URLs of results in the bucket are good for",
        section=_LARGE,
        option="",
        least=1,
    )
    ownerless_buckets: str = _setting(
        "",
        "REACTIVE_WORKER_OWNERLESS_BUCKETS",
        "Buckets whose files a task without an owner may name, by commas; empty = none",
        section=_LARGE,
        note="Where anybody may submit without signing in, anybody could read them.",
        unit="NAMES",
    )
    log_level: str = _setting(
        "INFO",
        "LOG_LEVEL",
        "DEBUG, INFO, WARNING or ERROR",
        section=_LOGS,
        note="DEBUG also shows the traceback of every error.",
        unit="LEVEL",
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            least, value = spec.metadata["least"], getattr(self, spec.name)
            if least is None or value is None:
                continue
            if spec.type == "int":
                if value < least:
                    name = spec.name.replace("_", " ")
                    raise ConfigurationError(f"{name} must be at least {least}, not {value}")
            else:
                _positive(option_of(spec) or spec.name, value, zero=least == _OR_ZERO)
        if self.heartbeat_interval * 2 > self.lease:
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

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between renewals of the lease: what was set, else a third of the lease.

        >>> Settings(lease=15).heartbeat_interval
        5.0
        """
        return self.lease / 3 if self.heartbeat is None else self.heartbeat

    def require_connection(self) -> Settings:
        """Return self when URL and key are usable; raise ConfigurationError saying what to set otherwise."""
        check_url(self.url)
        if not self.key:
            raise ConfigurationError(
                "no Supabase key: set SUPABASE_SERVICE_ROLE_KEY in the environment or .env "
                "(`reactive-worker dev` prints the local one)"
            )
        check_secret("the Supabase key", self.key)
        return self

    def worker_credentials(self) -> Credentials:
        """What a worker identifies itself with: its token beside a key of the project, or the key alone.

        Raises
        ------
        ConfigurationError
            URL, key or token are missing or malformed; the message says what to set.
        """
        from reactive_worker.access.credentials import Credentials, TokenFile

        if self.worker_token and self.worker_token_file:
            raise ConfigurationError("set SUPABASE_WORKER_TOKEN or SUPABASE_WORKER_TOKEN_FILE, not both")
        if not (self.worker_token or self.worker_token_file):
            self.require_connection()
            return Credentials(self.key)
        check_url(self.url)
        source = TokenFile(self.worker_token_file) if self.worker_token_file else self.worker_token
        token = source if isinstance(source, str) else source()
        check_secret("the worker token", token)
        check_secret("the Supabase key", self.key)
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
                    from reactive_worker.access.credentials import read_secret_file

                    text = read_secret_file(Path(path))
                if text:
                    values[spec.name] = _convert(spec.name, str(spec.type), variable, text)
                    break
        if overrides:
            raise ConfigurationError(f"unknown setting: {', '.join(sorted(overrides))}")
        if "url" in values:
            values["url"] = str(values["url"]).rstrip("/")
        return cls(**values)


def option_of(spec: Field[Any]) -> str:
    """The option of `reactive-worker run` that sets a field; empty when there is none."""
    option: str | None = spec.metadata["option"]
    return "--" + spec.name.replace("_", "-") if option is None else option


def _positive(option: str, value: float, *, zero: bool) -> None:
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ConfigurationError(
            f"{option} must be a {'' if zero else 'positive '}number of seconds, not {value:g}"
        )


def converter(kind: str) -> Callable[[str], Any]:
    """What makes a value of a field's type from its text; raises ValueError when called with a wrong one."""
    converters: Mapping[str, Callable[[str], Any]] = {"int": int, "float": float, "float | None": float}
    return converters.get(kind, str)


def _convert(name: str, kind: str, variable: str, text: str) -> Any:
    try:
        return converter(kind)(text)
    except ValueError:
        raise ConfigurationError(
            f"{variable} must be a number, not {redact(text)!r} (setting {name})"
        ) from None


class SettingsOptions(TypedDict, total=False):
    """The fields of `Settings` as keywords: what `Settings.load`, `ReactiveWorker` and others take by name.

    None is "not given": the environment and `.env` have their say. A test compares this with `Settings`.
    """

    url: str | None
    key: str | None
    worker_token: str | None
    worker_token_file: str | None
    agent_type: str | None
    polling_interval: float | None
    sweep_interval: float | None
    push: str | None
    concurrency: int | None
    default_timeout: float | None
    worker_name: str | None
    lease: float | None
    heartbeat: float | None
    drain_timeout: float | None
    cancel_grace: float | None
    stall_limit: float | None
    probe_interval: float | None
    spool: str | None
    artifacts_bucket: str | None
    artifact_limit: int | None
    artifact_url_life: int | None
    ownerless_buckets: str | None
    log_level: str | None
