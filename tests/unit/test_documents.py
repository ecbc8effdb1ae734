"""What the documents say of the program is what it is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from provisioning import resources
from provisioning.core import manifest
from provisioning.core.drop import REASONS
from provisioning.core.infra import settings_problems
from provisioning.storage.spool import DOORS, FOLDERS
from tests.unit.diagram import state_diagrams

ROOT = Path(__file__).parents[2]


def test_the_state_diagrams_are_those_of_the_tables() -> None:
    assert state_diagrams() in (ROOT / "README.md").read_text()


def test_the_manifests_of_the_readme_are_some() -> None:
    blocks = re.findall(r"```toml\n(schema.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    schema = resources.schema("manifest")
    read = [manifest.parse(each.encode(), form="toml", file="README.md", schema=schema) for each in blocks]
    assert [len(each.tasks) for each in read] == [3, 5]


def test_the_dependencies_of_the_readme_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["web"]
    names = {re.split(r"[<>=\[ ]", each)[0] for each in declared}
    table = (ROOT / "README.md").read_text().split("| need | from | why |")[1].split("\n\n")[0]
    assert names == {name for row in table.splitlines()[2:] for name in row.split("|")[2].strip().split(", ")}


def test_the_reasons_of_the_format_are_those_of_the_doors() -> None:
    text = (ROOT / "spool" / "README.md").read_text().split("| reason | meaning |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \|$", text, re.MULTILINE)
    assert dict(rows) == REASONS


def test_the_layout_names_every_folder_of_a_spool() -> None:
    layout = (ROOT / "spool" / "README.md").read_text()
    assert [name for name in (*FOLDERS, *DOORS) if f"\n{name}/" not in layout] == []


def test_the_cluster_of_the_readme_is_one() -> None:
    (block,) = re.findall(r"```toml\n(\[clusters.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    problems = settings_problems(
        tomllib.loads(block), schema=resources.schema("infra"), catalogue=None, file="README.md"
    )
    assert problems == []


def test_the_settings_in_the_documents_of_providers_are_some() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "nulib/providers/README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        schema = resources.schema("infra")
        assert settings_problems(tomllib.loads(block), schema=schema, catalogue=None, file="README.md") == []
