"""The catalogue of a real tree, read by a real Nushell, and its cache."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provisioning.core.catalogue import Catalogue
from provisioning.errors import NushellUnusable, Refused, SpoolUnusable
from provisioning.execution import nushell, reader
from provisioning.execution.nushell import Nushell, find_nu, load_catalogue, sweep
from provisioning.resources import data_dir
from tests.integration.entry_runs import ATTRIBUTE, HEAD, keep, nu_to_test, run_entry, write

pytestmark = pytest.mark.nu


@pytest.fixture(scope="module")
def nu() -> Nushell:
    return nu_to_test()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with the attribute and no operation."""
    folder = tmp_path / "nulib"
    write(folder, "lib/operation.nu", ATTRIBUTE)
    return folder


def settle(*roots: Path) -> None:
    """Wait until the files count as old enough to be told from changed ones."""
    newest = max(path.stat().st_ctime_ns for root in roots for path in root.rglob("*"))
    while time.time_ns() < newest + 2 * nushell._CLOCK_TICK_NS:
        os.sched_yield()


def simple(command: str = "create-server", body: str = "1", result: str = "any") -> str:
    return f"{HEAD}\n# Do it.\n@operation {{}}\nexport def {command} []: nothing -> {result} {{ {body} }}\n"


def load(nu: Nushell, *roots: Path, cache: Path | None = None) -> Catalogue:
    return load_catalogue(nu, roots, cache or roots[0].parent / "cache")[0]


def forbid_nu(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("nu was started")

    monkeypatch.setattr(reader, "run_nu", started)


def test_the_built_in_operations(nu: Nushell, tmp_path: Path) -> None:
    catalogue = load(nu, data_dir("nulib"), cache=tmp_path / "cache")
    assert catalogue.broken == ()
    create = catalogue.operation("servers.create")
    assert (create.command, create.undo, create.exclusive) == ("create-server", "servers.delete", ("server/{name}",))
    assert create.timeout_seconds == 900
    assert create.params[0].name == "name"
    assert create.params[0].required


def test_an_operation_in_full(nu: Nushell, root: Path) -> None:
    write(
        root,
        "servers/create.nu",
        HEAD
        + """
# Create a server.
#
# In detail.
@operation {timeout: 10min}
export def create-server [
  name: string # Its name
  --provider(-p): string@[local aws] = "local" # Where
  --wait-for: duration = 1min # How long
  --dry-run # Only look
  ...others: string # More names
]: nothing -> record<name: string> { {name: $name} }
export def another [] { }
""",
    )
    found = load(nu, root).operation("servers.create")
    assert (found.summary, found.description, found.timeout_seconds) == ("Create a server.", "In detail.", 600.0)
    assert {p.name: (p.default, p.description) for p in found.params} == {
        "name": (None, "Its name"),
        "others": ([], "More names"),
        "provider": ("local", "Where"),
        "wait-for": ("1min", "How long"),
        "dry-run": (False, "Only look"),
    }
    assert found.params_schema()["properties"]["provider"] == {"type": "string", "enum": ["local", "aws"]}
    assert found.result_schema == {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}},
    }


def test_files_with_errors_drop_out_alone(nu: Nushell, root: Path) -> None:
    write(root, "a/good.nu", simple("good-a"))
    write(root, "b/good.nu", simple("good-b"))
    write(root, "a/cut.nu", simple("cut-a")[:-4])
    write(root, "b/type.nu", f"{HEAD}@operation {{}}\nexport def type-b [x: strin] {{ }}\n")
    write(root, "lib/cut.nu", "export def f [ {\n")
    write(root, "c/imports.nu", f"use ../lib/cut.nu *\n{simple('imports-c')}")
    write(root, "c/key.nu", f"{HEAD}@operation {{nope: 1}}\nexport def key-c [] {{ }}\n")
    write(root, "c/private.nu", f"{HEAD}@operation {{}}\ndef private-c [] {{ }}\n")
    write(
        root,
        "c/two.nu",
        f"{HEAD}@operation {{}}\nexport def two-a [] {{ }}\n@operation {{}}\nexport def two-b [] {{ }}\n",
    )
    write(root, "c/Upper.nu", simple("upper-c"))
    write(root, "lib/inside.nu", simple("inside-lib").replace("../lib", "."))
    write(root, "c/none.nu", "# a helper that mentions @operation\nexport def none [] { }\n")
    catalogue = load(nu, root)
    assert sorted(catalogue.operations) == ["a.good", "b.good"]
    broken = {Path(p.file).relative_to(root).as_posix(): (p.code, p.line, p.field) for p in catalogue.broken}
    assert broken == {
        "a/cut.nu": ("nulib-syntax", 5, "a.cut"),
        "b/type.nu": ("nulib-syntax", 3, "b.type"),
        "c/imports.nu": ("nulib-syntax", None, "c.imports"),
        "c/key.nu": ("operation-key", 2, "c.key"),
        "c/private.nu": ("operation-command", 2, "c.private"),
        "c/two.nu": ("operation-command", 2, "c.two"),
        "c/Upper.nu": ("operation-name", 4, ""),
        "lib/inside.nu": ("operation-name", 4, ""),
    }
    assert "a/cut.nu has errors" in catalogue.nearest_hint("a.cut")


