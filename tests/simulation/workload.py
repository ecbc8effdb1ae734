"""What is run in a history: operations without Nushell, and random workflows of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

from provisioning.core.catalogue import Catalogue, Operation
from provisioning.core.tasks import Sources
from provisioning.core.workflow import Condition, Retry, Task, Undo, Workflow
from provisioning.execution.nulib import Nulib
from provisioning.execution.nushell import Nushell
from provisioning.storage import files
from provisioning.storage.spool import Spool
from tests.simulation.world import PROBE

GROUPS = {"narrow": 1}
"""What the config says of groups."""
OPERATIONS: dict[str, dict[str, Any]] = {
    "work.once": {"idempotent": False, "shared": ("x",)},
    "work.again": {"idempotent": True},
    "work.probed": {"idempotent": False, "probe": PROBE, "exclusive": ("x",)},
    PROBE: {"idempotent": True},
    "work.undo": {"idempotent": True, "exclusive": ("x",)},
    "work.undo-once": {"idempotent": False},
}


class FakeNulib(NamedTuple):
    """Operations without Nushell."""

    catalogue: Catalogue
    nu: Nushell

    def sources(self, _spool: Callable[[], Spool]) -> Sources:
        return Sources()

    def keep(self, spool: Spool) -> None:
        entries = {f"entries/{name}.nu": b"" for name in OPERATIONS}
        files.publish_tree(entries, spool.nulib / self.catalogue.digest, spool.scratch)


def load_nulib() -> Nulib:
    operations = {name: Operation(name, name, "", "", (), {}, **facts) for name, facts in OPERATIONS.items()}
    return cast(Nulib, FakeNulib(Catalogue("d" * 64, operations), Nushell(Path("/nu"), (0, 115, 1))))


def random_workflow(chance: random.Random) -> Workflow:
    names = [f"t{i}" for i in range(chance.randint(1, 6))]
    tasks = []
    for i, name in enumerate(names):
        operation = chance.choice(["work.once", "work.once", "work.again", "work.probed"])
        waits = [other for other in names[:i] if chance.random() < 0.35]
        after = {other for other in waits if chance.random() < 0.3}
        asked = [other for other in waits if other not in after and chance.random() < 0.3]
        tasks.append(
            Task(
                name,
                operation,
                depends_on=tuple(other for other in waits if other not in after),
                after=tuple(other for other in waits if other in after),
                retry=Retry(max_attempts=chance.randint(1, 3), initial_delay_seconds=chance.choice([0.0, 1.0, 7.0])),
                on_interrupt="probe" if operation == "work.probed" else None,
                undo=chance.choice([None, Undo("work.undo", {}), Undo("work.undo-once", {})]),
                when=Condition(asked[0], "result.present", chance.random() < 0.7) if asked else None,
                on_failure=chance.choice([None, None, None, "stop", "continue", "rollback"]),
                group=chance.choice([None, None, "narrow"]),
            )
        )
    chance.shuffle(tasks)
    return Workflow(
        "random",
        tuple(tasks),
        priority=chance.choice([10, 50, 90]),
        max_parallel=chance.choice([None, 1, 2]),
        on_failure=chance.choice(["stop", "continue", "rollback"]),
    )
