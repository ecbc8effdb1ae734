"""The whole collection of bad files in one drop folder at once: each gets its reason, and nothing else suffers."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioning.core.drop import REASONS, Receipt
from provisioning.core.proof import seal
from provisioning.orchestrator.trust import own_name
from provisioning.storage import drop, receipts
from provisioning.storage.audit import Audit
from provisioning.storage.check import check
from tests.disks import in_memory
from tests.hostile.bad_files import Bad, bad_files, holding, manifest, proved
from tests.hostile.signed_files import key_pairs, signed_files
from tests.installation import Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

GRACE_SECONDS = 6
IDLE_MIB = 100
OTHER = "games"
"""A user whom every Debian has, and who owns no file."""


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    with in_memory(tmp_path) as folder:
        yield folder


@pytest.fixture
def site(memory: Path, cache_dir: Path) -> Iterator[Installation]:
    made = Installation(memory, cache_dir)
    made.settings(
        drop_grace_seconds=GRACE_SECONDS,
        drop_host="here",
        drop_signature="optional",
        paths_authority=memory / "authority.toml",
        paths_signers=memory / "allowed_signers",
        paths_revoked=memory / "revoked_keys",
        orchestrator_scan_seconds=1,
    )
    yield made
    made.close()


def door(site: Installation, name: str) -> Path:
    """The drop folder of a user, where anybody may pass through to it."""
    folder = site.spool.drop / name
    folder.mkdir(mode=0o700)
    os.chown(folder, pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid)
    return folder


def receipt(folder: Path, name: bytes) -> Receipt | None:
    return receipts.read(folder / receipts.name_of(drop.quoted(name)))


def put_good(folder: Path, name: str, marks: Path) -> float:
    """Drop a good manifest that leaves a mark; the seconds until it is accepted."""
    mark = {"id": "a", "operation": "selftest.mark", "params": {"file": str(marks), "line": name}}
    data = manifest(name=name, tasks=[mark])
    path = folder / f".{name}"
    path.write_bytes(data)
    owner = folder.stat()
    os.chown(path, owner.st_uid, owner.st_gid)
    listing = folder / f"{name}.json.sha256"
    proved(data)(path.with_name(f".proof-{name}.json"))
    listing.write_bytes(path.with_name(f".proof-{name}.json.sha256").read_bytes().replace(b".proof-", b""))
    for left in folder.glob(f".proof-{name}.json*"):
        left.unlink()
    began = time.monotonic()
    path.rename(folder / f"{name}.json")

    def accepted() -> bool:
        found = receipt(folder, f"{name}.json".encode())
        return found is not None and found.answer == "accepted"

    wait_for(accepted, 60, f"the receipt of {name}")
    return time.monotonic() - began


def resident_mib(pid: int) -> float:
    """Memory of the process, in MiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", text)[0]) / 1024


def codes(folder: Path, files: list[Bad]) -> dict[bytes, str]:
    found = {}
    for bad in files:
        there = receipt(folder, bad.name)
        reason = there.reason if there and there.answer == "rejected" else None
        found[bad.name] = reason.code if reason else f"({there.answer if there else 'no receipt'})"
    return found


def everything_written(site: Installation) -> Iterator[tuple[Path, bytes]]:
    """All that people look at: logs, what was printed, receipts, the audit log."""
    for path in (*site.spool.root.rglob("*.log"), *site.root.glob("said.*"), *site.spool.drop.rglob("*.receipt.json")):
        yield path, path.read_bytes()
    for path in (site.spool.root / "audit").iterdir():
        yield path, path.read_bytes()


