"""Who may import what: the layers, the home of each library, and the purity of the core."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator

import pytest

from tests.architecture.sources import ROOT, Import, Source, aliases, expect_none, imports, python_sources, qualified

LAYERS = [
    {"__main__"},
    {"cli"},
    {"host"},
    {"orchestrator", "gateway"},
    {"execution", "views"},
    {"storage"},
    {"config", "resources", "processes", "infra"},
    {"clock", "convert", "ownership", "sections"},
    {"core"},
    {"errors", "decoding"},
]
"""From top to bottom. A part imports from lines below its own, and never from its neighbours on the same line."""

HOMES = {
    "click": {"cli"},
    "watchdog": {"orchestrator"},
    "filelock": {"storage"},
    "multiprocessing": {"execution"},
    "subprocess": {"execution"},
    "pty": {"execution"},
    "ctypes": {"execution", "storage"},  # system calls that Python does not have: prctl, renameat2
    "rich": {"views"},
    "jsonschema": {"core"},
    "fastjsonschema": {"core"},
    "tomli_w": {"core"},
    "aiohttp": {"gateway"},
    "asyncio": {"gateway"},  # nowhere else: what works the spool has one way of waiting, connection.wait
    "http": {"gateway"},
    "socketserver": {"gateway"},
}
"""The one part that may import a library. An engine of another kind, or none, is then one folder's matter."""

UNWANTED = {
    "concurrent": "the pools of the standard library lose tasks when a worker is killed",
    "pickle": "nothing that another process wrote is unpickled",
    "shelve": "files of the spool are JSON",
    "tempfile": "temporary files of the spool are in its tmp/, made by storage/files.py",
}

EXCEPTIONS: dict[tuple[str, str], str] = {}

IMPURE_MODULES = set(
    "asyncio atexit builtins contextvars ctypes fcntl getpass glob http importlib io linecache locale logging mmap "
    "multiprocessing os pathlib platform pwd random resource runpy sched secrets select selectors shutil signal socket "
    "sqlite3 ssl subprocess sys syslog tempfile termios threading time traceback urllib uuid warnings weakref zoneinfo "
    "click filelock rich watchdog".split()
)
IMPURE_CALLS = {"open", "print", "input", "breakpoint", "exec", "eval"}
IMPURE_METHODS = {"now", "utcnow", "today"}
PURE_NAMES = {"pathlib": {"PurePath", "PurePosixPath"}, "urllib": set(), "importlib": set()}


def spawns(name: str) -> bool:
    """Whether this os function starts a process or becomes another."""
    return name.startswith("os.") and name[3:].startswith(("fork", "spawn", "posix_spawn", "exec", "popen", "system"))


def layer_problems(source: Source) -> Iterator[str]:
    """Imports that do not go downwards."""
    level = {part: index for index, parts in enumerate(LAYERS) for part in parts}
    own = source.part
    if own and own not in level:
        yield source.at(source.tree, f"{own} is in no layer: give it one above")
        return
    for found in imports(source):
        if found.module == "?":
            yield source.at(found.node, "imports a name that is computed, so no rule can see it")
        package, _, rest = found.module.partition(".")
        if package != "provisioning":
            continue
        for other in [rest.partition(".")[0]] if rest else [name for name in found.names if name in level]:
            if other == own:
                continue
            if not own:
                yield source.at(found.node, f"the package itself imports nothing, not {other}")
            elif other not in level:
                yield source.at(found.node, f"imports {other}, which is in no layer")
            elif level[other] <= level[own]:
                yield source.at(found.node, f"{own} must not import {other}: imports go downwards only")


def library_problems(source: Source) -> Iterator[str]:
    """Libraries away from home, and those that have none."""
    for found in imports(source):
        library = found.module.partition(".")[0]
        if (source.path, library) in EXCEPTIONS:
            continue
        if library in UNWANTED:
            yield source.at(found.node, f"imports {library}: {UNWANTED[library]}")
        home = HOMES.get(library)
        if home and source.part not in home:
            yield source.at(found.node, f"imports {library}, whose home is {'/'.join(sorted(home))}")
    names = aliases(source)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and spawns(qualified(node.func, names)) and source.part != "execution":
            yield source.at(node, f"{qualified(node.func, names)} starts a process: only execution does")


def purity_problems(source: Source) -> Iterator[str]:
    """What the core does beyond deciding: disk, clock, process, randomness, logging, environment."""
    if source.part != "core":
        return
    for found in imports(source):
        top = found.module.partition(".")[0]
        pure = PURE_NAMES.get(top)
        if top in IMPURE_MODULES and not (pure and found.names and set(found.names) <= pure):
            yield source.at(found.node, f"core is pure, and {found.module} is not")
    names = aliases(source)
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        called = qualified(node.func, names)
        if called in IMPURE_CALLS or (
            called.rpartition(".")[2] in IMPURE_METHODS and called.startswith(("datetime.", "date."))
        ):
            yield source.at(node, f"core is pure: it takes what {called}() gives as an argument")
        if isinstance(node.func, ast.Attribute) and node.func.attr in {"read_text", "read_bytes", "write_text"}:
            yield source.at(node, f"core is pure, and {node.func.attr}() reads or writes a file")


def decoding_problems(source: Source) -> Iterator[str]:
    """Types that msgspec would work out when it first meets them, in whichever thread that is."""
    if source.part == "decoding":
        return
    names = aliases(source)
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        called = qualified(node.func, names)
        kinds = [word.value for word in node.keywords if word.arg == "type"]
        typed = called == "msgspec.json.decode" and kinds and ast.unparse(kinds[0]) != "dict[str, Any]"
        if typed or called == "msgspec.convert":
            yield source.at(node, "provisioning.decoding does that, so that threads may share the type")


