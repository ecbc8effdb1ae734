"""Nushell and the operations written in it: find a usable `nu`, read the catalogue of a nulib tree, keep a copy of it.

nulib is a path list: a file of an earlier root hides the file of the same relative path in later ones. The merged
catalogue is cached under a digest of one stat sweep over the roots, so an unchanged tree starts no `nu`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from provisioning import __version__
from provisioning.core.catalogue import Catalogue, Operation
from provisioning.decoding import decoded
from provisioning.errors import NushellUnusable, ProvisioningError, Refused, SpoolUnusable
from provisioning.storage import files, reading

MINIMUM = (0, 114, 1)
PINNED = "0.115.1"
_MAX_FILES = 5_000
_MAX_BYTES = 32 * 1024 * 1024
_CACHED = 8
"""So many cached catalogues are kept."""
_seen_kept: set[tuple[int, int, int]] = set()
"""Folders of kept operations that this process has compared: none is read again for each workflow."""
_CLOCK_TICK_NS = 20_000_000
"""A file changed within this time may change again and keep its time stamps."""


@dataclass(frozen=True, slots=True)
class Nushell:
    """A `nu` that can be used."""

    path: Path
    version: tuple[int, int, int]


def find_nu(configured: str | None, *, search: str, cache_dir: Path | None = None) -> Nushell:
    """The configured nu, else the one beside this Python, else the first on the path list `search`."""
    path = _locate(configured, search)
    try:
        version = _version(path, cache_dir)
    except OSError as error:
        at_fault = error.filename or path  # /dev/null, where a root folder was made by hand
        text = f"{path} cannot be executed: {at_fault}: {error.strerror}"
        raise NushellUnusable(text, hint=_advice(configured)) from error
    if version < MINIMUM:
        found, least = (".".join(map(str, numbers)) for numbers in (version, MINIMUM))
        text = f"Nushell {found} at {path} is too old: before {least} a failing external command can look like success"
        raise NushellUnusable(text, hint=_advice(configured))
    return Nushell(path, version)


def _advice(configured: str | None) -> str:
    where = "or correct PROVISIONING_NU (paths.nu in the config)" if configured else "or name one in PROVISIONING_NU"
    return f"install Nushell {PINNED} (npm package @nushell/linux-x64), {where}"


def _locate(configured: str | None, search: str) -> Path:
    if not configured:
        beside = Path(sys.executable).parent / "nu"
        found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nu", path=search)
        if found is None:
            text = f"Nushell was not found: no nu beside {sys.executable} nor in {search or 'an empty PATH'}"
            raise NushellUnusable(text, hint=_advice(configured))
        return Path(found).absolute()
    path = Path(configured).expanduser().absolute()
    if not path.exists():
        raise NushellUnusable(f"Nushell is not at {path}", hint=_advice(configured))
    if not path.is_file() or not os.access(path, os.X_OK):
        raise NushellUnusable(f"{path} is not an executable file", hint=_advice(configured))
    return path


def _version(path: Path, cache_dir: Path | None) -> tuple[int, int, int]:
    """What `nu --version` says; it costs a start, so it is remembered for this very file."""
    cache = _Cache(cache_dir / "nu" if cache_dir else None)
    key = _digest(_identity(path))
    text = cache.read(key)
    if text is None:
        from provisioning.execution.reader import run_nu

        text = run_nu(path, ["--version"], cwd=Path("/"), timeout_seconds=10).stdout
    numbers = re.fullmatch(rb"\s*(\d{1,6})\.(\d{1,6})\.(\d{1,6})\S*\s*", text)
    if numbers is None:
        raise NushellUnusable(f"{path} is not Nushell: it does not tell its version", hint=_advice(None))
    cache.write(key, text)
    return int(numbers[1]), int(numbers[2]), int(numbers[3])


@dataclass(frozen=True, slots=True)
class Tree:
    """The merged nulib: for each relative path the file that counts, and a stamp of all of them."""

    files: Mapping[str, Path]
    stamp: str

    def contents(self) -> dict[str, bytes]:
        """The bytes of every file. Refused if one cannot be read."""
        contents: dict[str, bytes] = {}
        size = 0
        for name, path in self.files.items():
            try:
                contents[name] = path.read_bytes()
            except OSError as error:
                raise Refused(f"cannot read {path}: {error.strerror}", hint="give this user the right to") from error
            size += len(contents[name])
            if size > _MAX_BYTES:
                text = f"the operations take more than {_MAX_BYTES} bytes: {path} is beyond"
                raise Refused(text, hint="see that PROVISIONING_NULIB names folders of operations only")
        return contents


def sweep(roots: Sequence[Path]) -> Tree:
    """Look at every file of the roots without opening it. Hidden files, linked folders and `tests/` do not count."""
    merged: dict[str, Path] = {}
    facts = []
    for root in roots:
        for name, entry in sorted(_walk(str(root), ""), key=lambda found: found[0]):
            merged.setdefault(name, Path(entry.path))
            with contextlib.suppress(FileNotFoundError):
                facts.append(f"{entry.path}\0{_stamp(entry.stat())}")
        if len(facts) > _MAX_FILES:
            text = f"more than {_MAX_FILES} files of operations in {root}"
            raise Refused(text, hint="see that PROVISIONING_NULIB names folders of operations only")
    return Tree(files=dict(sorted(merged.items())), stamp=_digest(*facts))


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.name.startswith(".") or name == "tests":
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(entry.path, f"{name}/")
                elif entry.is_file():
                    yield name, entry
    except FileNotFoundError:
        return  # a root of the path list need not be there
    except NotADirectoryError as error:
        text = f"{folder} is a file, and a folder of operations is wanted"
        hint = "name folders that have <domain>/<verb>.nu in PROVISIONING_NULIB (paths.nulib in the config)"
        raise Refused(text, hint=hint) from error
    except OSError as error:
        raise Refused(f"cannot read {folder}: {error.strerror}", hint="give this user the right to") from error


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino} {status.st_dev}"


def _identity(path: Path) -> str:
    return f"{path}\0{_stamp(path.stat())}"


def _digest(*parts: str | bytes) -> str:
    """SHA-256 over the parts, each with its length before it."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogateescape") if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


