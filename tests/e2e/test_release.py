"""What is released: the same bytes from one commit, all of it named, and the program whole in each of its forms."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

from tests.e2e.built import ROOT
from tests.installation import find_nu

LOCK = ROOT / "packaging" / "binary" / "requirements.txt"
TESTS = ["test_main_job.py", "test_graphs.py", "test_mended.py", "test_drop_door.py"]
"""What a user does, typed into whichever program TESTED_PROGRAM names."""


def locked() -> dict[str, str]:
    """The version of each wheel that goes into the one file."""
    return dict(re.findall(r"(?m)^([A-Za-z0-9._-]+)==(\S+)", LOCK.read_text()))


def test_the_lock_has_what_the_project_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"].get("web", [])]
    for requirement in map(Requirement, needed):
        version = locked().get(requirement.name)
        assert version, f"{requirement.name} is not in {LOCK}: packaging/dev lock"
        assert version in requirement.specifier, f"{requirement} is not met by {version}: packaging/dev lock"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that `packaging/dev binary` makes."""
    folder = tmp_path_factory.mktemp("release")
    subprocess.run([ROOT / "packaging/dev", "binary", "--to", folder], check=True, capture_output=True)
    return folder


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_builds_of_one_commit_are_the_same(release: Path, tmp_path: Path) -> None:
    clone = tmp_path / "elsewhere" / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    elsewhere = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    elsewhere |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "npm_config"))}
    subprocess.run(
        ["sh", "-c", f"umask 077; exec {clone}/packaging/dev binary --to {tmp_path}/other"],
        env=elsewhere,
        check=True,
        capture_output=True,
        cwd="/",
    )
    clean = not subprocess.run(["git", "-C", ROOT, "status", "--porcelain"], capture_output=True, check=True).stdout
    assert clean, "only a commit can be built twice"
    assert (tmp_path / "other" / "SHA256SUMS").read_text() == (release / "SHA256SUMS").read_text()
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=release, check=True)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_everything_inside_is_named_with_its_licence(release: Path) -> None:
    (path,) = release.glob("*.cdx.json")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(path.read_text()) is None
    bill = json.loads(path.read_text())
    named = {component["name"].lower().replace("_", "-"): component for component in bill["components"]}
    assert {name: version for name, version in locked().items() if name in named} == locked()
    assert {"nushell", "libc6", "libssl3", "musl-dev"} <= set(named)
    assert not [name for name, component in named.items() if not component.get("licenses")]
    notices = (release / "THIRD_PARTY_NOTICES").read_text()
    for component in bill["components"]:
        assert f"\n{component['name']} {component['version']}\n" in notices
    with tarfile.open(next(release.glob("*.tar.xz"))) as archive:
        inside = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    assert {"share/doc/THIRD_PARTY_NOTICES", "share/doc/sbom.cdx.json", "SHA256SUMS"} <= inside
    assert not [name for name in inside if re.search(r"readline|gdbm", name)], "under the GPL"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_archive_works_where_it_is_unpacked(release: Path, tmp_path: Path) -> None:
    with tarfile.open(next(release.glob("*.tar.xz"))) as archive:
        archive.extractall(tmp_path, filter="tar")
    (folder,) = tmp_path.glob("provisioning-*")
    moved = folder.rename(tmp_path / "moved")
    link = tmp_path / "provisioning"
    link.symlink_to(moved / "bin" / "provisioning")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PROVISIONING_SPOOL": str(tmp_path / "spool")}
    said = [
        subprocess.run([link, *arguments], env=environment, capture_output=True, text=True, check=True).stdout
        for arguments in (["spool", "init"], ["selftest"], ["selftest", "echo", "hello"])
    ]
    assert said[-1] == "hello\n"


def run_the_tour(program: Path, tmp_path: Path) -> None:
    """The tests of the installed program, with this one."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/base"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, *(str(ROOT / "tests" / "e2e" / name) for name in TESTS)],
        env=environment | {"TESTED_PROGRAM": str(program), "PROVISIONING_CACHE": str(tmp_path / "unpacked")},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert re.search(r"[1-9][0-9]* passed", done.stdout)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_one_file_does_the_main_job(one_file: Path, tmp_path: Path) -> None:
    run_the_tour(one_file, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_the_wheel_and_the_sdist_do_the_main_job(release: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=True)
    (distribution,) = release.glob(kind)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, str(distribution)], check=True)
    (folder / "bin" / "nu").symlink_to(find_nu())
    run_the_tour(folder / "bin" / "provisioning", tmp_path)
