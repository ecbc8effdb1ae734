"""Tries on this host what the program relies on. One finding for each thing; nothing is changed that is not removed."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from provisioning.clock import boot_id, boottime, new_ulid, now
from provisioning.config import Config
from provisioning.errors import NushellUnusable, ProvisioningError, Refused, SpoolUnusable
from provisioning.execution.command import run
from provisioning.execution.nulib import load_nulib
from provisioning.execution.reader import PLAIN, run_nu
from provisioning.host import versions
from provisioning.orchestrator.watcher import Watcher
from provisioning.storage import disk, files
from provisioning.storage.lock import Lock
from provisioning.storage.mount import refuse_network
from provisioning.storage.spool import Spool

BUILT = datetime(2026, 1, 1, tzinfo=UTC)
"""A clock that says an earlier time is not set."""
EVENT_SECONDS = 2.0
SKEW_SECONDS = 2.0
SLOW_SYNC_SECONDS = 0.2
LEAST_FILES = 1024
LEAST_WATCHES = 64
LEAST_MEMORY_BYTES = 200 << 20


class Finding(NamedTuple):
    """What came of trying one thing."""

    name: str
    verdict: str
    """ok; note: works, but something is missing that may be wanted; bad: nothing can be relied on here."""
    said: str


class Note(Exception):
    """What was tried may be done without."""


Check = Callable[[Config, Path], str]
"""Tries one thing, in a scratch folder on the spool's file system; what was seen. Raises what is the matter."""


def findings(config: Config) -> Iterator[Finding]:
    """Try everything, in the order in which one thing needs the other."""
    place = _existing(config.paths.spool)
    scratch = place / f".provisioning-selftest-{new_ulid()}"
    try:
        files.make_dir(scratch)
    except (OSError, ProvisioningError) as error:
        yield Finding("scratch", "bad", f"{place}: {error}")
        return
    try:
        for name, check in CHECKS.items():
            yield _tried(name, check, config, scratch)
    finally:
        with contextlib.suppress(OSError, ProvisioningError):
            files.remove_tree(scratch)


def _existing(spool: Path) -> Path:
    """The spool's own tmp/, or the nearest folder that is there."""
    place = spool / "tmp"
    while not place.is_dir():
        place = place.parent
    return place


def _tried(name: str, check: Check, config: Config, scratch: Path) -> Finding:
    try:
        return Finding(name, "ok", check(config, scratch))
    except Note as note:
        return Finding(name, "note", str(note))
    except ProvisioningError as error:
        return Finding(name, "bad", f"{error.message}; {error.hint}" if error.hint else error.message)
    except OSError as error:
        return Finding(name, "bad", f"{error.filename or ''} {error.strerror or error}".strip())


def _program(config: Config, scratch: Path) -> str:
    try:
        folder = versions.own_folder()
    except Refused:
        return "not the one file: whoever installed it looks after it"
    if wrong := list(versions.differing(folder)):
        text = f"{len(wrong)} files of {folder} are not as they were built: {', '.join(wrong[:3])}"
        raise Refused(text, hint="remove that folder, and start the one file again")
    return f"as it was built, {folder}"


def _nushell(config: Config, scratch: Path) -> str:
    found = load_nulib(config)
    done = run_nu(found.nu.path, [*PLAIN, "-c", "print (20 + 22)"], cwd=Path("/"), timeout_seconds=20)
    if done.stdout.strip() != b"42":
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise NushellUnusable(f"{found.nu.path} does not run: {said}", hint="try it by hand")
    if not Path("/dev/fd").is_dir():
        raise NushellUnusable("there is no /dev/fd", hint="ln -s /proc/self/fd /dev/fd")
    version = ".".join(map(str, found.nu.version))
    broken = f", {len(found.catalogue.broken)} broken" if found.catalogue.broken else ""
    return f"{version} runs, {len(found.catalogue.operations)} operations{broken}, {found.nu.path}"


def _spool(config: Config, scratch: Path) -> str:
    if not (config.paths.spool / "format").exists():
        raise Note(f"none yet at {config.paths.spool}: provisioning spool init")
    with contextlib.closing(Spool.open(config.paths.spool, network=config.disk.network)):
        return str(config.paths.spool)


def _file_system(config: Config, scratch: Path) -> str:
    refuse_network(scratch, allowed=config.disk.network)
    return f"of this host alone, below {scratch.parent}"


