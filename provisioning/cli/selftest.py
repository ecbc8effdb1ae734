"""`provisioning selftest host` and `crash`: what the program relies on and says of itself, tried on the user's host."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from shlex import quote

import click

from provisioning.cli.context import Context
from provisioning.cli.groups import Verb, json_option, pass_context
from provisioning.errors import NotFound, SpoolUnusable


@click.command(cls=Verb, exits=(0, 2, 6))
@json_option
@pass_context
def host(context: Context) -> int:
    """Try what the program relies on, without a network: one page, exit code 0 or 6.

    Nushell and the operations; rename, fsync, locks and events on the spool's file system; clock, free space, limits,
    namespaces. What is noted may be done without; what is bad must be mended.
    """
    from provisioning.host.checkup import findings
    from provisioning.views.table import table

    found = list(findings(context.config))
    sound = all(finding.verdict != "bad" for finding in found)
    if context.json:
        context.answer_json({"sound": sound, "findings": [finding._asdict() for finding in found]})
    else:
        context.answer(table([(one.verdict, one.name, one.said) for one in found]))
    return 0 if sound else SpoolUnusable.exit_code


@click.command(cls=Verb, exits=(0, 1, 2, 4, 5, 6, 7))
@click.option(
    "--in",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Make the trial's spools in this folder; in the spool's own tmp/ otherwise.",
)
@click.option("--points", type=click.IntRange(min=1), metavar="N", help="Try so many of the writes, spread evenly.")
@click.option("--die-at", type=click.IntRange(min=0), hidden=True)
@json_option
@pass_context
def crash(context: Context, folder: Path | None, points: int | None, die_at: int | None) -> int:
    """Kill orchestrators at each of their writes, and see that nothing is lost or doubled.

    A small workflow is put into a spool of its own. A real orchestrator works it and is killed, as by kill -9, just
    before its first write, the next one before its second, and so on; each time another orchestrator finishes what
    is left. Takes a second or two for each write. Exit code 1 if anything was lost or doubled.
    """
    if die_at is not None:
        return _die(context, die_at)
    from provisioning.clock import new_ulid
    from provisioning.config import environment_of_a_daemon
    from provisioning.orchestrator.trial import Found, Trial
    from provisioning.ownership import refuse_unless_ours

    if folder:
        folder = folder.absolute()
        if not folder.exists():
            raise NotFound(f"no folder {folder}", hint=f"make it: mkdir {quote(str(folder))}")
        refuse_unless_ours(folder, "folder of the trial", os.geteuid())
    place = folder / f"crash-trial-{new_ulid()}" if folder else context.spool.scratch.name()
    trial = Trial(
        place,
        context.catalogue,
        partial(_arguments, context),
        environment_of_a_daemon(),
        disk=context.config.disk,
    )
    found: list[Found] = []
    try:
        numbers = _spread(trial.count(), points)
        kills_made, unseen = trial.points(numbers), not sys.stderr.isatty()
        with click.progressbar(kills_made, len(numbers), "kills", hidden=unseen, file=sys.stderr) as results:
            found.extend(results)
    finally:
        trial.close()
    kills, lost, doubled, problems = (sum(int(each[i]) for each in found) for i in range(4))
    answer = {"points": len(found), "kills": kills, "lost": lost, "doubled": doubled, "problems": problems}
    if context.json:
        context.answer_json(answer)
    else:
        context.answer(", ".join(f"{count} {name}" for name, count in answer.items()))
    if kills < len(found):
        raise SpoolUnusable(f"{len(found) - kills} orchestrators were not killed: the trial shows nothing")
    return 1 if lost or doubled or problems else 0


def _spread(total: int, points: int | None) -> list[int]:
    """So many of the numbers from 1 to the total, evenly; all of them where none are asked for."""
    count = min(points or total, total)
    return [1 + i * total // count for i in range(count)]


def _arguments(context: Context, spool: Path, die_at: int) -> list[str]:
    """The arguments that start this program as an orchestrator that dies at that write."""
    named = ["--config", str(context.config.file)] if context.config.file else []
    return ["--spool", str(spool), *named, "selftest", "crash", "--die-at", str(die_at)]


def _die(context: Context, die_at: int) -> int:
    from provisioning.execution.nulib import load_nulib
    from provisioning.orchestrator.daemon import run
    from provisioning.orchestrator.trial import work_until_death

    def work() -> None:
        nulib = lambda: load_nulib(context.config)  # noqa: E731 - read only when it is needed
        run(context.spool, context.config, nulib, until_empty=True, max_wait_seconds=15)

    context.say(str(work_until_death(work, context.spool, die_at)))
    return 0
