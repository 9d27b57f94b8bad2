"""`python -m reactive_worker`: the same as `reactive-worker`."""

import sys

from reactive_worker.cli import main

sys.exit(main())
