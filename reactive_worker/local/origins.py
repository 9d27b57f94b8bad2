"""Who may speak to a server on loopback: this machine's programs and pages, and no page from elsewhere.

A browser on this machine reaches loopback for every page it shows. The keys are published ones, so they keep
no page out; what the browser says of itself does: the `Host` it believes to speak to (another name that was
made to lead here: DNS rebinding) and the `Origin` the request comes from.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine and nothing else.

    Example
    -------
    >>> is_loopback("127.0.0.1"), is_loopback("app.localhost"), is_loopback("localhost.example.org")
    (True, True, False)
    """
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _host_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        # Also to find out that the port is one.
        return (parts.hostname or "") if parts.port is None or parts.port >= 0 else ""
    except ValueError:
        return ""


def stranger(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What shows that a request does not come from this machine; None if nothing does.

    Parameters
    ----------
    headers:
        Of the request, names in lower case.

    Returns
    -------
    str | None
        The reason for the answer.
    """
    for name, value in headers:
        text = value.decode("latin-1").strip()
        if name == b"host" and text and not is_loopback(_host_of(f"//{text}")):
            return "the Host of a request must be this machine: localhost or 127.0.0.1"
        # "null" is what sandboxed frames and files of any page say.
        if name == b"origin" and not is_loopback(_host_of(text)):
            return "the Origin of a request must be a page of this machine: http://localhost:... for example"
    return None
