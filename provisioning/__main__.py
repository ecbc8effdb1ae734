"""Entry points of the installed commands."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """The `provisioning` command."""
    gc.set_threshold(100_000)  # starting allocates much and frees nothing: collecting then costs a tenth of a command
    from provisioning.cli import run

    sys.exit(run(sys.argv[1:]))


def orchestrator() -> None:
    """The `provisioning-orchestrator` command: `provisioning orchestrator run`."""
    sys.argv[1:1] = ["orchestrator", "run"]
    main()


if __name__ == "__main__":
    main()
