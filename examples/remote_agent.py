"""A worker whose tasks are done by an A2A agent somewhere else.

    REMOTE_AGENT_URL=http://127.0.0.1:9999 python examples/remote_agent.py --agent-type remote

Takes the options of `reactive-worker run`. REMOTE_AGENT_TOKEN, if set, is sent as a bearer token.
"""

import os
import sys

from dotenv import load_dotenv

from reactive_worker.cli import main
from reactive_worker.executors.remote_a2a import RemoteA2AExecutor


def executor() -> RemoteA2AExecutor:
    load_dotenv()
    token = os.environ.get("REMOTE_AGENT_TOKEN")
    return RemoteA2AExecutor(
        os.environ["REMOTE_AGENT_URL"],
        headers={"Authorization": f"Bearer {token}"} if token else None,
    )


if __name__ == "__main__":
    sys.exit(main(["run", "remote_agent:executor", *sys.argv[1:]]))
