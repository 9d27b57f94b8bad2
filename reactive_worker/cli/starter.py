"""What `init` writes besides the Supabase project: the least that works on this machine, to be changed."""

from __future__ import annotations

AGENT_TYPE = "hello"

AGENTS = '''\
"""An agent: what it returns is its result, what it yields is streamed."""

import asyncio


async def hello(prompt):
    for word in f"You said: {prompt}".split():
        yield word + " "
        await asyncio.sleep(0.2)
'''

ENVIRONMENT = """\
# For `reactive-worker dev` and `supabase start`, whose keys are the same on every
# machine and no secret. env.example explains all settings.
SUPABASE_URL=http://127.0.0.1:54321
SUPABASE_SERVICE_ROLE_KEY={key}
DEFAULT_AGENT_TYPE={agent_type}
"""

IGNORED = """\
.env
.reactive-worker/
__pycache__/
supabase/.temp/
supabase/.branches/
"""


def starters() -> dict[str, str]:
    """``{name: text}`` of the files that are written where there are none of that name yet."""
    from reactive_worker.local.keys import Keys

    return {
        "agents.py": AGENTS,
        ".env": ENVIRONMENT.format(key=Keys.default().service_role_key, agent_type=AGENT_TYPE),
        ".gitignore": IGNORED,
    }
