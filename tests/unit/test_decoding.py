"""Types that several threads decode for the first time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PLAN = next((Path(__file__).parents[1] / "data").rglob("plan.json"))
TRIES = 20
SCRIPT = """
import sys, threading
from pathlib import Path
from provisioning.core.workflow import Plan
from provisioning.decoding import decoded

data, found = Path(sys.argv[1]).read_bytes(), []
sys.setswitchinterval(1e-6)
together = threading.Barrier(4)

def first():
    together.wait()
    found.append(decoded(data, Plan))

threads = [threading.Thread(target=first) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert found == [found[0]] * 4
"""


def test_threads_may_be_the_first_together() -> None:
    """With msgspec alone one process in three dies of it."""
    for _ in range(TRIES):
        subprocess.run([sys.executable, "-c", SCRIPT, str(PLAN)], check=True, timeout=60)
