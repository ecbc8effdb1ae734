"""Four modules of storage/ write the spool, host/placing.py an installation, and nothing else writes."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.sources import ROOT, Source, aliases, expect_none, python_sources, qualified

WRITERS = {
    "provisioning/storage/files.py": "the spool's own files",
    "provisioning/storage/room.py": "outcomes, in room that was made for them",
    "provisioning/storage/growing.py": "records that are synced one by one at the end of a file",
    "provisioning/storage/foreign.py": "the folders of others inside the spool",
    "provisioning/host/placing.py": "an installation: as root, outside every spool",
}

EXCEPTIONS: dict[tuple[str, str], str] = {}
"""(file, call) and the reason why this one may. Empty as long as all go through the writer."""

OS_CALLS = set(
    "chmod chown lchown link makedirs mkdir mkfifo mknod remove removedirs removexattr rename renames replace rmdir "
    "setxattr symlink truncate unlink utime".split()
)
WRITING_FLAGS = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND", "O_TMPFILE"}
WRITING_MODES = set("wax+")
SHUTIL_READS = {"shutil.which", "shutil.disk_usage", "shutil.get_terminal_size"}
PATH_METHODS = set("chmod hardlink_to lchmod mkdir rename rmdir symlink_to touch unlink write_bytes write_text".split())
WRITING = tuple(path.removesuffix(".py").replace("/", ".") for path in WRITERS)


def writing_problems(source: Source) -> Iterator[str]:
    """Calls that make, change or remove a file, seen without running the program."""
    if source.path in WRITERS:
        return
    names = aliases(source)
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        called = _writing_call(node, names)
        if called and (source.path, called) not in EXCEPTIONS:
            yield source.at(node, f"{called} writes: it belongs into {next(iter(WRITERS))}")


def _writing_call(node: ast.Call, names: dict[str, str]) -> str:
    """The name of the call if it may write, otherwise nothing."""
    called = qualified(node.func, names)
    module, _, function = called.rpartition(".")
    if called.startswith(WRITING):
        return ""
    if called in {"open", "io.open"}:
        return called if _opens_to_write(node, position=1) else ""
    if called == "os.open":
        return called if _flags_write(node) else ""
    if module in {"os", "shutil", "tempfile"}:
        writes = function in OS_CALLS if module == "os" else called not in SHUTIL_READS
        return called if writes else ""
    if isinstance(node.func, ast.Attribute):
        if function in PATH_METHODS:
            return f".{function}"
        # Other classes have an open() too: only a mode that is spelled out tells that it is a path's.
        spelled = all(isinstance(value, ast.Constant) for value in [*node.args[:1], *(k.value for k in node.keywords)])
        if function == "open" and spelled and _opens_to_write(node, position=0):
            return ".open"
        # Path.replace takes one value; str.replace takes two, and that of a date or a dataclass takes keywords.
        if function == "replace" and len(node.args) == 1 and not node.keywords:
            return ".replace"
    return ""


def _opens_to_write(node: ast.Call, position: int) -> bool:
    mode: ast.expr | None = node.args[position] if len(node.args) > position else None
    for keyword in node.keywords:
        if keyword.arg == "mode":
            mode = keyword.value
    if mode is None:
        return False
    return not (isinstance(mode, ast.Constant) and isinstance(mode.value, str)) or bool(WRITING_MODES & set(mode.value))


def _flags_write(node: ast.Call) -> bool:
    """Whether os.open is called with flags that write, or that cannot be read off; the null device is no file."""
    target = ast.unparse(node.args[0]) if node.args else ""
    if target in {"os.devnull", "'/dev/null'"}:
        return False
    flags = node.args[1] if len(node.args) > 1 else None
    spelled = {part.attr for part in ast.walk(flags) if isinstance(part, ast.Attribute)} if flags else set()
    return not spelled or bool(spelled & WRITING_FLAGS)


def test_only_one_file_writes() -> None:
    expect_none(problem for source in python_sources() for problem in writing_problems(source))


def test_exceptions_are_still_needed() -> None:
    needed = {
        (source.path, _writing_call(node, names))
        for source in python_sources()
        for names in [aliases(source)]
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
    }
    assert set(EXCEPTIONS) <= needed


@pytest.mark.parametrize(
    "text",
    [
        "open(p, 'w')",
        "open(p, mode='ab')",
        "open(p, 'r+')",
        "open(p, mode)",
        "import io\nio.open(p, 'x')",
        "import os\nos.open(p, os.O_RDONLY | os.O_CREAT)",
        "import os\nos.open(p, flags)",
        "import os\nos.open('/dev/null0', os.O_RDWR)",
        "import os\nos.rename(a, b)",
        "from os import unlink as drop\ndrop(p)",
        "import os as system\nsystem.makedirs(p)",
        "import shutil\nshutil.rmtree(p)",
        "from shutil import copyfile\ncopyfile(a, b)",
        "import tempfile\ntempfile.mkdtemp()",
        "from tempfile import NamedTemporaryFile\nNamedTemporaryFile()",
        "path.write_text('x')",
        "Path(p).unlink(missing_ok=True)",
        "path.open('w')",
        "(a / b).replace(target)",
        "path.touch()",
        "path.mkdir(parents=True)",
    ],
)
def test_a_breach_is_found(text: str) -> None:
    assert len(list(writing_problems(Source("provisioning/execution/x.py", text)))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "open(p)",
        "open(p, 'rb')",
        "import os\nos.open(p, os.O_RDONLY | os.O_CLOEXEC)",
        "import os\nos.open(os.devnull, os.O_RDWR)",
        "import shutil\nshutil.which('nu')",
        "'a-b'.replace('-', '_')",
        "now.replace(microsecond=0)",
        "import dataclasses\ndataclasses.replace(task, state=state)",
        "from provisioning.storage import files\nfiles.write_atomic(p, b'', durable=True)\nfiles.rename(a, b)",
        "from provisioning.storage.files import unlink\nunlink(p)",
        "path.open()",
        "spool.open(workflow_id)",
        "path.read_text()",
    ],
)
def test_what_is_allowed_passes(text: str) -> None:
    assert list(writing_problems(Source("provisioning/execution/x.py", text))) == []


@pytest.mark.parametrize("path", WRITERS)
def test_a_writer_itself_may(path: str) -> None:
    assert (ROOT / path).exists()
    assert list(writing_problems(Source(path, "import os\nos.rename(a, b)"))) == []