def test_commands_of_one_name_in_two_domains(nu: Nushell, root: Path) -> None:
    write(root, "a/list.nu", simple("list-all", "'a'"))
    write(root, "b/list.nu", simple("list-all", "'b'"))
    assert sorted(load(nu, root).operations) == ["a.list", "b.list"]


def test_an_earlier_root_hides_later_ones(nu: Nushell, root: Path, tmp_path: Path) -> None:
    write(root, "servers/create.nu", "use ../lib/text.nu *\n" + simple(body="some-text"))
    write(root, "lib/text.nu", "export def some-text [] { 'built in' }\n")
    site = tmp_path / "site"
    write(site, "lib/text.nu", "export def some-text [] { 'site' }\n")
    write(site, "extra/look.nu", simple("look-around"))
    catalogue, tree = load_catalogue(nu, [tmp_path / "missing", site, root], tmp_path / "cache")
    assert sorted(catalogue.operations) == ["extra.look", "servers.create"]
    assert tree.files["lib/text.nu"] == site / "lib/text.nu"
    keep(nu, catalogue, tree, tmp_path / "kept" / catalogue.digest)
    assert run_entry(nu, tmp_path / "kept" / catalogue.digest, "servers.create", {}).verdict == (0, {"result": "site"})


def test_unchanged_tree_starts_no_nu(nu: Nushell, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(root, "servers/create.nu", simple())
    settle(root)
    first = load(nu, root)
    with monkeypatch.context() as patched:
        forbid_nu(patched)
        assert load(nu, root) == first
    path.write_text(simple(body="2"), encoding="utf-8")
    settle(root)
    changed = load(nu, root)
    assert changed.digest != first.digest
    path.unlink()
    assert load(nu, root).operations == {}


def test_a_change_in_the_same_clock_tick_is_seen(nu: Nushell, root: Path) -> None:
    """Same size, and time stamps too coarse to tell: a tree that young is not cached."""
    path = write(root, "servers/create.nu", simple(body="1"))
    found = sweep([root])
    assert load_catalogue(nu, [root], root.parent / "cache")[1].stamp == found.stamp
    path.write_text(simple(body="2"), encoding="utf-8")
    settle(root)
    again = load(nu, root)
    path.write_text(simple(body="3"), encoding="utf-8")
    assert load(nu, root).digest != again.digest


def test_damaged_cache_is_made_anew(nu: Nushell, root: Path) -> None:
    write(root, "servers/create.nu", simple())
    settle(root)
    first = load(nu, root)
    [kept] = (root.parent / "cache" / "catalogue").iterdir()
    kept.write_bytes(kept.read_bytes()[:-20])
    assert load(nu, root) == first
    assert load(nu, root) == first
    assert json.loads(kept.read_bytes())["digest"] == first.digest


def test_cache_that_others_may_write_is_not_used(nu: Nushell, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, "servers/create.nu", simple())
    settle(root)
    first = load(nu, root)
    (root.parent / "cache" / "catalogue").chmod(0o777)
    assert load(nu, root) == first
    forbid_nu(monkeypatch)
    with pytest.raises(AssertionError, match="nu was started"):
        load(nu, root)


def test_cache_that_cannot_be_made_is_done_without(nu: Nushell, root: Path) -> None:
    write(root, "servers/create.nu", simple())
    settle(root)
    in_the_way = write(root.parent, "file", "")
    assert load(nu, root, cache=in_the_way / "cache").operations


def test_few_old_catalogues_are_kept(nu: Nushell, root: Path) -> None:
    path = root / "servers/create.nu"
    for number in range(nushell._CACHED + 2):
        write(root, "servers/create.nu", simple(body="1" * (number + 1)))
        settle(root)
        load(nu, root)
    assert path.exists()
    assert len(list((root.parent / "cache" / "catalogue").iterdir())) == nushell._CACHED


def test_snapshot_stays_as_it_was(nu: Nushell, root: Path, tmp_path: Path) -> None:
    path = write(root, "servers/create.nu", simple(body="'old'"))
    catalogue, tree = load_catalogue(nu, [root], tmp_path / "cache")
    kept = tmp_path / "kept" / catalogue.digest
    keep(nu, catalogue, tree, kept)
    path.write_text(simple(body="'new'"), encoding="utf-8")
    assert run_entry(nu, kept, "servers.create", {}).verdict == (0, {"result": "old"})
    assert json.loads((kept / "catalogue.json").read_bytes())["digest"] == catalogue.digest
    keep(nu, catalogue, tree, kept)
    with pytest.raises(Refused, match="changed"):
        keep(nu, catalogue, tree, tmp_path / "kept" / "other")
    assert not (tmp_path / "kept" / "other").exists()


FOREIGN: dict[str, Callable[[Path], object]] = {
    "another tree": lambda kept: (kept / "tree/servers/create.nu").write_text(simple(body="'evil'")),
    "another entry": lambda kept: (kept / "entries/servers.create.nu").write_text("'evil'"),
    "one file more": lambda kept: (kept / "tree/servers/mod.nu").write_text("export-env { 'evil' }"),
    "an entry more": lambda kept: (kept / "entries/servers.remove.nu").write_text("'evil'"),
    "no entry": lambda kept: (kept / "entries/servers.create.nu").unlink(),
    "a link to a file": lambda kept: _link(kept / "entries/servers.create.nu"),
    "a link to a folder": lambda kept: _link(kept / "tree/servers"),
}


def _link(path: Path) -> None:
    other = path.rename(path.parents[2] / "elsewhere")
    path.symlink_to(other)


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN.keys())
def test_nothing_is_planned_with_a_folder_that_is_not_what_its_digest_says(
    nu: Nushell, root: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    write(root, "servers/create.nu", simple(body="'good'"))
    catalogue, tree = load_catalogue(nu, [root], tmp_path / "cache")
    kept = tmp_path / "kept" / catalogue.digest
    keep(nu, catalogue, tree, kept)
    change(kept)
    with pytest.raises(SpoolUnusable, match="is not the operations"):
        keep(nu, catalogue, tree, kept)


def test_digest_does_not_depend_on_the_place(nu: Nushell, root: Path, tmp_path: Path) -> None:
    write(root, "servers/create.nu", simple())
    write(tmp_path / "copy", "lib/operation.nu", ATTRIBUTE)
    write(tmp_path / "copy", "servers/create.nu", simple())
    write(tmp_path / "copy", "tests/test_create.nu", "")
    assert load(nu, root).digest == load(nu, tmp_path / "copy").digest


# ---- nu itself


def fake_nu(path: Path, answer: str) -> Path:
    path.write_text(f"#!/bin/sh\n{answer}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_finds_nu_and_remembers_its_version(nu: Nushell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_nu(str(nu.path), search="", cache_dir=tmp_path)
    assert first.version >= nushell.MINIMUM
    forbid_nu(monkeypatch)
    assert find_nu(str(nu.path), search="", cache_dir=tmp_path) == first


def test_finds_nu_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    (tmp_path / "bin").mkdir()
    fake_nu(tmp_path / "bin" / "nu", "echo 0.200.0")
    found = find_nu(None, search=f"/nonexistent:{tmp_path / 'bin'}")
    assert found == Nushell(tmp_path / "bin" / "nu", (0, 200, 0))
    with pytest.raises(NushellUnusable, match="not found"):
        find_nu(None, search="/nonexistent")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("echo 0.114.0", "too old"),
        ("echo 0.109.1", "too old"),
        ("echo hello", "is not Nushell"),
        ("exit 1", "is not Nushell"),
    ],
)
def test_unusable_nu(tmp_path: Path, answer: str, words: str) -> None:
    with pytest.raises(NushellUnusable, match=words) as caught:
        find_nu(str(fake_nu(tmp_path / "nu", answer)), search="")
    assert "0.115.1" in caught.value.hint


def test_configured_nu_that_is_not_there_or_no_program(tmp_path: Path) -> None:
    with pytest.raises(NushellUnusable, match="is not at"):
        find_nu(str(tmp_path / "nu"), search=os.environ["PATH"])
    with pytest.raises(NushellUnusable, match="not an executable file"):
        find_nu(str(tmp_path), search=os.environ["PATH"])
    path = write(tmp_path, "binary", "\x7fELF")
    path.chmod(0o755)
    with pytest.raises(NushellUnusable, match="cannot be executed"):
        find_nu(str(path), search="")
