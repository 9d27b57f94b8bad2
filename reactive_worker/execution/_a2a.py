"""The one attribute of a2a-sdk's that is not public and is used here: the request of a RequestContext.

It has no setter: a context is made with its request. A row's context gets that of a later turn, and that of
`cancel()` has none. Checked with a2a-sdk 1.3; a test holds it against the version that is installed.
"""

from __future__ import annotations

from a2a.server.agent_execution import RequestContext
from a2a.types import SendMessageRequest


def set_request(context: RequestContext, request: SendMessageRequest | None) -> None:
    """Give a context another request, or none."""
    context._params = request  # pyright: ignore[reportPrivateUsage] - see above
