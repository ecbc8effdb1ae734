"""Settings of all tests: the hypothesis profiles, and which tests this machine cannot run."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import figures

settings.register_profile(
    "everywhere",
    deadline=None,  # the machines are shared: a time limit for one example only makes tests flicker
    print_blob=True,  # the line that reproduces a failure
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("ci", settings.get_profile("everywhere"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "everywhere")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what needs root where there is none."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where tests run side by side, hand what the proofs have found to the process that tells it."""
    handed: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if handed is not None:
        handed["figures"] = figures.handed_over()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take it from each of them; one that crashed has handed over nothing."""
    figures.take_over(getattr(node, "workeroutput", {}).get("figures", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much the proofs have tried, and what came of it."""
    if lines := figures.report():
        terminalreporter.section("figures of the proofs")
        for line in lines:
            terminalreporter.write_line(line)