def _rename(config: Config, scratch: Path) -> str:
    files.write_atomic(scratch / "a", b"old", durable=True)
    files.write_atomic(scratch / "a", b"new", durable=True)
    full = scratch / "full"
    files.make_dir(full)
    files.write_new(full / "b", b"", durable=False)
    files.make_dir(scratch / "other")
    try:
        files.move(scratch / "other", full)
    except (OSError, ProvisioningError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return "replaces a file at once, and no folder with something in it"
        raise
    raise SpoolUnusable("a folder was renamed onto one with something in it", hint="use another file system")


def _fsync(config: Config, scratch: Path) -> str:
    began = time.monotonic()
    for number in range(5):
        files.write_atomic(scratch / f"sync-{number}", b"x" * 1000, durable=True)
    each = (time.monotonic() - began) / 5
    text = f"{each * 1000:.1f} ms for a file and its folder"
    if each > SLOW_SYNC_SECONDS:
        raise Note(f"{text}: each task takes two or three of these")
    return text


def _locks(config: Config, scratch: Path) -> str:
    first, second = Lock(scratch / "lock"), Lock(scratch / "lock")
    if not first.take():
        raise SpoolUnusable("a lock that nobody has cannot be taken", hint="use another file system")
    if second.take():
        raise SpoolUnusable("two have the same lock", hint="use another file system")
    first.release()
    if not second.take():
        raise SpoolUnusable("a lock outlives its holder", hint="use another file system")
    second.release()
    return "exclude, and end with their holders"


def _inotify(config: Config, scratch: Path) -> str:
    watched = scratch / "watched"
    files.make_dir(watched)
    watcher = Watcher(lambda: [watched])
    try:
        began = time.monotonic()
        files.write_atomic(watched / "arrives", b"", durable=False)
        if not select.select([watcher.descriptor], [], [], EVENT_SECONDS)[0]:
            raise Note(f"no event came: the spool is looked at every {config.orchestrator.scan_seconds:g} s instead")
        return f"an arrival was told after {(time.monotonic() - began) * 1000:.1f} ms"
    finally:
        watcher.close()


def _clock(config: Config, scratch: Path) -> str:
    at, file = now(), scratch / "clock"
    files.write_new(file, b"", durable=False)
    skew = abs(file.stat().st_mtime - time.time())
    if at < BUILT:
        raise SpoolUnusable(f"it says {at:%F}", hint="set the clock")
    if skew > SKEW_SECONDS:
        raise SpoolUnusable(f"the file system's clock is {skew:.0f} s off", hint="set one or the other")
    before = boottime()
    if boottime() < before:
        raise SpoolUnusable("the time since the boot runs backwards", hint="this kernel cannot be used")
    return f"{at:%FT%TZ}, up for {before / 3600:.1f} h, boot {boot_id()[:8]}"


def _free_space(config: Config, scratch: Path) -> str:
    disk.refuse_below(scratch, config.disk)
    found = os.statvfs(scratch)
    inodes = f", {found.f_favail} inodes" if found.f_files else ""
    return f"{disk.size_text(found.f_bavail * found.f_frsize)}{inodes} free for the spool"


def _limits(config: Config, scratch: Path) -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    wanted = config.orchestrator.slots * 4
    short = []
    if soft < LEAST_FILES:
        short.append(f"{soft} open files, {LEAST_FILES} are wanted (ulimit -n)")
    if 0 <= processes < wanted:
        short.append(f"{processes} processes, {wanted} are wanted (ulimit -u)")
    for name, least in (("max_user_watches", LEAST_WATCHES), ("max_user_instances", 8)):
        found = _number(Path("/proc/sys/fs/inotify") / name)
        if found is not None and found < least:
            short.append(f"fs.inotify.{name} is {found}, {least} are wanted (sysctl)")
    free = _available_memory()
    if free is not None and free < LEAST_MEMORY_BYTES:
        short.append(f"{disk.size_text(free)} of memory available, {disk.size_text(LEAST_MEMORY_BYTES)} are wanted")
    if short:
        raise Note("; ".join(short))
    memory = f", {disk.size_text(free)} of memory" if free is not None else ""
    return f"{soft} open files ({hard} at most){memory}"


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None


def _available_memory() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _namespaces(config: Config, scratch: Path) -> str:
    unshare = shutil.which("unshare", path=config.environment.path)
    if unshare is None:
        raise Note("there is no unshare (util-linux): no servers of the local provider")
    flags = "--user --map-root-user --pid --fork --mount --uts --net --mount-proc"
    try:
        run([unshare, *flags.split(), "true"])
    except Refused:
        raise Note("not allowed to this user: no servers of the local provider") from None
    return "a user's own can be made: servers of the local provider work"


CHECKS: dict[str, Check] = {
    "program": _program,
    "nushell": _nushell,
    "spool": _spool,
    "file system": _file_system,
    "rename": _rename,
    "fsync": _fsync,
    "locks": _locks,
    "inotify": _inotify,
    "clock": _clock,
    "free space": _free_space,
    "limits": _limits,
    "namespaces": _namespaces,
}
