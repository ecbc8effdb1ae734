"""`provisioning workflow watch`: one workflow until it has ended, or all of them until none is left."""

from __future__ import annotations

import sys
import time

from provisioning.cli.context import Context
from provisioning.cli.following import POLL_SECONDS, Failed, failure, follow, slots_of
from provisioning.errors import GaveUp, Interrupted, NotFound
from provisioning.views.overview import Overview
from provisioning.views.progress import Lines, Progress, progress_on
from provisioning.views.status import OVER, Page


def watch_one(context: Context, workflow_id: str, max_wait: float | None) -> None:
    """Show it until it has ended, or a person must act; Failed if it did not succeed."""
    context.answered = True  # the lines are the answer
    page = follow(context, workflow_id, sys.stdout, max_wait=max_wait, as_json=context.json)
    error = failure(context.spool, page)
    if error is not None:
        raise error


def watch_all(context: Context, max_wait: float | None) -> None:
    """Show all until none is left; Failed if one of them did not end well."""
    overview = Overview(context.spool)
    if not overview.watched():
        raise NotFound("there is no workflow that has not ended", hint="see: provisioning workflow list")
    context.answered = True
    progress: Progress = (
        Lines(sys.stdout, as_json=True) if context.json else progress_on(sys.stdout, overview.last_line, several=True)
    )
    try:
        bad = wait_for_all(overview, progress, max_wait=max_wait, slots=slots_of(context))
    finally:
        progress.close()
    if bad:
        told = ", ".join(f"{page['workflow_id']} {page['state']}" for page in bad[:5])
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        hint = f"see: provisioning workflow explain {bad[0]['workflow_id']}"
        raise Failed(f"not all workflows have succeeded: {told}{more}", hint=hint)


def wait_for_all(overview: Overview, progress: Progress, *, max_wait: float | None, slots: int) -> list[Page]:
    """Look until no workflow is left that has not ended; the last pages of those that did not end well.

    One that waits for a person is not waited for, and is among them. GaveUp after `max_wait` seconds.
    """
    deadline = None if max_wait is None else time.monotonic() + max_wait
    bad: dict[str, Page] = {}
    held: set[str] = set()
    try:
        while True:
            for page in overview.news(slots):
                progress.update(page)
                workflow_id = page["workflow_id"]
                held = held | {workflow_id} if page["held"] else held - {workflow_id}
                if page["held"] or page["state"] in OVER - {"succeeded"}:
                    bad[workflow_id] = page
                else:
                    bad.pop(workflow_id, None)
            if overview.watched() <= held:
                return list(bad.values())
            if deadline is not None and time.monotonic() >= deadline:
                text = f"{len(overview.watched())} workflows have not ended within {max_wait:g} s"
                raise GaveUp(text, hint="see: provisioning workflow list")
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        raise Interrupted("stopped watching; the workflows go on", hint="see: provisioning workflow list") from None