def test_each_has_its_reason_and_nothing_else_suffers(site: Installation) -> None:
    folder = door(site, own_name())
    keys = key_pairs(site.root, own_name())
    process = site.orchestrator()
    alone = [put_good(folder, f"alone-{number}", site.marks) for number in range(5)]
    idle = resident_mib(process.pid)
    files = [*bad_files(), *signed_files(keys)]
    assert len(files) >= 150
    among = []
    for number, bad in enumerate(files):
        bad.put(folder)
        if number % 50 == 25:
            among.append(put_good(folder, f"among-{number}", site.marks))
    expected = {bad.name: bad.code for bad in files}
    with contextlib.suppress(AssertionError):  # what follows says which
        wait_for(lambda: "(" not in {code[:1] for code in codes(folder, files).values()}, 60, "all receipts")
    found = codes(folder, files)
    assert {name: (code, found[name]) for name, code in expected.items() if found[name] != code} == {}
    assert set(expected.values()) <= set(REASONS)
    print(f"accepted alone in {statistics.median(alone):.2f} s, among in {statistics.median(among):.2f} s")  # noqa: T201
    share = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # of a processor, where other tests run beside this
    assert statistics.median(among) <= statistics.median(alone) + 1.0 * share
    assert (process.poll(), resident_mib(process.pid) < idle + IDLE_MIB) == (None, True)
    nothing_is_obeyed(site)
    wait_for(lambda: len(site.mark_lines()) == len(alone) + len(among), 30, "the good ones")
    again(site, folder, files, expected)


def nothing_is_obeyed(site: Installation) -> None:
    """No traceback, and no character that a terminal obeys."""
    for path, data in everything_written(site):
        assert b"Traceback" not in data, path
        odd = [byte for byte in data if byte < 0x20 and byte not in b"\n\t"]
        assert odd == [], path
    status = site.start("spool", "status")
    shown = site.start("audit", "show")
    assert (status.wait(60), shown.wait(60)) == (0, 0)


def again(site: Installation, folder: Path, files: list[Bad], expected: dict[bytes, str]) -> None:
    """After a restart with everything still there, and dropped once more, nothing is done twice."""
    marks, rejected = site.mark_lines(), len(os.listdir(site.spool.rejected))
    site._started[0].kill()
    site._started[0].wait()
    process = site.orchestrator()
    put_good(folder, "after", site.marks)
    wait_for(lambda: len(site.mark_lines()) == len(marks) + 1, 30, "the one after the restart")
    assert sorted(site.mark_lines()) == sorted([*marks, "after"])
    assert codes(folder, files) == expected
    assert len(os.listdir(site.spool.rejected)) == rejected
    assert process.poll() is None
    assert Audit(site.spool.root).verify()[0] == []
    assert [problem for problem in check(site.spool.root) if problem.code != "unsafe-parent"] == []


@pytest.mark.root
def test_others_files_and_grants(site: Installation) -> None:
    folder = door(site, OTHER)
    uid = pwd.getpwnam(OTHER).pw_uid
    (site.root / "authority.toml").write_text(
        f'[[grant]]\noperators = ["{OTHER}"]\noperations = ["selftest.echo"]\ninfras = ["demo"]\n'
        'params = { value = "pinned-*" }\n'
    )
    site.orchestrator()
    echo = {"id": "a", "operation": "selftest.echo", "params": {"value": "pinned-x"}}
    files = {
        "own.json": ("", manifest(infra="demo", tasks=[echo]), uid),
        "infra.json": ("not-granted", manifest(tasks=[echo]), uid),
        "param.json": ("not-granted", manifest(infra="demo", tasks=[echo | {"params": {"value": "x"}}]), uid),
        "operation.json": ("not-granted", manifest(infra="demo"), uid),
        "one-of-two.json": (
            "not-granted",
            manifest(infra="demo", tasks=[echo, {"id": "b", "operation": "selftest.noop"}]),
            uid,
        ),
        "of-root.json": ("wrong-owner", manifest(), 0),
        "of-a-third.json": ("wrong-owner", manifest(), 1),
    }
    for name, (_, data, owner) in files.items():
        proved(data)(folder / name)
        os.chown(folder / f"{name}.sha256", uid, -1)
        os.chown(folder / name, owner, -1)
    group = folder / "group.toml"
    holding(seal(b"schema = 1\n"), mode=0o660)(group)
    os.chown(group, uid, 100)
    wait_for(lambda: all(receipt(folder, name.encode()) for name in (*files, "group.toml")), 40, "all receipts")
    found = {name: getattr(found.reason, "code", "") for name in files if (found := receipt(folder, name.encode()))}
    assert found == {name: code for name, (code, _, _) in files.items()}
    said = receipt(folder, b"group.toml")
    assert said is not None
    assert said.reason is not None
    assert said.reason.code == "writable-by-others"
