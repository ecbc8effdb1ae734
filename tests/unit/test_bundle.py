"""Bundles: the same for the same files, without secrets, and whatever was changed in one is seen."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from provisioning.clock import now
from provisioning.core.redacted import without_literals
from provisioning.core.workflow import Plan, Submission, Task
from provisioning.errors import NotFound, SpoolUnusable
from provisioning.storage import files
from provisioning.storage.audit import Audit
from provisioning.storage.bundle import ABOUT, AUDIT, LOG_BYTES, SUMS, bundle, verify
from provisioning.storage.spool import Spool
from provisioning.views.report import report_json, report_of
from tests.unit.test_report import SECRET, claimed, failed
from tests.unit.test_views import ID

NAMED = {"upcloud-token": "s3cret-of-upcloud"}
OTHER = ID[:-1] + "9"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """With one workflow, in whose files there are secrets, and records about it and another."""
    made = Spool.create(tmp_path / "spool")
    folder = failed(made)
    files.append(folder.log_path("b", 3), f"token={NAMED['upcloud-token']}\n".encode())
    for workflow_id in (ID, OTHER, ID):
        Audit(made.root).append("started", workflow_id=workflow_id)
    files.append(made.logs / "orchestrator.log", f"workflow {ID}: taken\nworkflow {OTHER}: taken\n".encode())
    return made


def packed(spool: Spool, *, compress: bool = False) -> bytes:
    out = io.BytesIO()
    bundle(spool, ID, out, compress=compress, secrets=NAMED, about={"versions": {"provisioning": "0"}})
    return out.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: content.read() for info in tar if (content := tar.extractfile(info))}


def repacked(found: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in found.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("compress", [False, True])
def test_the_same_files_give_the_same_bundle(spool: Spool, compress: bool) -> None:
    one = packed(spool, compress=compress)
    assert one == packed(spool, compress=compress)
    checked = verify(io.BytesIO(one), "x")
    assert (checked.problems, checked.workflow_id) == ([], ID)


def test_all_of_the_workflow_is_in_it_and_nothing_of_others(spool: Spool) -> None:
    found = members(packed(spool))
    kept = {name.removeprefix(f"workflows/{ID}/") for name in found}
    wanted = (
        "manifest.json submission.json plan.json workflow.json tasks/a.json tasks/b.json outcomes/b.3.json logs/b.3.log"
    )
    assert kept >= {*wanted.split(), "events.jsonl", AUDIT, "orchestrator.log", ABOUT, SUMS}
    assert [json.loads(line)["n"] for line in found[AUDIT].splitlines()] == [1, 3]
    assert not [name for name, data in found.items() if OTHER.encode() in data]
    assert list(found)[-1] == SUMS


def test_no_secret_is_in_it_and_what_it_was_taken_out_of_is_named(spool: Spool) -> None:
    found = members(packed(spool))
    for secret in (SECRET, *NAMED.values()):
        assert not [name for name, data in found.items() if secret.encode() in data]
    about = json.loads(found[ABOUT])
    assert f"workflows/{ID}/plan.json" in about["redacted"]
    assert f"workflows/{ID}/logs/b.3.log" in about["redacted"]
    assert f"workflows/{ID}/workflow.json" not in about["redacted"]
    plan = msgspec.json.decode(found[f"workflows/{ID}/plan.json"], type=Plan)  # it can be read all the same
    assert plan.workflow.tasks[0].params["token"] == "***"
    assert plan.workflow.tasks[1].params["token"] == {"credential": "upcloud-token"}


def test_a_secret_that_is_too_short_to_be_looked_for_is_no_param_either(spool: Spool) -> None:
    plan = spool.find(ID).plan()
    assert plan
    task = msgspec.structs.replace(plan.workflow.tasks[0], params={"token": 7})
    changed = msgspec.structs.replace(plan, workflow=msgspec.structs.replace(plan.workflow, tasks=(task,)))
    assert without_literals(changed).workflow.tasks[0].params == {"token": "***"}


def test_what_stands_under_a_key_that_tells_of_a_secret_is_taken_out(tmp_path: Path) -> None:
    """Though no operation declares it: of reports and bundles alike, wherever it shows."""
    made, secrets = Spool.create(tmp_path / "spool"), ("pa55w0rd-1", "t0ken-2")
    params = {"env": {"DB_PASSWORD": secrets[0], "SHELL": "/bin/sh"}, "api_keys": [secrets[1]], "token_path": "/t"}
    folder = claimed(made, (Task("a", "x.y", params={**params, "token": {"credential": "upcloud-token"}, "pin": 7}),))
    files.append(folder.log_path("a", 1), " ".join(secrets).encode())
    report = json.dumps(report_json(report_of(folder, now())))
    for text in (report, *(data.decode() for data in members(packed(made)).values())):
        assert not [secret for secret in secrets if secret in text]
    for kept in ("/bin/sh", "token_path", "upcloud-token"):
        assert kept in report


def test_of_a_long_log_the_end_is_in_it(spool: Spool) -> None:
    files.append(spool.find(ID).log_path("a", 1), b"x" * LOG_BYTES + b"the end\n")
    log = members(packed(spool))[f"workflows/{ID}/logs/a.1.log"]
    assert log.startswith(b"[8 bytes left out here]\n")
    assert log.endswith(b"the end\n")


@pytest.mark.parametrize("compress", [False, True])
def test_what_stands_behind_its_end_is_seen(spool: Spool, *, compress: bool) -> None:
    data = packed(spool, compress=compress)
    assert not verify(io.BytesIO(data), "x").problems
    for more in (b"x" * 700, b"\0" * 20_000 + b"x"):
        with pytest.raises(SpoolUnusable, match=r"x goes on behind its end|x is no whole bundle"):
            verify(io.BytesIO(data + more), "x")


def test_standard_tools_can_check_it(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "b.tgz").write_bytes(packed(spool, compress=True))
    script = "mkdir out && tar -xzf b.tgz -C out && cd out && sha256sum --quiet -c SHA256SUMS"
    subprocess.run(["/bin/sh", "-c", script], cwd=tmp_path, check=True, timeout=30)


def changed(name: str, data: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(found: dict[str, bytes]) -> None:
        found[name] = data

    return change


TASK = f"workflows/{ID}/tasks/a.json"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (changed(TASK, b"{}\n"), "wrong-digest"),
        (changed(f"workflows/{ID}/tasks/z.json", b"{}\n"), "foreign-file"),
        (lambda found: found.pop(TASK), "no-file"),
        (changed(ABOUT, b"{}"), "wrong-digest"),
        (changed(ABOUT, b'{"redacted": 1}'), "damaged"),
    ],
)
def test_what_was_changed_is_named(spool: Spool, change: Callable[[dict[str, bytes]], None], code: str) -> None:
    found = members(packed(spool))
    sums = found.pop(SUMS)
    change(found)
    checked = verify(io.BytesIO(repacked({**found, SUMS: sums})), "x")
    assert code in {problem.code for problem in checked.problems}


def with_other_digest(data: bytes) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(msgspec.json.decode(data, type=Submission), digest="0" * 64))


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        (AUDIT, lambda data: data.replace(b"started", b"stopped", 1), "broken-chain"),
        (TASK, lambda _: b"{}\n", "damaged"),
        (f"workflows/{ID}/submission.json", with_other_digest, "wrong-digest"),
    ],
)
def test_who_makes_the_sums_anew_is_found_by_what_does_not_go_together(
    spool: Spool, name: str, change: Callable[[bytes], bytes], code: str
) -> None:
    import hashlib

    found = members(packed(spool))
    about = json.loads(found[ABOUT])
    about["redacted"] = []
    found |= {name: change(found[name]), ABOUT: json.dumps(about).encode()}
    del found[SUMS]
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {each}\n" for each, data in found.items())
    checked = verify(io.BytesIO(repacked({**found, SUMS: sums.encode()})), "x")
    assert code in {problem.code for problem in checked.problems}


def test_what_is_no_bundle_is_refused(spool: Spool) -> None:
    data = packed(spool)
    for bad in (b"", b"x" * 2000, data[: len(data) // 2], packed(spool, compress=True)[:-500]):
        with pytest.raises(SpoolUnusable):
            verify(io.BytesIO(bad), "x")
    found = members(data)
    for name in ("../x", "/etc/passwd", f"workflows/{ID}/tasks/../x.json", "x" * 300):
        with pytest.raises(SpoolUnusable, match="is no bundle"):
            verify(io.BytesIO(repacked({name: b"", **found})), "x")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
def test_a_member_that_is_no_file_is_refused(spool: Spool, kind: bytes) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(f"workflows/{ID}/plan.json")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(SpoolUnusable, match="is no bundle"):
        verify(io.BytesIO(out.getvalue()), "x")


def test_a_workflow_that_is_not_there_has_none(spool: Spool) -> None:
    with pytest.raises(NotFound):
        bundle(spool, OTHER, io.BytesIO(), compress=False, secrets={}, about={})
