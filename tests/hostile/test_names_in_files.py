"""Whatever a file names that becomes part of a path is held to its pattern: no file of the spool leads out of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from provisioning.core.catalogue import Catalogue, Operation
from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, AppliedRequest, Plan, Request, WorkflowCheckpoint
from provisioning.storage.checkpoint import Damaged, encode, load
from provisioning.storage.ids import Reservation
from provisioning.storage.members import Contents
from tests.simulation.values import EPOCH, NULIB, ONE, TWO, checkpoint, graph, record, submission

NOOP = Operation("selftest.noop", "noop", "", "", (), None, undo="selftest.undo", probe="selftest.probe")
RETRIED = AppliedRequest(TWO, "retry", "alice", EPOCH)
VALUES = (
    submission(ONE, id="nightly", digest=NULIB),
    Plan(FORMAT, ONE, graph(["a:", "b: a ~a"], id="nightly"), {"selftest.noop": NOOP}, NULIB),
    WorkflowCheckpoint(FORMAT, ONE, WorkflowState.RUNNING, "alice", EPOCH, "boot", applied=(RETRIED,)),
    checkpoint("a", TaskState.SUCCEEDED, Outcome.SUCCEEDED),
    record("a", Outcome.SUCCEEDED),
    Request(FORMAT, TWO, ONE, "retry", "alice", EPOCH, ("a",)),
    Reservation(FORMAT, ONE, "alice", NULIB),
    Contents(FORMAT, EPOCH, 1, NULIB, (ONE,)),
    Catalogue(NULIB, {"selftest.noop": NOOP}),
)
PLAIN = {"name", "operator", "door", "infra", "command", "summary", "description", "on_failure", "boot_id", "verb"}
PLAIN |= {"reason", "code", "msg", "help", "group", "on_interrupt", "backoff"}
"""Fields of any text: none of them becomes part of a path."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the value has a text that is a name; `None` at the end means the key itself."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if "." in key:
                yield (*path, key, None)
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))
    elif isinstance(value, str) and (path[-1] not in PLAIN or (path[-1] == "name" and "operations" in path)):
        yield path


def put(value: Any, path: tuple[Any, ...], text: str) -> Any:
    """The value with `text` at that place."""
    if not path:
        return text
    if path[1:] == (None,):
        return {text if key == path[0] else key: inner for key, inner in value.items()}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    changed = {key: put(inner, path[1:], text) if key == path[0] else inner for key, inner in items}
    return changed if isinstance(value, dict) else list(changed.values())


CASES = [(value, path) for value in VALUES for path in places(msgspec.to_builtins(value))]


@pytest.mark.parametrize("text", ["../x", "/x", "", ".", "x/../../y", "valid\n", "a\0b"])
@pytest.mark.parametrize(
    ("value", "path"), CASES, ids=[f"{type(value).__name__}:{'.'.join(map(str, path))}" for value, path in CASES]
)
def test_a_name_that_could_lead_elsewhere_is_damage(
    tmp_path: Path, value: msgspec.Struct, path: tuple[Any, ...], text: str
) -> None:
    file = tmp_path / "file.json"
    file.write_bytes(encode(value))
    assert load(file, type(value)) == value
    found: Any = msgspec.to_builtins(value)
    if text == "valid\n":
        whole = found
        for step in path:
            whole = path[-2] if step is None else whole[step]
        text = f"{whole}\n"
    file.write_bytes(encode(put(found, path, text)))
    with pytest.raises(Damaged):
        load(file, type(value))
