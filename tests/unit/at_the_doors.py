"""Files of the drop door and of the audit log, as tests of the check put them into a spool."""

from __future__ import annotations

from pathlib import Path

from provisioning.config import Audit as Settings
from provisioning.core.drop import Answer, Receipt, Sight
from provisioning.core.workflow import FORMAT
from provisioning.storage import drop, files
from provisioning.storage.audit import Audit
from provisioning.storage.checkpoint import encode
from provisioning.storage.lock import Lock
from provisioning.storage.spool import Spool
from tests.simulation.values import EPOCH


def put_at_the_doors(spool: Spool, workflow: Path) -> None:
    """One of each file of the drop door and of the audit log."""
    sight = Sight(b"a.toml", 1, 2, 0o100644, 0, 0, 1, 3, 4, 5)
    origin = drop.origin_of("root", sight, kind="manifest", form="toml")
    for each in (origin, drop.origin_of("root", sight, kind="request")):
        drop.take(spool, drop.Take(each, b"x", b"y"))
    for name in ("origin.json", "manifest.sig"):
        files.write_new(workflow / name, encode(origin), durable=False)
    receipt = Receipt(FORMAT, "a.toml", "root", "accepted", EPOCH)
    drop.save_answer(spool, Answer(FORMAT, origin.take_id, "root", "a.toml", receipt))
    files.write_new(spool.ids / "request~x.json", (spool.ids / "nightly.json").read_bytes(), durable=False)
    for _ in range(2):
        Audit(spool.root, Settings(bytes=1)).append("accepted", operator="alice")
    Lock(spool.locks / "intake").take()


def take_under_another_id(spool: Spool, path: Path) -> None:
    sight = Sight(b"a.toml", 1, 2, 0o100644, 0, 0, 1, 3, 4, 5)
    path.parent.mkdir()
    path.write_bytes(encode(drop.origin_of("root", sight, kind="manifest", form="toml")))


def change_a_record(spool: Spool, path: Path) -> None:
    Audit(spool.root).append("accepted", operator="alice")
    path.write_bytes(path.read_bytes().replace(b"alice", b"mallo"))
