"""Sizes, names and places: what keeps the project readable for whoever comes next."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import MADE_BY_TOOLS, ROOT, TOP_LEVEL, Source, expect_none, files, python_sources

FILE_LINES = 350
FUNCTION_LINES = 60

BANNED_NAMES = {"util", "helper", "common", "misc", "base", "manager", "handler", "processor", "service", "engine"}

REGISTRY_HOSTS = [
    ".".join(labels)  # put together here, or this file would break its own rule
    for labels in [
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("deb", "debian", "org"),
        ("crates", "io"),
    ]
]


def words(name: str) -> set[str]:
    """The words of an identifier or file name, in lower case and without a plural s."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)
    return {part.lower() for part in parts} | {part.lower().removesuffix("s") for part in parts}


def size_problems(source: Source) -> Iterator[str]:
    """Files and functions that are too long to be read at once."""
    lines = source.text.count("\n")
    if lines > FILE_LINES:
        yield source.at(source.tree, f"{lines} lines: at most {FILE_LINES} in a file")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield source.at(node, f"{node.name} has {lines} lines: at most {FUNCTION_LINES} in a function")


def name_problems(source: Source) -> Iterator[str]:
    """Names that say nothing of what a thing is for."""
    for name in source.module.split("."):
        if words(name) & BANNED_NAMES:
            yield source.at(source.tree, f"{name} names no purpose")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and words(node.name) & BANNED_NAMES:
            yield source.at(node, f"{node.name} names no purpose")


def docstring_problems(source: Source) -> Iterator[str]:
    """Modules whose first line does not say their role."""
    if not ast.get_docstring(source.tree):
        yield source.at(source.tree, "the first line of a module says its role")


def host_problems(path: str, text: str) -> Iterator[str]:
    """Package registries that are named: an installation behind a mirror has its own in its pip and npm settings."""
    for number, line in enumerate(text.splitlines(), 1):
        if any(host in line for host in REGISTRY_HOSTS):
            yield f"{path}:{number}: names a package registry"


@pytest.mark.parametrize("folder", ["provisioning", "tests"])
def test_sizes(folder: str) -> None:
    expect_none(problem for source in python_sources(folder) for problem in size_problems(source))


def test_sizes_of_operations() -> None:
    lengths = {path.relative_to(ROOT): path.read_text("utf-8").count("\n") for path in files("nulib", ".nu")}
    assert {path: length for path, length in lengths.items() if length > FILE_LINES} == {}


@pytest.mark.parametrize("folder", ["provisioning", "tests"])
def test_names(folder: str) -> None:
    expect_none(problem for source in python_sources(folder) for problem in name_problems(source))


def test_names_of_operations() -> None:
    commands = re.compile(r"^\s*(?:export )?def (?:--\w+ )*\"?([\w -]+)", re.MULTILINE)
    found = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in files("nulib", ".nu")
        for name in [path.stem, *commands.findall(path.read_text("utf-8"))]
    }
    assert {(path, name) for path, name in found if words(name) & BANNED_NAMES} == set()


def test_modules_say_their_role() -> None:
    expect_none(problem for source in python_sources() for problem in docstring_problems(source))


def test_the_top_level_holds_only_what_the_design_lists() -> None:
    present = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert present - TOP_LEVEL - MADE_BY_TOOLS == set()


def own_text_files() -> Iterator[Path]:
    """Every file of the project that people write, the contents of the checkout's spool left out."""
    yield from (path for path in ROOT.iterdir() if path.is_file())
    yield from (ROOT / ".ci").glob("*")
    for folder in ("provisioning", "nulib", "schemas", "tests", "packaging", "spool/examples"):
        yield from files(folder)


def test_no_package_registry_is_named() -> None:
    expect_none(
        problem
        for path in own_text_files()
        for problem in host_problems(path.relative_to(ROOT).as_posix(), path.read_text("utf-8", errors="replace"))
    )


@pytest.mark.parametrize("folder", ["nushell", "nushell/oldest", "browser"])
def test_what_comes_from_npm_is_pinned_by_its_integrity_and_by_no_address(folder: str) -> None:
    lock = json.loads((ROOT / f"packaging/{folder}/package-lock.json").read_text("utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages
    for name, entry in packages.items():
        assert entry["integrity"].startswith("sha512-"), name
        assert "resolved" not in entry, name


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("core/x.py", "pass\n" * (FILE_LINES + 1)),
        ("core/x.py", "def f():\n" + "    pass\n" * FUNCTION_LINES),
        ("core/x.py", "class C:\n    async def f(self):\n" + "        pass\n" * FUNCTION_LINES),
    ],
)
def test_a_breach_of_size_is_found(path: str, text: str) -> None:
    assert len(list(size_problems(Source(f"provisioning/{path}", text)))) == 1


def test_the_longest_that_is_allowed_passes() -> None:
    function = "def f():\n" + "    pass\n" * (FUNCTION_LINES - 1)
    rest = "pass\n" * (FILE_LINES - FUNCTION_LINES)
    assert list(size_problems(Source("provisioning/core/x.py", function + rest))) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("core/utils.py", ""),
        ("helpers/x.py", ""),
        ("core/x.py", "class TaskManager: pass"),
        ("core/x.py", "class HTTPHandler: pass"),
        ("core/x.py", "def common_parts(): pass"),
        ("core/x.py", "class A:\n    def _base(self): pass"),
    ],
)
def test_a_banned_name_is_found(path: str, text: str) -> None:
    assert len(list(name_problems(Source(f"provisioning/{path}", text)))) == 1


def test_a_word_inside_another_is_no_banned_name() -> None:
    text = "class Database: pass\ndef handle(): pass\ndef decode_base64(): pass\ndef process(): pass"
    assert list(name_problems(Source("provisioning/core/x.py", text))) == []


def test_a_module_without_a_role_is_found() -> None:
    assert len(list(docstring_problems(Source("provisioning/core/x.py", "import re")))) == 1


def test_a_named_registry_is_found() -> None:
    line = f'"resolved": "https://{REGISTRY_HOSTS[0]}/x.tgz"'
    assert len(list(host_problems("x.json", f"{{\n{line}\n}}"))) == 1
