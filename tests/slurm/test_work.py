"""Workflows on a real Slurm of two nodes."""

from __future__ import annotations

from itertools import pairwise

from tests.installation import Installation


def test_tasks_in_order_with_results_and_logs(site: Installation) -> None:
    site.orchestrator()
    shell = "echo said by $PROVISIONING_TASK; hostname >&2"
    workflow_id = site.submit(
        [
            site.mark("first"),
            {"id": "echo", "operation": "selftest.echo", "params": {"value": {"a": [1]}}, "depends_on": ["first"]},
            {"id": "shell", "operation": "commands.run", "params": {"argv": ["sh", "-c", shell]}},
            site.mark("last", depends_on=["echo", "shell"]),
        ]
    )
    assert site.wait_ended(workflow_id, 60) == "succeeded"
    assert site.mark_lines() == ["first", "last"]
    folder = site.folder(workflow_id)
    assert folder.result(site.task(workflow_id, "echo")) == {"a": [1]}
    assert b"said by shell" in site.log(workflow_id, "shell")
    last = site.task(workflow_id, "first").last
    assert last is not None
    assert last.executor == "slurm"


def test_whoever_works_a_spool_uses_the_cluster(site: Installation) -> None:
    """A command in the foreground, and one that works until nothing is left."""
    command = site.start("selftest", "echo", "said", "--json")
    assert command.wait(60) == 0, site.said()
    assert "said" in site.said()
    (foreground,) = site.spool.claimed_ids()
    drained = site.run([site.mark("t")])
    assert site.state(drained) == "succeeded", site.said()
    for workflow_id, task_id in ((foreground, "echo"), (drained, "t")):
        last = site.task(workflow_id, task_id).last
        assert last is not None
        assert last.executor == "slurm"


def test_no_more_than_there_are_slots_and_room(site: Installation) -> None:
    """Who has to wait for a slot or a group waits here, and not in Slurm's queue."""
    site.settings(slurm_slots=2, groups_one=1)
    site.orchestrator()
    shell = {"operation": "commands.run", "params": {"argv": ["true"]}}
    workflow_id = site.submit([{"id": f"t{i}", **shell, **({"group": "one"} if i % 2 else {})} for i in range(6)])
    assert site.wait_ended(workflow_id, 90) == "succeeded"
    made = [site.outcome(workflow_id, f"t{i}") for i in range(6)]
    times = [(each.started_at, each.ended_at) for each in made]
    assert all(ended <= began for (_, ended), (began, _) in pairwise(sorted(times[i] for i in (1, 3, 5))))
    assert all(sum(begin <= at < end for begin, end in times) <= 2 for at, _ in times)
