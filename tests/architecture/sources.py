"""The project's own files, as the architecture tests look at them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

TOP_LEVEL = {"pyproject.toml", "README.md", "provisioning", "spool", "nulib", "schemas", "tests", "packaging"}
MADE_BY_TOOLS = {"node_modules", "__pycache__", "build", "dist", "PKG-INFO"}


@dataclass(frozen=True)
class Source:
    """One Python file: its path from the root of the project, with slashes, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def module(self) -> str:
        """Its dotted name: provisioning.core.workflow."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def part(self) -> str:
        """Its folder or file directly in the package: core, errors; empty for the package itself."""
        names = self.module.split(".")
        return names[1] if len(names) > 1 else ""

    def at(self, node: ast.AST, problem: str) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {problem}"


def python_sources(folder: str = "provisioning") -> list[Source]:
    """Every Python file of a top-level folder."""
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in files(folder, ".py")]


def files(folder: str, suffix: str = "") -> Iterator[Path]:
    """The files of a top-level folder whose names end so, without what tools made."""
    for path in sorted((ROOT / folder).rglob(f"*{suffix}")):
        if path.is_file() and not MADE_BY_TOOLS & set(path.relative_to(ROOT).parts):
            yield path


@dataclass(frozen=True)
class Import:
    """One imported module, wherever in the file: at the top, in a function, or only for types."""

    module: str
    names: tuple[str, ...]
    node: ast.AST


def imports(source: Source) -> Iterator[Import]:
    """All imports of a file, lazy ones, relative ones and calls of import_module included."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, (), node)
        elif isinstance(node, ast.ImportFrom):
            yield Import(_absolute(source, node), tuple(alias.name for alias in node.names), node)
        elif isinstance(node, ast.Call) and qualified(node.func, {}).endswith(("import_module", "__import__")):
            argument = node.args[0] if node.args else None
            constant = argument.value if isinstance(argument, ast.Constant) else "?"
            yield Import(str(constant), (), node)


def _absolute(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    names = source.module.split(".")
    if source.path.endswith("__init__.py"):
        names.append("")
    return ".".join([*names[: -node.level], *([node.module] if node.module else [])])


def aliases(source: Source) -> dict[str, str]:
    """What the imported names of a file stand for: {"rename": "os.rename"} after `from os import rename`."""
    found: dict[str, str] = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{_absolute(source, node)}.{alias.name}"
    return found


def qualified(node: ast.AST, names: dict[str, str]) -> str:
    """The dotted name that an expression spells, imported names resolved; "?" for a part that is computed."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{qualified(node.value, names)}.{node.attr}"
    return "?"


def expect_none(problems: Iterable[str]) -> None:
    """Fail with all problems, one a line, not with the difference of two lists."""
    found = list(problems)
    assert not found, "\n" + "\n".join(found)
