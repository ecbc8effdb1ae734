"""The tests that nulib brings along in nu, one row each, and the example of its README."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.nulib.attempts import NULIB, Operations, catalogue, find_nu, nu_tests

pytestmark = pytest.mark.nu


@pytest.mark.parametrize(("file", "name"), nu_tests())
def test_nu(file: str, name: str) -> None:
    ended = subprocess.run(
        [find_nu(), "-n", "-c", f"use {NULIB / 'tests' / file} *; {name}"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_a_path_with_brackets_hides_no_taskserv_and_no_cluster(tmp_path: Path) -> None:
    """Operations are kept in the spool, whose path may be a pattern too."""
    tree = tmp_path / "[spool]*"
    shutil.copytree(NULIB, tree)
    (tree / "clusters").mkdir(exist_ok=True)
    (tree / "clusters" / "site.toml").write_text("[groups.web]\nservers = 1\n")
    words = "taskserv-names | length | print; clusters-of default | columns | print"
    (tmp_path / "entry.nu").write_text(
        f"use r#'{tree}/lib/taskserv.nu'# [taskserv-names]\nuse r#'{tree}/lib/cluster.nu'# [clusters-of]\n{words}\n"
    )
    ended = subprocess.run([find_nu(), "-n", tmp_path / "entry.nu"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("6\n"), ended.stdout
    assert "site" in ended.stdout


def test_example_of_the_readme_is_an_operation(operations: Operations) -> None:
    text = (NULIB / "README.md").read_text()
    (example,) = re.findall(r"^```nu\n(# greetings\.hello\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    folder = operations.nulib / "greetings"
    folder.mkdir()
    (folder / "hello.nu").write_text(example)
    operations.catalogue = catalogue(operations.nulib)
    assert operations.run("greetings.hello", name="wuji") == {
        "text": "Hello, wuji!",
        "user": operations.user,
    }
    assert operations.error("greetings.hello", name="")["code"] == "provisioning::greetings::invalid-name"
