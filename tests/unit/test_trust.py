"""What strangers are held to: read anew when it changes, kept while a parser reads it, and refused where it is open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from provisioning.errors import Refused
from provisioning.orchestrator.trust import KEPT_RULES, Trust
from provisioning.sections import Notify
from tests.doors import CATALOGUE, Doors

GRANT = '[[grant]]\noperators = ["alice"]\noperations = ["{}"]\n'


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doors]:
    made = Doors(tmp_path, monkeypatch)
    yield made
    made.close()


def test_rules_change_with_the_grants_and_stay_while_they_may_be_read(doors: Doors) -> None:
    trust, path = Trust(doors.config), doors.config.paths.authority
    made = []
    for number in range(KEPT_RULES + 3):
        path.write_text(GRANT.format("x" * (number + 1)))
        made.append(trust.rules(doors.spool, CATALOGUE))
        assert trust.rules(doors.spool, CATALOGUE) == made[-1]
    assert len(set(made)) == len(made)
    assert [each.exists() for each in made] == [False] * 3 + [True] * KEPT_RULES


def test_grants_that_are_missing_broken_or_open_to_others(doors: Doors) -> None:
    trust, path = Trust(doors.config), doors.config.paths.authority
    assert "there is no" in trust.authority()[1]
    path.write_text("[[grant]]")
    assert "is broken" in trust.authority()[1]
    path.write_text(GRANT.format("a.b"))
    path.chmod(0o600)
    assert trust.authority()[0] is not None
    path.chmod(0o622)
    assert "others may write" in trust.authority()[1]
    with pytest.raises(Refused, match="authority file"):
        trust.refuse_unsafe()


def test_what_is_said_at_the_start(doors: Doors) -> None:
    assert Trust(doors.config).warnings(["alice"]) == [
        f"everything that alice drop is refused: there is no {doors.config.paths.authority}"
    ]
    assert Trust(doors.config).warnings([Trust(doors.config).own]) == []


def test_that_nobody_can_be_told_is_said_at_the_start(doors: Doors, tmp_path: Path) -> None:
    program = tmp_path / "tell"
    trust = Trust(replace(doors.config, notify=Notify(command=(str(program),))))
    said = [f"nobody is told of anything: {program}, the program of [notify], cannot be run"]
    assert trust.warnings([]) == said
    program.write_text("#!/bin/sh\n")
    assert trust.warnings([]) == said
    program.chmod(0o700)
    assert trust.warnings([]) == []