class _Cache:
    """Files that may be lost: never trusted if others could have written them, never missed if they cannot be."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def _usable(self, folder: Path) -> bool:
        try:
            status = folder.lstat()
        except OSError:
            return False
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022

    def read(self, key: str) -> bytes | None:
        """What was kept under the key."""
        if self.folder is None or not self._usable(self.folder):
            return None
        try:
            return (self.folder / f"{key}.json").read_bytes()
        except OSError:
            return None

    def write(self, key: str, data: bytes) -> None:
        """Keep the data, and few others. A cache that cannot be written is done without."""
        if self.folder is None:
            return
        try:
            files.make_dir(self.folder)
            if not self._usable(self.folder):
                return
            path = self.folder / f"{key}.json"
            if not path.exists() or path.read_bytes() != data:
                files.write_atomic(path, data, durable=False)
            kept = sorted(self.folder.glob("*.json"), key=lambda other: other.stat().st_mtime_ns, reverse=True)
            for other in kept[_CACHED:]:
                files.remove(other)
        except (OSError, ProvisioningError):
            return


def load_catalogue(nu: Nushell, roots: Sequence[Path], cache_dir: Path) -> tuple[Catalogue, Tree]:
    """The operations of the merged roots, from the cache where nothing has changed since, and the tree they are in."""
    began = time.time_ns()
    tree = sweep(roots)
    key = _digest(__version__, *_own_identity(), _identity(nu.path), tree.stamp)
    cache = _Cache(cache_dir / "catalogue")
    cached = cache.read(key)
    if cached is not None:
        with contextlib.suppress(msgspec.DecodeError):  # a damaged file is made anew
            return decoded(cached, Catalogue), tree
    catalogue = read_catalogue(nu, tree)
    settled = all(path.stat().st_ctime_ns < began - _CLOCK_TICK_NS for path in tree.files.values() if path.exists())
    if settled and sweep(roots).stamp == tree.stamp:
        cache.write(key, msgspec.json.encode(catalogue))
    return catalogue, tree


def read_catalogue(nu: Nushell, tree: Tree) -> Catalogue:
    """The operations of the tree, read by nu. A file with errors is left out alone, and listed as broken."""
    contents = tree.contents()
    from provisioning.execution.reader import read_operations, working_copy  # a cached catalogue needs neither

    with working_copy(contents) as copy:
        declared = read_operations(nu.path, copy, contents)
    found = [one.operation for one in declared.values() if one.operation]
    operations = {operation.name: operation for operation in found}
    broken = [replace(bad, file=str(tree.files[bad.file])) for one in declared.values() for bad in one.problems]
    digest = _catalogue_digest(nu, contents, operations)
    return Catalogue(digest=digest, operations=operations, broken=tuple(broken))


def _own_identity() -> list[str]:
    """What tells this generator from a changed one, beside the version: its own files, which a frozen program lacks."""
    folder = Path(__file__).parent
    own = [folder / name for name in ("nushell.py", "reader.py", "signature.py", "entries.py")]
    return [_identity(path) for path in own if path.exists()]


def snapshot(nu: Nushell, catalogue: Catalogue, tree: Tree, target: Path, scratch: files.Scratch) -> None:
    """Keep the merged tree, an entry for each operation and the catalogue in the folder `target`, named by the digest.

    What runs from there is not changed by a newer nulib. Refused if the tree has changed since it was read,
    SpoolUnusable if what is there already is not what the digest stands for: a restored spool has what its backup had.
    """
    if target.is_dir():
        if not _is_kept(nu, catalogue, target):
            raise SpoolUnusable(
                f"{target} is not the operations that its name stands for: nothing new is planned with it",
                hint="find out who made this spool; move the folder away if nothing in it may run",
            )
        files.publish_tree({}, target, scratch)  # what is there stays, and is made durable
        return
    contents = tree.contents()
    if _catalogue_digest(nu, contents, catalogue.operations) != catalogue.digest:
        raise Refused("the operations changed while they were being read", hint="give the same command again")
    kept = {f"tree/{name}": data for name, data in contents.items()}
    from provisioning.execution.entries import entry_source

    kept |= {f"entries/{name}.nu": entry_source(found).encode() for name, found in catalogue.operations.items()}
    kept["catalogue.json"] = msgspec.json.encode(catalogue)
    files.make_dir(target.parent)
    files.publish_tree(kept, target, scratch)


def _is_kept(nu: Nushell, catalogue: Catalogue, target: Path) -> bool:
    """Whether the folder has the tree and the entries of the catalogue, and nothing else that could run."""
    from provisioning.execution.entries import entry_source

    status = os.stat(target)
    identity = (status.st_dev, status.st_ino, status.st_ctime_ns)
    if identity in _seen_kept:
        return True
    try:
        contents, entries = (_plain_files(target / name) for name in ("tree", "entries"))
    except (OSError, SpoolUnusable):
        return False
    generated = {f"{name}.nu": entry_source(found).encode() for name, found in catalogue.operations.items()}
    if entries != generated or _catalogue_digest(nu, contents, catalogue.operations) != catalogue.digest:
        return False
    _seen_kept.add(identity)
    return True


def _plain_files(root: Path) -> dict[str, bytes]:
    """The bytes of every file by its path below the root; SpoolUnusable where there is a link or a device."""
    found: dict[str, bytes] = {}
    for folder, folders, names in os.walk(root):
        for path in (Path(folder, name) for name in names):
            found[path.relative_to(root).as_posix()] = reading.read_regular(path, _MAX_BYTES)
        if linked := [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            raise SpoolUnusable(f"{os.path.join(folder, linked[0])} is a link")
    return found


def _catalogue_digest(nu: Nushell, contents: Mapping[str, bytes], operations: Mapping[str, Operation]) -> str:
    from provisioning.execution.entries import entry_source

    parts: list[str | bytes] = [".".join(map(str, nu.version))]
    for name in sorted(contents):
        parts += [name, contents[name]]
    for name in sorted(operations):
        parts += [msgspec.json.encode(operations[name]), entry_source(operations[name])]
    return _digest(*parts)
