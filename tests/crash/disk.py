"""What a disk may show after a power cut: a file system that knows which of its changes were synced.

It knows no more than POSIX says. A sync of a file makes its bytes durable and no name of it; a sync of a folder makes
the names in it durable and nothing below. Changes of one folder reach the disk in their order, those of two folders in
any order; a rename from one folder into another is one change of both, as in every journal, and comes with the earlier
changes of its two names only.

It is fed by the recorded system calls of real processes, after each of which it says what a disk may have. The model of
`tests/simulation/disk.py` is driven in process, through long histories, and lets any change overtake another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from tests.crash.recording import ASIDE, Call, Moment

State = dict[str, bytes | None]
"""The bytes of each file by its path below the root; None for a folder."""


class File:
    """A file: its bytes as last synced, and all that they have been since."""

    def __init__(self) -> None:
        self.versions = [b""]

    @property
    def data(self) -> bytes:
        return self.versions[-1]

    def torn(self, fate: random.Random | None) -> bytes:
        """What the disk may have of it: with `fate` any part of what was written since, without it nothing."""
        first, last = self.versions[0], self.versions[-1]
        if fate is None or len(self.versions) == 1:
            return first
        if last.startswith(first):
            return last[: fate.randint(len(first), len(last))]
        return fate.choice(self.versions)


class Folder:
    """A folder: its names now, those that are durable, and the changes between the two in their order."""

    def __init__(self) -> None:
        self.names: dict[str, File | Folder] = {}
        self.durable: dict[str, File | Folder] = {}
        self.pending: list[Change] = []


class Change:
    """Names that change at once, in one folder or in two."""

    def __init__(self, number: int, names: list[tuple[Folder, str, File | Folder | None]]) -> None:
        self.number = number
        self.names = names

    def touches(self, folder: Folder, name: str) -> bool:
        return any(each is folder and known == name for each, known, _ in self.names)

    def apply(self, show: Callable[[Folder], dict[str, File | Folder]]) -> None:
        for folder, name, node in self.names:
            if node is None:
                show(folder).pop(name, None)
            else:
                show(folder)[name] = node


class Disk:
    """The files below one folder, as the recorded calls make them."""

    def __init__(self, root: Path) -> None:
        self._prefix = f"{root}/"
        self.root = Folder()
        self._count = 0
        self._offsets: dict[tuple[int, int], int | None] = {}
        """Where each descriptor writes; None: at the end."""
        self._syncs: dict[int, int] = {}
        """For each process in a sync: what of the file or folder had been done when it began."""

    # Calls

    def take(self, moment: Moment) -> bool:
        """Do what the call did, when it ended; whether the disk may show something else from now on."""
        call = moment.call
        if call.name in ASIDE:
            return False
        if call.name in ("fsync", "fdatasync"):
            return self._sync(moment)
        done = getattr(self, f"_{call.name.removesuffix('at2').removesuffix('at')}", None)
        if call.name == "openat":
            done = self._open
        assert done is not None, call
        return bool(done(call)) if moment.ends else False

    def _inside(self, path: str) -> tuple[Folder, str] | None:
        """The folder and the name that a path means; None outside the root, or where it is no longer there."""
        if not path.startswith(self._prefix):
            return None
        *parents, name = path.removeprefix(self._prefix).split("/")
        folder: File | Folder | None = self.root
        for parent in parents:
            folder = folder.names.get(parent) if isinstance(folder, Folder) else None
        return (folder, name) if isinstance(folder, Folder) else None

    def _node(self, path: str) -> File | Folder | None:
        place = self._inside(path)
        return place[0].names.get(place[1]) if place else None

    def _change(self, *names: tuple[Folder, str, File | Folder | None]) -> bool:
        self._count += 1
        change = Change(self._count, list(names))
        change.apply(lambda folder: folder.names)
        for folder in {id(folder): folder for folder, _, _ in names}.values():
            folder.pending.append(change)
        return True

    def _open(self, call: Call) -> bool:
        place = self._inside(call.path(0, 1))
        if place is None:
            return False
        folder, name = place
        flags = call.words[2].split("|")
        self._offsets[call.pid, call.result] = None if "O_APPEND" in flags else 0
        node = folder.names.get(name)
        if node is None and "O_CREAT" in flags:
            return self._change((folder, name, File()))
        if isinstance(node, File) and "O_TRUNC" in flags:
            node.versions.append(b"")
            return True
        return False

    def _write(self, call: Call) -> bool:
        number, path = call.descriptor(0)
        file = self._node(path)
        if not isinstance(file, File):
            return False
        at = self._offsets.get((call.pid, number))
        if at is None:
            return self._written(call, file, len(file.data))
        self._offsets[call.pid, number] = at + call.result
        return self._written(call, file, at)

    def _pwrite64(self, call: Call) -> bool:
        file = self._node(call.descriptor(0)[1])
        return isinstance(file, File) and self._written(call, file, int(call.words[3]))

    @staticmethod
    def _written(call: Call, file: File, at: int) -> bool:
        written = call.text(1)[: call.result]
        data = file.data.ljust(at, b"\0")
        file.versions.append(data[:at] + written + data[at + len(written) :])
        return True

    _writev = _write

    def _lseek(self, call: Call) -> bool:
        number, path = call.descriptor(0)
        if isinstance(self._node(path), File) and self._offsets.get((call.pid, number)) is not None:
            self._offsets[call.pid, number] = call.result
        return False

    def _ftruncate(self, call: Call) -> bool:
        file, size = self._node(call.descriptor(0)[1]), int(call.words[1])
        if not isinstance(file, File):
            return False
        file.versions.append(file.data[:size].ljust(size, b"\0"))
        return True

    def _fallocate(self, call: Call) -> bool:
        file, size = self._node(call.descriptor(0)[1]), int(call.words[2]) + int(call.words[3])
        if not isinstance(file, File):
            return False
        file.versions.append(file.data.ljust(size, b"\0"))
        return True

    def _rename(self, call: Call) -> bool:
        source, target = self._two_paths(call)
        if source is None or target is None:
            assert source is target, f"a rename across the border: {call}"
            return False
        return self._change((*source, None), (*target, source[0].names[source[1]]))

    def _link(self, call: Call) -> bool:
        source, target = self._two_paths(call)
        if source is None or target is None:
            return False
        return self._change((*target, source[0].names[source[1]]))

    def _two_paths(self, call: Call) -> tuple[tuple[Folder, str] | None, tuple[Folder, str] | None]:
        if call.name in ("rename", "link"):
            return self._inside(call.path(0)), self._inside(call.path(1))
        return self._inside(call.path(0, 1)), self._inside(call.path(2, 3))

    def _unlink(self, call: Call) -> bool:
        place = self._inside(call.path(0) if call.name in ("unlink", "rmdir") else call.path(0, 1))
        return place is not None and self._change((*place, None))

    _rmdir = _unlink

    def _mkdir(self, call: Call) -> bool:
        place = self._inside(call.path(0) if call.name == "mkdir" else call.path(0, 1))
        return place is not None and self._change((*place, Folder()))

    def _sync(self, moment: Moment) -> bool:
        """It covers what was done before it began; what others did meanwhile may have come too late."""
        call = moment.call
        path = call.descriptor(0)[1]
        node = self.root if f"{path}/" == self._prefix else self._node(path)
        if node is None:
            return False
        if moment.begins:
            self._syncs[call.pid] = len(node.versions) if isinstance(node, File) else self._count
        if not moment.ends:
            return False
        covered = self._syncs.pop(call.pid)
        if isinstance(node, File):
            del node.versions[: covered - 1]
        else:
            self._commit(_with_earlier(change for change in node.pending if change.number <= covered))
        return True

    def _commit(self, changes: Collection[Change]) -> None:
        for change in changes:
            change.apply(lambda folder: folder.durable)
        done = {change.number for change in changes}
        for folder in {id(folder): folder for change in changes for folder, _, _ in change.names}.values():
            folder.pending = [change for change in folder.pending if change.number not in done]

    # What the disk may show

    def now(self) -> State:
        """Everything, as if nothing had been cut."""
        return _walk(self.root, lambda folder: folder.names, lambda file: file.data)

    def synced(self) -> State:
        """Only what was synced."""
        return _walk(self.root, lambda folder: folder.durable, lambda file: file.torn(None))

    def names_only(self) -> State:
        """All names, but of bytes that were not synced nothing."""
        return _walk(self.root, lambda folder: folder.names, lambda file: file.torn(None))

    def torn(self, fate: random.Random) -> State:
        """All names, and of bytes that were not synced some."""
        return _walk(self.root, lambda folder: folder.names, lambda file: file.torn(fate))

    def mixed(self, fate: random.Random) -> State:
        """Of the changes of each folder that were not synced some first ones, and of bytes that were not a part."""
        chosen: list[Change] = []
        for folder in _folders(self.root):
            chosen += folder.pending[: fate.randint(0, len(folder.pending))]
        shown: dict[int, dict[str, File | Folder]] = {}

        def show(folder: Folder) -> dict[str, File | Folder]:
            return shown.setdefault(id(folder), dict(folder.durable)) if folder.pending else folder.durable

        for change in _with_earlier(chosen):
            change.apply(show)
        return _walk(self.root, show, lambda file: file.torn(fate))


def _with_earlier(changes: Iterator[Change] | list[Change]) -> list[Change]:
    """The changes and all those before them of the same names, in order."""
    found: dict[int, Change] = {}
    left = list(changes)
    while left:
        change = left.pop()
        if change.number not in found:
            found[change.number] = change
            for folder, name, _ in change.names:
                left += [one for one in folder.pending if one.number < change.number and one.touches(folder, name)]
    return [found[number] for number in sorted(found)]


def _folders(folder: Folder) -> Iterator[Folder]:
    """All folders that are there, were, or will be."""
    seen = {id(folder)}
    left = [folder]
    while left:
        each = left.pop()
        yield each
        nodes = [*each.names.values(), *each.durable.values()]
        nodes += [node for change in each.pending for _, _, node in change.names if node is not None]
        for node in nodes:
            if isinstance(node, Folder) and id(node) not in seen:
                seen.add(id(node))
                left.append(node)


def _walk(root: Folder, names: Callable[[Folder], Mapping[str, File | Folder]], data: Callable[[File], bytes]) -> State:
    state: State = {}
    left = [("", root)]
    seen: dict[int, bytes] = {}
    while left:
        prefix, folder = left.pop()
        for name, node in names(folder).items():
            if isinstance(node, Folder):
                state[prefix + name] = None
                left.append((f"{prefix}{name}/", node))
            else:
                if id(node) not in seen:
                    seen[id(node)] = data(node)
                state[prefix + name] = seen[id(node)]
    return state
