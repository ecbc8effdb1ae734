"""Installs, upgrades and removes: a list of steps, each of which says what it does, and none of which is done twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from provisioning.core.workflow import FORMAT
from provisioning.errors import NotFound, Refused
from provisioning.execution.command import run
from provisioning.host import account, placing, versions
from provisioning.host.layout import GATEWAY_UNIT, MAIN_UNIT, UNITS, Layout
from provisioning.ownership import refuse_unless_ours
from provisioning.storage.naming import WrongKind
from provisioning.storage.reading import read_regular

MAX_RECORD_BYTES = 1 << 20
BOOTED = Path("/run/systemd/system")
"""Is there where systemd is the host's init."""


CREDENTIALS = Path("/etc/provisioning/credentials")


class Step(NamedTuple):
    """One thing to be done: what it is, and the doing, which may answer with a text for whoever installs."""

    text: str
    do: Callable[[], str | None]


class Written(NamedTuple):
    """What an installation wrote, each file with its digest, each link with its target, and what was chosen for it."""

    files: dict[str, str]
    links: dict[str, str]
    spool: str
    user: str
    cron: str | None
    local_servers: bool


def steps(layout: Layout, generated: Mapping[str, str], *, start: bool) -> Iterator[Step]:
    """What is to be done for the layout to be there; nothing where all is. Each is looked for when its turn comes."""
    _check(layout)
    before = read_record(layout)
    source = versions.own_folder()
    name = versions.name_of(source)
    upgraded = yield from _lay_down(layout, source, name)
    if layout.root is None:
        yield from _make_spool(layout)
    texts, links = layout.texts(generated), layout.links()
    changed = yield from _write(layout, texts, links, before)
    after = Written(
        {str(path): _digest(data) for path, data in texts.items()},
        {str(path): target for path, target in links.items()},
        str(layout.spool),
        layout.user,
        layout.cron,
        layout.local_servers,
    )
    if before != after:
        data = json.dumps(after._asdict(), indent=1).encode()
        yield Step(f"write {layout.record}", partial(placing.write, layout.record, data))
    if layout.root is None:
        yield from _open_doors(layout)
        yield from _tell_systemd(changed=changed, upgraded=upgraded, start=start)
    yield from _remove_versions(layout, name)


def _check(layout: Layout) -> None:
    """Refused where this may not be done, or would leave a spool that the program cannot work."""
    if layout.root is None and os.geteuid() != 0:
        raise Refused("installing needs root", hint="use sudo; or lay everything down below a folder: --root DIR")
    try:
        text = read_regular(layout.at(layout.spool) / "format", 64).decode("ascii", "replace").strip()
    except (FileNotFoundError, WrongKind):
        return
    if text.isdigit() and int(text) > FORMAT:
        raise Refused(
            f"the spool at {layout.spool} has format {text}, and this version works up to {FORMAT}",
            hint="a newer version has worked it: install that one, or name another spool: --spool DIR",
        )


def _lay_down(layout: Layout, source: Path, name: str) -> Generator[Step, None, bool]:
    """The folder of this version, and the link to it; whether the link led elsewhere before."""
    target = layout.versions / name
    if not target.is_dir():
        yield Step(f"copy the program to {target}", partial(placing.copy_folder, source, target))
    link = f"versions/{name}"
    old = os.readlink(layout.current) if layout.current.is_symlink() else ""
    if old != link:
        said = f" (was {Path(old).name})" if old else ""
        yield Step(f"lead {layout.current} to {link}{said}", partial(placing.link, layout.current, link))
    return bool(old) and old != link


def _make_spool(layout: Layout) -> Iterator[Step]:
    """The user, what it owns, and the spool, made by the user itself."""
    if account.find(layout.user) is None:
        command = account.command_for(layout.user)
        yield Step(f"make the system user {layout.user}: {' '.join(command)}", partial(account.make, layout.user))
    for path in (layout.spool, Path(account.HOME)):
        yield from _own(path, layout.user, layout.spool)
    if not (layout.spool / "format").exists():
        command = [str(layout.current / "bin" / "provisioning"), "spool", "init", str(layout.spool)]
        text = f"make the spool at {layout.spool}, as {layout.user}"
        yield Step(text, partial(_init, command, layout.user))
    own_config = Path(account.HOME, ".config/provisioning/config.toml")
    if layout.user != "root" and not os.path.lexists(own_config):
        text = f"lead {own_config} to {layout.config}, so that {layout.user} has the same settings"
        yield Step(text, partial(placing.link, own_config, str(layout.config)))
    if not CREDENTIALS.is_dir():
        yield Step(f"make {CREDENTIALS}, for root alone", partial(placing.make_folder, CREDENTIALS, mode=0o700))


def _init(command: list[str], user: str) -> None:
    run(command, owner=account.owner(user), home=account.HOME)


def _open_doors(layout: Layout) -> Iterator[Step]:
    """Drop folders for the operators, by the program itself, which says how to let them in."""
    if missing := [name for name in layout.operators if not (layout.spool / "drop" / name).is_dir()]:
        command = [str(layout.current / "bin" / "provisioning"), "spool", "init", str(layout.spool)]
        command += ["--operators", ",".join(missing), *(["--group", layout.group] if layout.group else [])]
        yield Step(f"let in {', '.join(missing)}: {' '.join(command[1:])}", lambda: run(command))


