"""A collection of bad files for a drop folder: names, kinds, owners, proofs and texts, each with its one reason."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from provisioning.core.proof import seal

GOOD = b'schema = 1\nname = "good"\n[[tasks]]\nid = "a"\noperation = "selftest.noop"\n'
MAX_BYTES = 1 << 20
ESCAPE = "\x1b]0;owned\x07\x1b[2J\x1b[31m"
"""What a terminal would obey."""


class Bad(NamedTuple):
    """One file: what it is called, why it is refused, and how it is made in a folder."""

    name: bytes
    code: str
    make: Callable[[Path], object]
    needs_root: bool = False

    def put(self, folder: Path) -> None:
        """Make it there."""
        self.make(Path(os.fsdecode(os.path.join(os.fsencode(folder), self.name))))


def holding(data: bytes, *, mode: int = 0o600) -> Callable[[Path], object]:
    """A file with these bytes."""

    def make(path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(descriptor, mode)  # its name may be gone by now: it is refused as soon as it is seen

    return make


def proved(data: bytes) -> Callable[[Path], object]:
    """A file whose digest is beside it, before it."""

    def make(path: Path) -> None:
        listing = f"{hashlib.sha256(data).hexdigest()}  {path.name}\n".encode()
        holding(listing)(path.with_name(f"{path.name}.sha256"))
        holding(data)(path)

    return make


def beside(data: bytes, end: str, text: bytes) -> Callable[[Path], object]:
    """A file with another one beside it."""

    def make(path: Path) -> None:
        holding(text)(path.with_name(f"{path.name}{end}"))
        holding(data)(path)

    return make


# Names: what is in them is good

BAD_NAMES = [
    b"new\nline.toml", b"cr\rname.toml", b"tab\tname.toml", b"esc\x1b[31m.toml", b"bell\x07.json", b"del\x7f.toml",
    b"-rf.toml", b"--help.json", b"-oProxyCommand=x.toml", b"a b.toml", b" lead.toml", b"quote'.toml", b'double".toml',
    b"back`tick.toml", b"$(touch x).toml", b"${HOME}.toml", b"semi;id.toml", b"amp&id.toml", b"pipe|id.toml",
    b"star*.toml", b"what?.toml", b"[set].toml", b"{brace}.toml", b"back\\slash.toml", b"~root.toml", b"#hash.toml",
    b"co:lon.toml", b"%2e%2e%2f.toml", b"\xc3\xa9.toml", b"\xff\xfe\xfd.toml", b"\xe2\x80\xaelmot.toml",
    b"\xe2\x80\xa8line.toml", b"_under.toml", b"a" * 250 + b".toml", b"a" * 129 + b".toml", b"+plus.json", b"@at.toml",
    b"=formula.toml", b"<redirect.toml", b">redirect.toml", b"(paren).toml", b"!bang.toml",
]  # fmt: skip
LATE_NAMES = [b"UPPER.TOML", b"noending", b"m.yaml", b"m.toml.part", b"m.toml~", b"run.sh", b"m.toml.gpg"]
"""Files that may still be renamed: refused once their time is over."""


def names() -> Iterator[Bad]:
    for name in (*BAD_NAMES, *LATE_NAMES):
        yield Bad(name, "bad-name", holding(seal(GOOD)))
    yield Bad(b"orphan.toml.sha256", "no-file", holding(b"0" * 64 + b"  orphan.toml\n"))
    yield Bad(b"orphan.json.sig", "no-file", holding(b"-----BEGIN SSH SIGNATURE-----\n"))


# What is no plain file, and whose it is


def linked(target: str) -> Callable[[Path], object]:
    return lambda path: os.symlink(target, path)


def with_second_name(path: Path) -> None:
    holding(seal(GOOD))(path)
    os.link(path, path.with_name(".second-name"))


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/cwd/{os.path.relpath(path)}" if len(str(path)) > 100 else str(path))


def sparse(size: int) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        holding(b"")(path)
        os.truncate(path, size)

    return make


def full_folder(path: Path) -> None:
    path.mkdir()
    (path / "m.toml").write_bytes(seal(GOOD))


def kinds() -> Iterator[Bad]:
    for number, target in enumerate(
        ("/etc/passwd", "nowhere", "link-2.toml", ".", "/dev/zero", "/proc/self/mem", "../../format", "m" * 200)
    ):
        yield Bad(f"link-{number}.toml".encode(), "symlink", linked(target))
    yield Bad(b"two-names.toml", "hard-link", with_second_name)
    yield Bad(b"fifo.toml", "fifo", os.mkfifo)
    yield Bad(b"socket.json", "socket", bind)
    yield Bad(b"folder.toml", "directory", os.mkdir)
    yield Bad(b"full-folder.json", "directory", full_folder)
    yield Bad(b"sparse.toml", "too-large", sparse(8 << 30))
    yield Bad(b"one-more.json", "too-large", holding(b"x" * (MAX_BYTES + 1)))
    for mode in (0o602, 0o606, 0o666, 0o622, 0o777):
        yield Bad(f"mode-{mode:o}.toml".encode(), "writable-by-others", holding(seal(GOOD), mode=mode))


# Proofs

OTHER = b'schema = 1\nname = "other-one"\n[[tasks]]\nid = "b"\noperation = "selftest.noop"\n'


def proofs() -> Iterator[Bad]:
    whole, other = seal(GOOD), seal(OTHER)
    digest = hashlib.sha256(GOOD).hexdigest()
    listing = f"{digest}  m.toml\n".encode()
    yield Bad(b"bare.toml", "incomplete", holding(GOOD))
    yield Bad(b"bare.json", "incomplete", holding(b"{}"))
    yield Bad(b"nothing.toml", "incomplete", holding(b""))
    yield Bad(b"cut.toml", "incomplete", holding(whole[:-10]))
    yield Bad(b"cut-in-half.toml", "incomplete", holding(whole[: len(whole) // 2]))
    yield Bad(b"seal-not-last.toml", "incomplete", holding(whole + b"# more\n"))
    yield Bad(b"seal-in-line.toml", "incomplete", holding(whole.replace(b"\n# end", b" # end")))
    yield Bad(b"seal-of-upper-case.toml", "incomplete", holding(GOOD + f"# end sha256={digest.upper()}\n".encode()))
    yield Bad(b"head-and-tail.toml", "digest-mismatch", holding(other[:30] + whole[30:]))
    yield Bad(b"changed.toml", "digest-mismatch", holding(whole.replace(b"good", b"evil")))
    yield Bad(b"zeros.toml", "digest-mismatch", holding(GOOD + b"# end sha256=" + b"0" * 64 + b"\n"))
    yield Bad(
        b"sum-of-other.toml", "digest-mismatch", beside(OTHER, ".sha256", listing.replace(b"m.", b"sum-of-other."))
    )
    yield Bad(b"sum-of-name.toml", "digest-mismatch", beside(GOOD, ".sha256", listing))
    yield Bad(b"sum-empty.toml", "digest-mismatch", beside(GOOD, ".sha256", b""))
    yield Bad(b"sum-cut.toml", "digest-mismatch", beside(GOOD, ".sha256", f"{digest}  sum-cu".encode()))
    yield Bad(b"sum-of-noise.toml", "digest-mismatch", beside(GOOD, ".sha256", bytes(range(256))))
    yield Bad(b"sum-of-md5.toml", "digest-mismatch", beside(GOOD, ".sha256", b"d" * 32 + b"  sum-of-md5.toml\n"))


# Texts

DEEP = 100_000
SLOW = b"".join(b"a.b%d.c = 1\n" % number for number in range(45_000))
TEXTS: list[tuple[str, str, bytes]] = [
    ("empty", "toml", b"\n"),
    ("empty", "toml", b"# only a comment\n"),
    ("not-utf8", "toml", b'name = "\xff"\n'),
    ("not-utf8", "toml", b"\xef\xbb\xbf" + GOOD),
    ("not-utf8", "json", b"\xef\xbb\xbf{}"),
    ("not-utf8", "json", '{"schema": 1}'.encode("utf-16")),
    ("not-utf8", "json", '{"schema": 1}'.encode("utf-16-be")),
    ("not-utf8", "json", '{"schema": 1}'.encode("utf-32-le")),
    ("not-utf8", "json", b'{"name": "\xc0\xaf"}'),
    ("not-utf8", "json", b'{"name": "\xed\xa0\x80"}'),
    ("not-toml", "toml", b"schema = \n"),
    ("not-toml", "toml", b"name = x\n"),
    ("not-toml", "toml", b"a = 1979-13-45\n"),
    ("not-toml", "toml", b"a = 1\n\x00\n"),
    ("not-toml", "toml", b'{"schema": 1}\n'),
    ("not-toml", "toml", b"a = 01\n"),
    ("not-toml", "toml", b"a = " + b"9" * 5000 + b"\n"),
    ("not-toml", "toml", b"<?xml version='1.0'?>\n"),
    ("not-toml", "toml", b"%PDF-1.4\n"),
    ("not-json", "json", b'{"schema": 1,}'),
    ("not-json", "json", b"{'schema': 1}"),
    ("not-json", "json", b'{"schema": 1} {"schema": 1}'),
    ("not-json", "json", b'{"schema": 1'),
    ("not-json", "json", b'{"a": 1 /* no */}'),
    ("not-json", "json", b'{"a": "\n"}'),
    ("not-json", "json", b'{"a": 0x10}'),
    ("not-json", "json", b'{"a": ' + b"9" * 5000 + b"}"),
    ("not-json", "json", GOOD),
    ("not-json", "json", b'{"a": undefined}'),
    ("wrong-type", "json", b"[]"),
    ("wrong-type", "json", b"null"),
    ("wrong-type", "json", b'"text"'),
    ("wrong-type", "json", b"4711"),
    ("duplicate-key", "json", b'{"schema": 1, "schema": 1}'),
    ("duplicate-key", "json", b'{"tasks": [{"id": "a", "\\u0069d": "b"}]}'),
    ("duplicate-key", "toml", b"schema = 1\nschema = 1\n"),
    ("duplicate-key", "toml", b"[defaults]\n[defaults]\n"),
    ("too-deep", "json", b'{"a": ' + b"[" * DEEP + b"]" * DEEP + b"}"),
    ("too-deep", "json", b'{"a":' * 40 + b"1" + b"}" * 40),
    ("too-deep", "toml", b"a = " + b"[" * 20_000 + b"]" * 20_000 + b"\n"),
    ("too-deep", "toml", b"a." * 30_000 + b"b = 1\n"),
    ("too-many-values", "json", b'{"a": [' + b"1," * 300_000 + b"1]}"),
    ("too-slow", "toml", SLOW),
    ("too-slow", "toml", b"x = [" + b"{a=1}," * 100_000 + b"]\n"),
]


def manifest(**head: Any) -> bytes:
    """A manifest of one task, with these keys."""
    tasks = [{"id": "a", "operation": "selftest.noop"}]
    return json.dumps({"schema": 1, "name": "x", "tasks": tasks, **head}).encode()


def task(**keys: Any) -> bytes:
    return manifest(tasks=[{"id": "a", "operation": "selftest.noop", **keys}])


def echo(text: str) -> bytes:
    """A manifest that has this JSON text as a param."""
    return manifest(tasks=[{"id": "a", "operation": "selftest.echo", "params": {"value": "@"}}]).replace(
        b'"@"', text.encode()
    )


OUT = "../../../../etc/cron.d/x"
MEANINGS: list[tuple[str, bytes]] = [
    ("not-finite", echo("NaN")), ("not-finite", echo("Infinity")), ("not-finite", echo("-Infinity")),
    ("not-finite", echo("1e999")), ("not-finite", echo("[-1e999]")),
    ("too-large-number", echo(str(2**63))), ("too-large-number", echo(str(-(2**63) - 1))),
    ("half-character", echo('"\\ud800"')), ("half-character", echo('{"\\udfff": 1}')),
    ("missing-key", b"{}"), ("missing-key", b'{"schema": 1, "name": "x"}'),
    ("unknown-key", manifest(run="rm -rf /")), ("unknown-key", manifest(**{ESCAPE: 1})),
    ("unknown-key", task(run="x")),
    ("unknown-key", manifest(__proto__={})), ("unknown-key", task(**{"$(touch x)": 1})),
    ("wrong-type", manifest(schema="1")), ("wrong-type", manifest(tasks={})), ("wrong-type", task(params=[])),
    ("wrong-type", task(depends_on="a")), ("wrong-type", manifest(name=["x"])),
    ("bad-value", manifest(schema=2)), ("bad-value", manifest(tasks=[])), ("bad-value", manifest(priority=101)),
    ("bad-value", manifest(name=OUT)), ("bad-value", manifest(name="..")), ("bad-value", manifest(name="x\n")),
    ("bad-value", manifest(name=ESCAPE)), ("bad-value", manifest(name="x" * 101)), ("bad-value", manifest(name="-rf")),
    ("bad-value", manifest(infra=OUT)), ("bad-value", manifest(infra="demo\n")), ("bad-value", manifest(infra="$(id)")),
    ("bad-value", manifest(id=OUT)), ("bad-value", manifest(id="..")), ("bad-value", manifest(id="request~x")),
    ("bad-value", manifest(id="x\x00y")), ("bad-value", manifest(target_host="-oProxyCommand=id")),
    ("bad-value", task(id=OUT)), ("bad-value", task(id="..")), ("bad-value", task(id="a\nb")),
    ("bad-value", task(id="")),
    ("bad-value", task(id=ESCAPE)), ("bad-value", task(operation="../../bin/sh.x")),
    ("bad-value", task(operation="selftest.noop; ^touch x")), ("bad-value", task(operation="selftest.noop\n")),
    ("bad-value", task(operation="servers/create.nu")), ("bad-value", task(depends_on=[OUT])),
    ("bad-value", task(timeout="1h; rm")), ("bad-value", task(after=["x\x1b[0m"])),
    ("bad-value", echo('{"credential": "../../etc/shadow"}')), ("bad-value", echo('{"credential": "x\\n"}')),
    ("bad-value", manifest(not_before="yesterday")), ("bad-value", manifest(expires_at="2026-02-30T00:00:00Z")),
    ("unknown-operation", task(operation="selftest.nope")), ("unknown-operation", task(operation="lib.operation")),
    ("bad-params", task(params={"value": 1})),
    ("bad-params", task(operation="selftest.sleep", params={"seconds": "1; id"})),
    ("bad-params", task(operation="selftest.echo")), ("bad-params", task(params={OUT: 1})),
    ("duplicate-id", manifest(tasks=[{"id": "a", "operation": "selftest.noop"}] * 2)),
    ("unknown-dependency", task(depends_on=["b"])), ("self-dependency", task(depends_on=["a"])),
    ("cycle", manifest(tasks=[
        {"id": "a", "operation": "selftest.noop", "depends_on": ["b"]},
        {"id": "b", "operation": "selftest.noop", "depends_on": ["a"]},
    ])),
    ("expired", manifest(expires_at="2020-01-01T00:00:00Z")),
    ("expired-before-start", manifest(not_before="2090-01-02T00:00:00Z", expires_at="2090-01-01T00:00:00Z")),
    ("wrong-host", manifest(target_host="elsewhere.example")),
]  # fmt: skip


def texts() -> Iterator[Bad]:
    for number, (code, form, data) in enumerate(TEXTS):
        yield Bad(f"text-{number:03}.{form}".encode(), code, proved(data))
    for number, (code, data) in enumerate(MEANINGS):
        yield Bad(f"meaning-{number:03}.json".encode(), code, proved(data))


# Requests

NOBODY = "01kc0000000000000000000001"


def asking(**asked: Any) -> bytes:
    return json.dumps({"verb": "cancel", "workflow_id": NOBODY, **asked}).encode()


REQUESTS = [
    ("unknown-workflow", asking()),
    ("bad-value", asking(verb="rm -rf /")),
    ("bad-value", asking(verb=ESCAPE)),
    ("bad-value", asking(workflow_id=OUT)),
    ("bad-value", asking(workflow_id=f"{NOBODY}\n")),
    ("bad-value", asking(tasks=[OUT])),
    ("bad-value", asking(tasks="a")),
    ("bad-value", asking(operator="root")),
    ("bad-value", asking(schema=2)),
    ("bad-value", b"{}"),
    ("wrong-type", b"[]"),
    ("not-json", b"cancel it"),
    ("expired", asking(expires_at="2020-01-01T00:00:00Z")),
    ("wrong-host", asking(target_host="elsewhere")),
]


def requests() -> Iterator[Bad]:
    for number, (code, data) in enumerate(REQUESTS):
        yield Bad(f"ask-{number:03}.request.json".encode(), code, proved(data))


def bad_files() -> list[Bad]:
    """All of them but those that need keys or other users."""
    return [*names(), *kinds(), *proofs(), *texts(), *requests()]
