"""A disk that loses what was not synced.

A sync of a file makes its bytes durable, one of a folder its entries. A rename between two folders is one change. At
a power cut every other change of an entry, and every other byte, may have reached the disk or not, in any order; a
file whose bytes were not synced is empty, cut off or whole. Scratch folders belong to processes that are gone by
then, so their entries are not followed; what is moved out of one is.

It is driven in process, through long histories, and keeps no order at all. `tests/crash/disk.py` is the model that
is fed by recorded system calls of real processes: it keeps the order within a folder, and stops after each call.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

Node = int
"""A file or folder for as long as this disk knows it: inode numbers are used again."""


class Entry(NamedTuple):
    """What a name in a folder stands for after a change; None where it is gone."""

    folder: Node
    name: str
    node: Node | None


Change = tuple[Entry, ...]
"""Entries that change together."""


class Disk:
    """What of the tree at `root` would be left if the power went now."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._begin()

    def _begin(self) -> None:
        """All that is there is on the disk."""
        self._nodes: dict[int, Node] = {}
        self._count = 0
        self._entries: dict[Node, dict[str, Node]] = {}
        """Of each folder, on the disk."""
        self._bytes: dict[Node, bytes] = {}
        """Of each file, on the disk."""
        self._last: dict[Node, bytes] = {}
        """Of files that have lost their last name, as they were then."""
        self._lost: set[Node] = set()
        """Files of which a sync has failed."""
        self._pending: list[Change] = []
        self._scratch: set[Node] = set()
        for path, inode, is_folder in _tree(self.root):
            node = self._node(inode)
            if path != self.root:
                self._entries[self._node(path.parent.stat().st_ino)][path.name] = node
            if is_folder:
                self._entries[node] = {}
            else:
                self._bytes[node] = path.read_bytes()
        if (tmp := self.root / "tmp").exists():
            self._scratch = {self._node(tmp.stat().st_ino)}

    def _node(self, inode: int) -> Node:
        if inode not in self._nodes:
            self._born(inode)
        return self._nodes[inode]

    def _born(self, inode: int) -> Node:
        self._count += 1
        self._nodes[inode] = self._count
        return self._count

    # What is done to it

    def around(self, name: str, original: Callable[..., Any], arguments: tuple[Any, ...], rest: dict[str, Any]) -> Any:
        """Make the call and note what it did."""
        noted = getattr(self, f"_{name}", None)
        return original(*arguments, **rest) if noted is None else noted(original, arguments, rest)

    def lose(self, descriptor: int) -> None:
        """A sync of it has failed: whatever is said later, those bytes are never on the disk."""
        status = os.fstat(descriptor)
        if not stat.S_ISDIR(status.st_mode):
            self._lost.add(self._node(status.st_ino))

    def _place(self, path: Any, rest: dict[str, Any]) -> tuple[Node, str]:
        """The folder and the name that a path means."""
        folder, name = os.path.split(path)
        if (descriptor := rest.get("dir_fd")) is not None and not os.path.isabs(path):
            assert not folder
            return self._node(os.fstat(descriptor).st_ino), name
        return self._node(os.stat(folder).st_ino), name

    def _changed(self, *entries: Entry) -> None:
        followed = tuple(entry for entry in entries if entry.folder not in self._scratch)
        if followed:
            self._pending.append(followed)

    def _open(self, original: Callable[..., Any], arguments: tuple[Any, ...], rest: dict[str, Any]) -> int:
        path, flags = arguments[:2]
        new = bool(flags & os.O_EXCL) or (bool(flags & os.O_CREAT) and not os.path.lexists(path))
        descriptor: int = original(*arguments, **rest)
        if new:
            self._changed(Entry(*self._place(path, rest), self._born(os.fstat(descriptor).st_ino)))
        return descriptor

    def _mkdir(self, original: Callable[..., Any], arguments: tuple[Any, ...], rest: dict[str, Any]) -> None:
        original(*arguments, **rest)
        folder, name = self._place(arguments[0], rest)
        node = self._born(os.stat(arguments[0]).st_ino)
        self._entries[node] = {}
        self._changed(Entry(folder, name, node))
        if os.path.dirname(arguments[0]) == os.fspath(self.root / "tmp"):
            self._scratch.add(node)

    def _link(self, original: Callable[..., Any], arguments: tuple[Any, ...], rest: dict[str, Any]) -> None:
        original(*arguments, **rest)
        within: int | None = rest.get("dst_dir_fd")
        node = self._node(os.stat(arguments[1], dir_fd=within).st_ino)
        self._changed(Entry(*self._place(arguments[1], {"dir_fd": within}), node))

    def _rename(self, original: Callable[..., Any], arguments: tuple[Any, ...], rest: dict[str, Any]) -> None:
        source, target = arguments
        node = self._node(os.lstat(source).st_ino)
        self._remember(target, rest)
        before, after = self._place(source, rest), self._place(target, rest)
        original(*arguments, **rest)
        self._changed(Entry(*before, None), Entry(*after, node))

    def _unlink(self, original: Callable[..., Any], arguments: tuple[Any, ...], rest: dict[str, Any]) -> None:
        folder, name = self._place(arguments[0], rest)
        if folder not in self._scratch:
            self._remember(arguments[0], rest)
        original(*arguments, **rest)
        self._changed(Entry(folder, name, None))

    def _rmdir(self, original: Callable[..., Any], arguments: tuple[Any, ...], rest: dict[str, Any]) -> None:
        folder, name = self._place(arguments[0], rest)
        original(*arguments, **rest)
        self._changed(Entry(folder, name, None))

    def _remember(self, path: Any, rest: dict[str, Any]) -> None:
        """Keep the bytes of a file that may lose its last name: the disk may not hear of it."""
        try:
            status = os.stat(path, follow_symlinks=False, **rest)
        except FileNotFoundError:
            return
        if status.st_nlink == 1 and stat.S_ISREG(status.st_mode):
            self._last[self._node(status.st_ino)] = _read(path, **rest)

    def _fsync(self, original: Callable[..., Any], arguments: tuple[Any, ...], rest: dict[str, Any]) -> None:
        status = os.fstat(arguments[0])
        node = self._node(status.st_ino)
        if stat.S_ISDIR(status.st_mode):
            self._commit(node)
        elif node not in self._lost:
            self._bytes[node] = _read(f"/proc/self/fd/{arguments[0]}")

    def _commit(self, folder: Node) -> None:
        """Changes in the folder are on the disk, with all that came before them in the folders that they share."""
        folders, rest = {folder}, []
        done = []
        for change in reversed(self._pending):
            touched = {entry.folder for entry in change}
            if touched & folders:
                folders |= touched
                done.append(change)
            else:
                rest.append(change)
        self._pending = rest[::-1]
        for change in reversed(done):
            self._apply(change)

    def _apply(self, change: Change) -> None:
        for folder, name, node in change:
            entries = self._entries.setdefault(folder, {})
            if node is None:
                entries.pop(name, None)
            else:
                entries[name] = node

    # The cut

    def cut(self, chance: random.Random) -> None:
        """Put the tree to what the disk has; all processes that had anything open are gone."""
        for change in self._arrived(chance):
            self._apply(change)
        live = {self._node(inode): path for path, inode, is_folder in _tree(self.root) if not is_folder}
        inode = os.stat(self.root).st_ino
        old = self.root.with_name(f"{self.root.name}.cut")
        os.rename(self.root, old)
        moved = {node: old / path.relative_to(self.root) for node, path in live.items()}
        self._make(self.root, self._nodes[inode], moved, chance)
        shutil.rmtree(old)
        self._begin()

    def _arrived(self, chance: random.Random) -> list[Change]:
        """Which of the pending changes have reached the disk: those up to some instant, or any."""
        if chance.random() < 0.5:
            return self._pending[: chance.randint(0, len(self._pending))]
        share = chance.choice([0.0, 0.3, 0.7, 1.0])
        return [change for change in self._pending if chance.random() < share]

    def _make(self, path: Path, node: Node, live: dict[Node, Path], chance: random.Random) -> None:
        os.mkdir(path, 0o700)
        for name, child in sorted(self._entries.get(node, {}).items()):
            if child in self._entries:
                self._make(path / name, child, live, chance)
                continue
            data = live[child].read_bytes() if child in live else self._last.get(child, b"")
            descriptor = os.open(path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(descriptor, self._left(child, data, chance))
            finally:
                os.close(descriptor)

    def _left(self, node: Node, data: bytes, chance: random.Random) -> bytes:
        """The bytes of a file on the disk; `data` are those that were last written."""
        synced = self._bytes.get(node, b"")
        if data == synced:
            return data
        if node in self._lost:
            return synced
        if data.startswith(synced):
            return data[: chance.choice([len(synced), chance.randint(len(synced), len(data)), len(data)])]
        return chance.choice([synced, b"", data[: chance.randint(0, len(data))], data])


def _tree(path: Path) -> Iterator[tuple[Path, int, bool]]:
    """Every folder and file of the tree, a folder before what is in it: path, inode, whether it is a folder."""
    yield path, path.stat().st_ino, True
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                yield from _tree(path / entry.name)
            else:
                yield path / entry.name, entry.inode(), False


def _read(path: Any, dir_fd: int | None = None) -> bytes:
    descriptor = os.open(path, os.O_RDONLY, dir_fd=dir_fd)
    try:
        return os.read(descriptor, 1 << 24)
    finally:
        os.close(descriptor)
