"""The settings of an infra: which layer a param's value comes from, and what is wrong with settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provisioning import resources
from provisioning.core.catalogue import Catalogue, Operation, Param
from provisioning.core.infra import explained, layers, settings_problems
from provisioning.core.locate import Limits
from provisioning.core.manifest import planned, read
from provisioning.core.tasks import Sources
from provisioning.errors import InvalidManifest, NotFound, Refused, UsageError
from provisioning.infra import Folder, load, names

TEXT: dict[str, Any] = {"type": "string"}
CREATE = Operation(
    name="servers.create",
    command="create-server",
    summary="",
    description="",
    params=(
        Param("name", TEXT, positional=True, required=True),
        Param("infra", TEXT, positional=False, required=False, default="default"),
        Param(
            "provider", {"type": "string", "enum": ["local", "ssh"]}, positional=False, required=False, default="local"
        ),
        Param("plan", TEXT, positional=False, required=False, default="small"),
        Param("zone", TEXT, positional=False, required=False, default=""),
    ),
    result_schema=None,
)
CATALOGUE = Catalogue(digest="0" * 64, operations={"servers.create": CREATE})
SETTINGS = {
    "provider": "ssh",
    "zone": "a",
    "defaults": {"zone": "b", "plan": "medium", "servers.create": {"plan": "large"}, "infra": "never"},
}


def test_the_nearest_layer_counts() -> None:
    found = {name: (layer.value, layer.key) for name, layer in layers(SETTINGS, CREATE).items()}
    assert found == {
        "provider": ("ssh", "provider"),
        "zone": ("b", "defaults.zone"),
        "plan": ("large", 'defaults."servers.create".plan'),
    }


def test_where_each_value_comes_from() -> None:
    rows = {row["param"]: (row["value"], row["from"]) for row in explained(SETTINGS, CREATE, {"plan": "huge"})}
    assert rows == {
        "name": (None, "required"),
        "infra": ("default", "operation"),
        "provider": ("ssh", "infra: provider"),
        "plan": ("huge", "given"),
        "zone": ("b", "infra: defaults.zone"),
    }


def submitted(tasks: list[dict[str, Any]], settings: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The params of the tasks when they are planned; other infras than those given are not there."""
    import json

    def of(name: str) -> dict[str, Any]:
        if name not in settings:
            raise NotFound(f"there is no infra {name!r}", hint="did you mean prod?")
        return settings[name]

    data = json.dumps({"schema": 1, "name": "x", "infra": "prod", "tasks": tasks}).encode()
    workflow = read(
        data,
        form="json",
        file="x.json",
        schema=resources.schema("manifest"),
        catalogue=CATALOGUE,
        limits=Limits(),
        sources=Sources(of),
    )
    return [task.params for task in planned(workflow, CATALOGUE).tasks]


def test_a_task_says_it_before_its_infra_and_that_before_the_operation() -> None:
    tasks = [
        {"id": "a", "operation": "servers.create", "params": {"name": "a"}},
        {"id": "b", "operation": "servers.create", "params": {"name": "b", "plan": "tiny"}},
        {"id": "c", "operation": "servers.create", "params": {"name": "c", "infra": "other"}},
    ]
    a, b, c = submitted(tasks, {"prod": SETTINGS, "other": {}})
    assert (a["plan"], a["zone"], a["provider"], a["infra"]) == ("large", "b", "ssh", "prod")
    assert (b["plan"], b["zone"]) == ("tiny", "b")
    assert (c["plan"], c["zone"], c["provider"], c["infra"]) == ("small", "", "local", "other")


def test_what_the_settings_say_is_checked_like_what_a_task_says() -> None:
    with pytest.raises(InvalidManifest) as refused:
        submitted([{"id": "a", "operation": "servers.create", "params": {"name": "a"}}], {"prod": {"provider": "x"}})
    assert "provider" in str(refused.value)


def test_an_unknown_infra_is_told_once() -> None:
    tasks = [{"id": name, "operation": "servers.create", "params": {"name": name}} for name in "abc"]
    with pytest.raises(InvalidManifest) as refused:
        submitted(tasks, {})
    (problem,) = refused.value.problems
    assert (problem.code, problem.field, problem.hint) == ("unknown-infra", "infra", "did you mean prod?")


@pytest.mark.parametrize(
    ("settings", "field", "hint"),
    [
        ({"inventroy": {}}, "inventroy", "inventory"),
        ({"provider": "lokal"}, "provider", ""),
        ({"inventory": {"web": {}}}, "inventory.web.address", ""),
        ({"inventory": {"Web": {"address": "x"}}}, "inventory", ""),
        ({"networks": {"default": {"cidr": "x"}}}, "networks.default.cidr", ""),
        ({"upcloud": {"tmeplate": "x"}}, "upcloud.tmeplate", "template"),
        ({"clusters": {"a": {"groups": {}}}}, "clusters.a.groups", ""),
        ({"clusters": {"a": {"groups": {"web": {"servers": 0}}}}}, "clusters.a.groups.web.servers", ""),
        ({"defaults": {"plna": "x"}}, "defaults.plna", "plan"),
        ({"defaults": {"servers.creat": {}}}, "defaults.'servers.creat'", "servers.create"),
        ({"defaults": {"servers.create": {"plan": 5}}}, "defaults.'servers.create'.plan", ""),
        ({"defaults": {"plan": 5}}, "defaults.plan", ""),
    ],
)
def test_what_is_wrong_with_settings(settings: dict[str, Any], field: str, hint: str) -> None:
    found = settings_problems(settings, schema=resources.schema("infra"), catalogue=CATALOGUE, file="settings.toml")
    assert [problem.field for problem in found] == [field], found
    assert hint in found[0].hint


def test_settings_of_ones_own_are_allowed() -> None:
    settings = {"hosts": ["a"], "since": "2026", "provider": "local"}
    assert settings_problems(settings, schema=resources.schema("infra"), catalogue=CATALOGUE, file="") == []


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name / "settings.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_the_first_folder_that_has_an_infra_counts(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, "prod", 'zone = "a"')
    write(two, "prod", 'zone = "b"')
    other = write(two, "test", "")
    folders = [Folder(one), Folder(two), Folder(tmp_path / "none")]
    assert load(folders, "prod").document == {"zone": "a"}
    assert names(folders) == {"prod": one / "prod" / "settings.toml", "test": other}
    assert load(folders, "default").document == {}
    for name in ("prdo", "../one/prod", "", "a" * 100):
        with pytest.raises(NotFound):
            load(folders, name)
    with pytest.raises(NotFound, match="prdo") as unknown:
        load(folders, "prdo")
    assert "did you mean prod?" in unknown.value.hint


def test_settings_that_cannot_be_read(tmp_path: Path) -> None:
    path = write(tmp_path, "prod", "zone = ")
    with pytest.raises(UsageError, match="not TOML"):
        load([Folder(tmp_path)], "prod")
    path.chmod(0o666)
    with pytest.raises(Refused):
        load([Folder(tmp_path)], "prod")
    with pytest.raises(UsageError):  # what came with the program is trusted as that is
        load([Folder(tmp_path, shipped=True)], "prod")
