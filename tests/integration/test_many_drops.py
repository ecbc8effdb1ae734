"""Very many drops at once: each costs what it costs among few, and none is lost."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from datetime import datetime
from pathlib import Path
from statistics import median

import pytest

from provisioning.core.proof import seal
from provisioning.orchestrator.trust import own_name
from provisioning.storage.audit import Audit
from tests.disks import in_memory
from tests.doors import GOOD
from tests.installation import Installation
from tests.waiting import wait_for

pytestmark = [pytest.mark.nu, pytest.mark.long]

FLAT = 1.3
LATER = GOOD.replace(b'name = "x"', b'name = "x"\nnot_before = 2100-01-01T00:00:00Z')
"""It is accepted, and not begun: what is measured is the door."""


def seconds_each(root: Path, cache: Path, count: int) -> float:
    """The time from the first taking until nearly all are accepted, by manifest, of so many that arrive at once.

    Not the last ones: what was looked at in the very instant in which it came is looked at once more.
    """
    root.mkdir(parents=True)
    site = Installation(root, cache)
    folder = site.spool.drop / own_name()
    folder.mkdir(mode=0o700)
    names = [f"m{number}.toml" for number in range(count)]
    for name in ["first.toml", *names]:
        (folder / f".{name}").write_bytes(seal(LATER + f"# {name}\n".encode()))
        (folder / f".{name}").chmod(0o600)
    try:
        site.orchestrator()
        (folder / ".first.toml").rename(folder / "first.toml")
        wait_for((folder / "first.toml.receipt.json").exists, 60, "the first one, for which all is got ready")
        for name in names:
            (folder / f".{name}").rename(folder / name)
        wait_for(lambda: len(os.listdir(site.spool.incoming)) == 1 + count, 900, f"{count} acceptances")
        wait_for(lambda: len(list(folder.glob("*.receipt.json"))) == 1 + count, 60, "the receipts")
        known = set(names)
        records = [each for each in Audit(site.spool.root).records() if each.get("name") in known]
        assert Counter(each["event"] for each in records) == {"taken": count, "accepted": count}
        assert len({each["name"] for each in records}) == count
        assert Audit(site.spool.root).verify()[0] == []
        at = [datetime.fromisoformat(each["at"]).timestamp() for each in records]
        nearly = int(0.95 * len(at))
        return (sorted(at)[nearly] - min(at)) / count
    finally:
        site.close()
        shutil.rmtree(root)


@pytest.mark.timeout(2000)
def test_ten_thousand_at_once_take_each_as_long_as_of_a_hundred(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    with in_memory(tmp_path) as memory:
        few = median(seconds_each(memory / f"few-{number}", cache, 100) for number in range(5))
        many = seconds_each(memory / "many", cache, 10_000)
    print(f"of 100: {few * 1000:.2f} ms each, of 10,000: {many * 1000:.2f} ms each, ratio {many / few:.2f}")  # noqa: T201
    assert many <= FLAT * few
