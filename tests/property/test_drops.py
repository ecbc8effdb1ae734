"""Any bytes at the door: the parsers and the intake say what is wrong, by a code of the closed list, and no more."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.core.drop import REASONS, Sight, objection
from provisioning.core.proof import is_listed, is_sealed, seal, unsealed
from provisioning.execution.judge import Case, Rules, judge
from provisioning.execution.signing import Signers
from provisioning.storage import drop, receipts
from tests.doors import CATALOGUE, GOOD, Doors

WORDS = [
    "schema",
    "name",
    "tasks",
    "id",
    "operation",
    "params",
    "=",
    "[[",
    "]]",
    "{",
    "}",
    "1",
    '"x"',
    "\n",
    "selftest.noop",
]
PIECES = st.lists(st.one_of(st.sampled_from(WORDS).map(str.encode), st.binary(max_size=6)), max_size=60).map(b"".join)
CUTS = st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=4), st.integers(0, len(GOOD)))
MUTANTS = CUTS.map(lambda cut: GOOD[: cut[0]] + cut[1] + GOOD[cut[2] :])
DOCUMENTS: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=6), inner, max_size=5)
    ),
    max_leaves=12,
)
JSON = DOCUMENTS.map(lambda value: json.dumps(value).encode())


def rules() -> Rules:
    return Rules(CATALOGUE, Signers("/usr/bin/ssh-keygen", "/nowhere"), "here", (1 << 20, 10_000), 5.0, 1 << 30, "root")


def verdict_holds(data: bytes, form: str, kind: str) -> None:
    with tempfile.NamedTemporaryFile() as file:  # hypothesis calls this again and again: no fixture of pytest's
        file.write(data)
        file.flush()
        said = judge(Case("k", file.name, form, kind, "m", "root", "off"), rules())
    assert bool(said.reasons) != (said.facts is not None)
    assert {reason.code for reason in said.reasons} <= set(REASONS)
    for reason in said.reasons:
        assert reason.message
        assert reason.message.isprintable() or "\n" in reason.message


@given(st.one_of(PIECES, MUTANTS), st.sampled_from(["manifest", "request"]))
def test_toml(data: bytes, kind: str) -> None:
    verdict_holds(data, "toml", kind)


@given(st.one_of(PIECES, JSON), st.sampled_from(["manifest", "request", "either"]))
def test_json(data: bytes, kind: str) -> None:
    verdict_holds(data, "json", kind)


@pytest.mark.long
@settings(max_examples=20_000)
@given(st.one_of(PIECES, MUTANTS, JSON, st.binary(max_size=200)), st.sampled_from(["toml", "json"]))
def test_both_for_long(data: bytes, form: str) -> None:
    verdict_holds(data, form, "either")


@given(st.binary(max_size=300))
def test_a_seal_proves_its_bytes(data: bytes) -> None:
    sealed = seal(data)
    assert is_sealed(sealed) is True
    assert seal(sealed) == sealed
    assert unsealed(sealed).rstrip(b"\n") == unsealed(data).rstrip(b"\n")


@given(st.binary(min_size=1, max_size=200), st.binary(min_size=1, max_size=200), st.integers(0, 400))
def test_no_mix_of_two_is_whole(old: bytes, new: bytes, at: int) -> None:
    """A cut-off overwrite: the head of the new, the tail of the old."""
    before, after = seal(old), seal(new)
    mix = after[:at] + before[at:]
    if mix not in (before, after):
        assert is_sealed(mix) is not True
    listing = f"{hashlib.sha256(after).hexdigest()}  m.toml\n".encode()
    assert is_listed(mix, "m.toml", listing) == (mix == after)


@given(st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name and b"/" not in name))
def test_any_name_has_a_receipt_of_a_plain_name(name: bytes) -> None:
    made = receipts.name_of(drop.quoted(name))
    assert made.isascii()
    assert made.isprintable()
    assert "/" not in made
    assert not made.startswith((".", "-"))
    assert len(made) <= 255


@given(st.integers(0, 0o177777), st.integers(0, 3), st.integers(0, 3), st.integers(0, 5000))
def test_only_a_plain_file_of_its_owner_is_read(mode: int, owner: int, group: int, size: int) -> None:
    sight = Sight(b"m.toml", 1, 2, mode, owner, group, 1, size, 3, 4)
    if objection(sight, 1, {2}, 4000) is None:
        assert mode & 0o170000 == 0o100000
        assert owner == 1
        assert not mode & 0o002
        assert not mode & 0o020 or group == 2
        assert size <= 4000


@settings(max_examples=10)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a.toml", "b.json", "c.request.json", "d.toml.sha256", "e"]), PIECES), max_size=5
    )
)
def test_any_folder_is_worked(files: list[tuple[str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        doors = Doors(Path(folder), patched, grace_seconds=0.0)
        for name, data in files:
            (doors.folder / name).write_bytes(data)
            (doors.folder / name).chmod(0o600)
        doors.work()
        doors.work()
        assert doors.left() == []
        for path in doors.folder.iterdir():
            receipt = receipts.read(path)
            assert receipt is not None
            assert receipt.answer in ("accepted", "rejected")
        doors.close()
