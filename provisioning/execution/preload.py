"""What the forkserver of `multiprocessing` imports before it serves; here alone an import does something.

The forkserver is the parent of all workers. What a worker leaves when it is killed becomes its child, and it buries all
its children: so no zombie waits for a pid 1 that never does, as in many containers.
"""

from __future__ import annotations

import warnings

from provisioning.execution import parsers, worker
from provisioning.execution.family import adopt_orphans

__all__ = ["parsers", "worker"]

adopt_orphans()
warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")
