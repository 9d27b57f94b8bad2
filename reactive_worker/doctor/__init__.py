"""`reactive-worker doctor`: looks at a Supabase, says what is not as it must be, and what mends it.

`facts` looks and judges nothing, `judgement` judges and looks at nothing, `wanted` is what migrations make.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from reactive_worker.access.credentials import Credentials
from reactive_worker.access.redaction import redact
from reactive_worker.doctor.facts import Facts, gather
from reactive_worker.doctor.findings import Finding, Kind, Level, exit_code
from reactive_worker.doctor.judgement import judge
from reactive_worker.doctor.wanted import wanted as as_migrated

__all__ = ["Facts", "Finding", "Kind", "Level", "examine", "exit_code", "gather", "judge"]


async def examine(
    url: str,
    credentials: Credentials,
    *,
    db_url: str | None = None,
    timeout: float = 10.0,
    probe: bool = True,
) -> list[Finding]:
    """Look at a Supabase and judge it.

    Parameters
    ----------
    url:
        Project URL.
    credentials:
        What a worker would use: a secret key, or any key of the project with a worker's token.
    db_url:
        Connection string, to look into the database directly as well.
    timeout:
        Seconds to wait for Realtime: to be let in, and for each echo.
    probe:
        Whether to send a probe through Realtime; everything else only reads.

    Returns
    -------
    list[Finding]
        In the order in which to mend.

    Raises
    ------
    ConfigurationError
        The URL is malformed; `db_url` was given and psycopg is not installed.

    Example
    -------
    >>> findings = await examine("http://127.0.0.1:54321", Credentials(key))  # doctest: +SKIP
    >>> [finding.name for finding in findings if finding.level != "ok"]  # doctest: +SKIP
    []
    """
    facts = await gather(url, credentials, db_url=db_url, timeout=timeout, probe=probe)
    findings = judge(facts, as_migrated(), datetime.now(UTC))
    # They quote servers and libraries.
    return [replace(finding, what=redact(finding.what)) for finding in findings]
