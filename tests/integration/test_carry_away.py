"""Reports and bundles as people make them: by commands, of real workflows, into files."""

from __future__ import annotations

import json

import pytest

from tests.installation import Installation
from tests.integration.test_cli import provisioning
from tests.integration.test_watch import commands, twice
from tests.waiting import wait_for

pytestmark = pytest.mark.nu


def test_a_report_in_every_form(site: Installation) -> None:
    workflow_id = site.run([commands("a", "echo '<b>'; exit 3"), twice(site)], on_failure="continue")
    done = provisioning(site, "workflow", "report", workflow_id, "-o", "r.html")
    assert done.stdout.decode().strip() == "r.html"
    html = (site.root / "r.html").read_text("utf-8")
    assert html.startswith("<!DOCTYPE html>")
    assert "&lt;b&gt;" in html
    assert "1 retry of 1 task" in html
    provisioning(site, "workflow", "report", workflow_id, "-o", "r.html", code=5)
    provisioning(site, "workflow", "report", workflow_id, "-o", "r.html", "--force")
    provisioning(site, "workflow", "report", workflow_id, "-o", str(site.spool.root / "r.html"), code=5)
    provisioning(site, "workflow", "report", workflow_id, "-o", "nowhere/r.html", code=4)
    provisioning(site, "workflow", "report", workflow_id, "-o", "r.pdf", code=2)
    assert not (site.root / "r.pdf").exists()
    provisioning(site, "workflow", "report", workflow_id, "-o", "r.pdf", "--format", "html")
    assert provisioning(site, "workflow", "report", workflow_id).stdout.startswith(b"<!DOCTYPE html>")
    page = json.loads(provisioning(site, "workflow", "report", workflow_id, "--format", "json").stdout)
    assert page["workflow"] == json.loads(provisioning(site, "workflow", "status", workflow_id, "--json").stdout)
    assert [failure["task_id"] for failure in page["failures"]] == ["a"]
    assert all(each["kept"] for each in page["guarantees"])
    assert [each["promise"] for each in page["guarantees"] if "outlives" in each["promise"]]
    provisioning(site, "workflow", "report", workflow_id, "-o", "r.md")
    assert (site.root / "r.md").read_text("utf-8").startswith("# trial: failed\n")


def test_a_bundle_is_made_and_checked(site: Installation) -> None:
    workflow_id = site.run([commands("a", "echo done")])
    path = provisioning(site, "workflow", "bundle", workflow_id).stdout.decode().strip()
    assert path == str(site.root / f"provisioning-{workflow_id}.tgz")
    assert provisioning(site, "bundle", "verify", path).stdout.startswith(f"ok: workflow {workflow_id}, ".encode())
    with open(path, "rb") as file:
        assert provisioning(site, "bundle", "verify", "-", stdin=file.read()).stdout.startswith(b"ok: ")
    provisioning(site, "workflow", "bundle", workflow_id, "-o", path, code=5)
    provisioning(site, "bundle", "verify", "no-such-file", code=4)
    (site.root / "cut.tgz").write_bytes(b"\x1f\x8b")
    provisioning(site, "bundle", "verify", "cut.tgz", code=6)
    found = json.loads(provisioning(site, "bundle", "verify", path, "--json").stdout)
    assert found["ok"]
    assert found["about"]["versions"]["nushell"]


def test_an_attempt_that_outlived_its_orchestrator_is_in_the_report(site: Installation) -> None:
    first = site.orchestrator()
    workflow_id = site.submit([commands("long", "echo begun; sleep 3")])
    log = site.spool.workflows / workflow_id / "logs" / "long.1.log"
    wait_for(lambda: log.exists() and log.read_bytes() == b"begun\n", what="its start")
    first.kill()
    first.wait()
    site.orchestrator()
    assert site.wait_ended(workflow_id) == "succeeded"
    page = json.loads(provisioning(site, "workflow", "report", workflow_id, "--format", "json").stdout)
    (said,) = [each["evidence"] for each in page["guarantees"] if each["promise"] == "A task outlives its orchestrator"]
    assert said == "taken over once; 1 attempt outlived the process that had started them"