OF_SLURM = "provisioning.execution.slurm"
MAKERS_OF_SLURM = {"provisioning/orchestrator/daemon.py", "provisioning/orchestrator/foreground.py"}
"""Whoever makes executors. All others know an executor by its protocol: a cluster is one folder's matter."""


def cluster_problems(source: Source) -> Iterator[str]:
    """Knowledge of Slurm elsewhere than where it is made an executor of."""
    if source.path in MAKERS_OF_SLURM or source.module.startswith(OF_SLURM):
        return
    for found in imports(source):
        if any(f"{name}.".startswith(f"{OF_SLURM}.") for name in (found.module, *_within(found))):
            yield source.at(found.node, "imports what talks to Slurm: only who makes its executor does")


def _within(found: Import) -> list[str]:
    return [f"{found.module}.{name}" for name in found.names]


Rule = Callable[[Source], Iterator[str]]
RULES: list[Rule] = [layer_problems, library_problems, purity_problems, decoding_problems, cluster_problems]


@pytest.mark.parametrize("rule", RULES)
def test_the_project_keeps_the_rule(rule: Rule) -> None:
    expect_none(problem for source in python_sources() for problem in rule(source))


def test_exceptions_are_still_needed() -> None:
    needed = {(source.path, found.module.partition(".")[0]) for source in python_sources() for found in imports(source)}
    assert set(EXCEPTIONS) <= needed


def test_every_import_is_of_a_declared_library() -> None:
    """A library that is only there by way of another one goes with it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = project["dependencies"] + project["optional-dependencies"].get("web", [])
    declared = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in requirements}
    used = {found.module.partition(".")[0] for source in python_sources() for found in imports(source)}
    assert used - declared - sys.stdlib_module_names - {"provisioning", ""} == set()


CASES = [
    (layer_problems, "core/x.py", "import provisioning.storage.files"),
    (layer_problems, "core/x.py", "from provisioning import storage"),
    (layer_problems, "core/x.py", "def f():\n    from provisioning.cli import main"),
    (layer_problems, "core/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import provisioning.views"),
    (layer_problems, "storage/x.py", "from ..execution import pool"),
    (layer_problems, "storage/__init__.py", "from ..execution import pool"),
    (layer_problems, "storage/x.py", "import importlib\nimportlib.import_module('provisioning.execution.pool')"),
    (layer_problems, "storage/x.py", "import importlib\nimportlib.import_module(name)"),
    (layer_problems, "execution/x.py", "from provisioning.views import table"),
    (layer_problems, "views/x.py", "from provisioning.execution import pool"),
    (layer_problems, "orchestrator/x.py", "from provisioning.gateway import app"),
    (layer_problems, "config.py", "from provisioning.resources import data_dir"),
    (layer_problems, "errors.py", "from provisioning.core import workflow"),
    (layer_problems, "__init__.py", "from provisioning.core import workflow"),
    (layer_problems, "tools/x.py", ""),
    (layer_problems, "cli/x.py", "from provisioning.tools import x"),
    (library_problems, "core/x.py", "def f():\n    import click"),
    (library_problems, "orchestrator/x.py", "from subprocess import run"),
    (library_problems, "cli/x.py", "from multiprocessing.connection import wait"),
    (library_problems, "cli/x.py", "import rich.live"),
    (library_problems, "execution/x.py", "from concurrent.futures import ProcessPoolExecutor"),
    (library_problems, "cli/x.py", "import os\nos.fork()"),
    (library_problems, "cli/x.py", "from os import execv as become\nbecome(path, [])"),
    (purity_problems, "core/x.py", "import os.path"),
    (purity_problems, "core/x.py", "def f():\n    import time"),
    (purity_problems, "core/x.py", "from pathlib import PurePath, Path"),
    (purity_problems, "core/x.py", "from datetime import datetime\ndatetime.now()"),
    (purity_problems, "core/x.py", "import datetime as d\nd.datetime.now(d.UTC)"),
    (purity_problems, "core/x.py", "from datetime import date\ndate.today()"),
    (purity_problems, "core/x.py", "def f(path):\n    return open(path)"),
    (purity_problems, "core/x.py", "def f(path):\n    return path.read_text()"),
    (purity_problems, "core/x.py", "import logging"),
    (decoding_problems, "views/x.py", "import msgspec\nmsgspec.json.decode(data, type=Plan)"),
    (decoding_problems, "views/x.py", "from msgspec import convert\nconvert(value, Plan)"),
    (cluster_problems, "orchestrator/loop.py", "from provisioning.execution.slurm.executor import Slurm"),
    (cluster_problems, "execution/remote.py", "from provisioning.execution import slurm"),
]


@pytest.mark.parametrize(("rule", "path", "text"), CASES)
def test_a_breach_is_found(rule: Rule, path: str, text: str) -> None:
    assert len(list(rule(Source(f"provisioning/{path}", text)))) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("cli/x.py", "import click\nfrom provisioning.orchestrator import loop"),
        ("cli/x.py", "from provisioning import errors, __version__"),
        ("execution/x.py", "import subprocess, os\nos.posix_spawn(a, b, c)\nfrom provisioning.execution import pool"),
        (
            "core/x.py",
            "from pathlib import PurePath\nfrom datetime import datetime\ndatetime.fromisoformat(a).replace()",
        ),
        ("core/x.py", "import jsonschema\nfrom .workflow import Task\nfrom provisioning.errors import Problem"),
    ],
)
def test_what_is_allowed_passes(path: str, text: str) -> None:
    assert [problem for rule in RULES for problem in rule(Source(f"provisioning/{path}", text))] == []