def _own(path: Path, name: str, spool: Path) -> Iterator[Step]:
    """Make the folder the user's. Refused for a spool that is another user's."""
    user = account.find(name)
    uid = os.stat(path).st_uid if path.is_dir() else None
    if uid is not None and user is not None and uid == user.pw_uid:
        return
    if uid is not None and (uid != 0 or path == spool):
        text = f"{path} belongs to uid {uid}, not to {name}"
        raise Refused(text, hint="name the user that it belongs to: --user NAME; or another spool: --spool DIR")
    text = f"make {path}, for {name} alone" if uid is None else f"give {path} to {name}"
    yield Step(text, lambda: placing.make_folder(path, mode=0o700, owner=account.owner(name)))


def _write(
    layout: Layout, texts: Mapping[Path, bytes], links: Mapping[Path, str], before: Written | None
) -> Generator[Step, None, bool]:
    """The files and links; whether a unit is among what changes. What was changed by hand is kept beside."""
    changed = False
    for path, data in layout.kept_texts().items():
        if not path.exists():
            yield Step(f"write {path}", partial(placing.write, path, data))
    for path, data in texts.items():
        found = _content(path)
        if found == data:
            continue
        changed = changed or path.name in UNITS
        ours = before.files.get(str(path)) if before else None
        if found is not None and _digest(found) != ours:
            kept = path.with_name(f"{path.name}.before")
            yield Step(f"keep what {path} was as {kept}", partial(placing.write, kept, found))
        yield Step(f"write {path}", partial(placing.write, path, data))
    for path, target in links.items():
        if path.is_symlink() and os.readlink(path) == target:
            continue
        if os.path.lexists(path) and not path.is_symlink():
            raise Refused(f"{path} is there, and is not a link of ours", hint="move it away, then install again")
        yield Step(f"lead {path} to {target}", partial(placing.link, path, target))
    for name in sorted(set(before.files) - {str(path) for path in texts} if before else ()):
        if _content(Path(name)) is not None:
            yield Step(f"remove {name}", partial(placing.remove, Path(name)))
    return changed


def _tell_systemd(*, changed: bool, upgraded: bool, start: bool) -> Iterator[Step]:
    """Make it know the units. What runs is restarted for a new version: an orchestrator adopts what runs."""
    if not BOOTED.is_dir():
        return
    if changed:
        yield _systemctl("daemon-reload")
    for name in (MAIN_UNIT, GATEWAY_UNIT):
        if run(["systemctl", "is-active", name], check=False).strip() == "active":
            if changed or upgraded:
                yield _systemctl("restart", name)
        elif start and name == MAIN_UNIT:
            yield _systemctl("enable", "--now", name)


def _systemctl(*arguments: str) -> Step:
    command = ["systemctl", *arguments]
    return Step(" ".join(command), lambda: run(command) and None)


def _remove_versions(layout: Layout, wanted: str) -> Iterator[Step]:
    """Older versions go as soon as nothing of them runs."""
    if not layout.versions.is_dir():
        return
    for path in sorted(layout.versions.iterdir()):
        if path.name == wanted or path.name.startswith("."):
            continue
        with versions.unused(path) as free:
            if free:
                yield Step(
                    f"remove the version {path.name}, of which nothing runs", partial(placing.remove_folder, path)
                )


def other_versions(layout: Layout) -> list[str]:
    """The versions that stay beside the current one, as processes of theirs live."""
    current = Path(os.readlink(layout.current)).name if layout.current.is_symlink() else ""
    found = layout.versions.iterdir() if layout.versions.is_dir() else ()
    return sorted(path.name for path in found if path.name != current and path.name[0] != ".")


def removal(layout: Layout) -> Iterator[Step]:
    """What is to be done for the installation to be gone; spool, config, secrets and user stay."""
    if layout.root is None and os.geteuid() != 0:
        raise Refused("removing an installation needs root", hint="use sudo")
    before = read_record(layout)
    if before is None:
        raise NotFound(f"there is no installation at {layout.prefix}", hint="name its folder: --prefix DIR")
    if layout.root is None and BOOTED.is_dir():
        yield _systemctl("disable", "--now", *(name for name in UNITS if str(layout.units / name) in before.files))
    for path in sorted(layout.versions.iterdir()) if layout.versions.is_dir() else ():
        with versions.unused(path) as free:
            if not free and path != versions.own_folder():
                text = f"processes of {path} are running"
                raise Refused(text, hint="stop them: provisioning orchestrator stop --now; then remove it again")
    for name, digest in sorted(before.files.items()):
        found = _content(Path(name))
        if found is not None and _digest(found) == digest:
            yield Step(f"remove {name}", partial(placing.remove, Path(name)))
    for name, target in sorted(before.links.items()):
        if os.path.islink(name) and os.readlink(name) == target:
            yield Step(f"remove {name}", partial(placing.remove, Path(name)))
    if layout.root is None and BOOTED.is_dir():
        yield _systemctl("daemon-reload")
    yield Step(f"remove {layout.at(layout.prefix)}", partial(placing.remove_folder, layout.at(layout.prefix)))


def kept_by_hand(before: Written) -> list[str]:
    """The files that a person has changed since they were written: a removal leaves them."""
    changed = ((name, _content(Path(name)), digest) for name, digest in sorted(before.files.items()))
    return [name for name, found, digest in changed if found is not None and _digest(found) != digest]


def read_record(layout: Layout) -> Written | None:
    """What was written by the installation that is there; None where there is none."""
    path = layout.record
    try:
        refuse_unless_ours(path, "record of the installation", os.geteuid())
        return Written(**json.loads(read_regular(path, MAX_RECORD_BYTES)))
    except (FileNotFoundError, NotADirectoryError, WrongKind):
        return None
    except (ValueError, TypeError) as error:
        raise Refused(f"{path} cannot be read: {error}", hint="move it away, then install again") from None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
