"""The run that is recorded: what a power cut may meet, said by the commands that people use."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from provisioning.core.workflow import Plan
from provisioning.storage.spool import Spool
from tests.crash.disk import State
from tests.crash.promises import Asked, Ended, Kept, Said, Submitted, begun
from tests.crash.recording import Moment, Recorder, read_moments
from tests.installation import Installation
from tests.waiting import wait_for

SECOND = 'test "$PROVISIONING_ATTEMPT" -gt 1'
"""Succeeds from the second attempt on, whatever became of the first."""


def manifests(site: Installation) -> dict[str, dict[str, Any]]:
    """Success, failure, a retry, a timeout, a retry by a person, an `id`, a cancel; marks may be made only once."""
    again = {"max_attempts": 2, "initial_delay": "10ms"}
    slow = {"operation": "trial.again", "params": {"script": f"{SECOND} || sleep 30"}}
    mixed = [
        site.mark("first"),
        site.mark("second", depends_on=["first"]),
        {"id": "noop", "operation": "selftest.noop", "depends_on": ["first"]},
        {"id": "flaky", "operation": "trial.again", "params": {"script": SECOND}, "retry": again},
        {"id": "late", **slow, "timeout": "1s", "retry": {**again, "on": ["timeout"]}},
        {"id": "bad", "operation": "trial.again", "params": {"script": SECOND}},
        site.mark("needs-bad", depends_on=["bad"]),
        site.mark("last", after=["bad", "second", "flaky"]),
    ]
    named = [
        {"id": "echo", "operation": "selftest.echo", "params": {"value": ["a", 1]}},
        site.mark("after-echo", depends_on=["echo"]),
    ]
    endless = [
        {"id": "sleep", "operation": "selftest.sleep", "params": {"seconds": 600}},
        site.mark("never", depends_on=["sleep"]),
    ]
    return {
        "mixed": {"tasks": mixed, "on_failure": "continue"},
        "named": {"tasks": named, "id": "nightly", "priority": 60},
        "endless": {"tasks": endless, "priority": 70},
    }


ENDS = {"mixed": "succeeded", "named": "succeeded", "endless": "cancelled"}
"""How the workflows end, "mixed" when it has been retried."""
BEGUN = {
    "mixed": ("first", "second", "noop", "flaky", "late", "bad", "last"),
    "named": ("echo", "after-echo"),
    "endless": ("sleep",),
}
"""The tasks that have begun in them when nothing more can."""
MARKS = ["after-echo", "first", "last", "needs-bad", "second"]
"""Of the undisturbed run, in the order of the alphabet."""


class Recording(NamedTuple):
    """A recorded run and all that must be known of it."""

    root: Path
    """The folder of the spool's folder: the disk that will be cut."""
    moments: list[Moment]
    said: dict[int, list[Said]]
    """What is said or begun at each moment, by its index."""
    made: int
    """The moment from which there is a spool."""
    marks: dict[int, str]
    """The marks, which are no part of the disk, by the moment in which they are made."""
    plans: dict[str, Plan]
    ids: dict[str, str]
    """The workflow_id of each manifest."""

    def marks_until(self, at: int) -> list[str]:
        """The marks that are made when this moment is over."""
        return [mark for index, mark in self.marks.items() if index <= at]


def record(site: Installation) -> Recording:
    """Run the workload below strace."""
    site.environment["PROVISIONING_SPOOL"] = str(site.root / "disk" / "spool")
    (site.root / "disk").mkdir()
    python = (sys.executable, "-m", "provisioning")
    recorder = Recorder(site.root, site.environment)
    ids = {}
    after: dict[int, list[Said]] = {}
    try:
        recorder.run(*python, "spool", "init")
        site.spool = Spool.open(site.root / "disk" / "spool")
        for name, head in manifests(site).items():
            path = site.root / f"{name}.json"
            path.write_text(json.dumps({"schema": 1, "name": name, **head}))
            ids[name] = recorder.run(*python, "batch", "submit", str(path))
        drain = ("orchestrator", "run", "--until-empty", "--max-wait", "5", "--slots", "3")
        drained = recorder.begin(*python, *drain)
        after[drained] = [Ended(ids[name], state, BEGUN[name]) for name, state in {**ENDS, "mixed": "failed"}.items()]
        wait_for(lambda: list(site.spool.workflows.glob(f"{ids['endless']}/logs/sleep.1.log")), 60, "the long task")
        for verb, name in {"cancel": "endless", "retry": "mixed"}.items():
            number = recorder.begin(*python, "workflow", verb, ids[name])
            after[number] = [Asked(ids[name], verb)]
            recorder.wait(number)
            recorder.wait(drained)
        recorder.run(*python, "batch", "submit", str(site.root / "named.json"))
        drained = recorder.begin(*python, *drain)
        after[drained] = [Ended(ids[name], state, BEGUN[name]) for name, state in ENDS.items()]
        recorder.wait(drained)
    finally:
        recorder.close()
    assert {name: site.state(workflow_id) for name, workflow_id in ids.items()} == ENDS, site.said()
    assert sorted(site.mark_lines()) == MARKS
    return _recording(site, read_moments(recorder.trace, site.root), ids, after)


def _recording(
    site: Installation, moments: list[Moment], ids: dict[str, str], after: dict[int, list[Said]]
) -> Recording:
    plans = {}
    for workflow_id in ids.values():
        plan = site.folder(workflow_id).plan()
        assert plan is not None
        plans[workflow_id] = plan
    tree = read_tree(site.root / "disk", site.spool.nulib)
    said: dict[int, list[Said]] = {0: [Kept(workflow_id, tree) for workflow_id in ids.values()]}
    for index, began in begun(moments, plans):
        said.setdefault(index, []).append(began)
    made = 0
    marks = {}
    for index, moment in enumerate(moments):
        if moment.call.name != "write":
            continue
        path = Path(moment.call.descriptor(0)[1])
        text = moment.call.text(1).decode(errors="replace").strip()
        if path == site.marks and moment.ends:
            marks[index] = text
        elif path.parent.name == "told" and moment.begins:
            number, _, ended = path.name.partition(".")
            if ended == "ended":
                said.setdefault(index, []).extend(after.get(int(number), ()))
                made = index if number == "1" else made
            elif text in ids.values():
                said.setdefault(index, []).append(Submitted(text))
    return Recording(site.root / "disk", moments, said, made, marks, plans, ids)


def read_tree(root: Path, folder: Path) -> State:
    """What is in the folder, by paths below `root`."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in sorted(folder.rglob("*"))
    }
