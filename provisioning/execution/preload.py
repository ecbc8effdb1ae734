"""What the forkserver of `multiprocessing` imports before it serves; here alone an import does something.

The forkserver is the parent of all workers. What a worker leaves when it is killed becomes its child, and it buries all
its children: so no zombie waits for a pid 1 that never does, as in many containers. It ends with the orchestrator, and
by no signal for that one that was sent to the whole group: without it the pool takes its workers for dead.
"""

from __future__ import annotations

import os
import signal
import warnings

from provisioning.execution import parsers, worker
from provisioning.execution.family import adopt_orphans

__all__ = ["parsers", "worker"]

_FOR_THE_ORCHESTRATOR = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


def _mind(handler: signal.Handlers) -> None:
    for number in _FOR_THE_ORCHESTRATOR:
        signal.signal(number, handler)


def _hold() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_ORCHESTRATOR)


def _let() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_THE_ORCHESTRATOR)


def _hear() -> None:
    """A child must hear what is said to it, from its first moment: what came while it was made is held, not ignored."""
    _mind(signal.SIG_DFL)
    _let()


adopt_orphans()
_mind(signal.SIG_IGN)
os.register_at_fork(before=_hold, after_in_parent=_let, after_in_child=_hear)
warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")
