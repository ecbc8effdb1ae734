"""Small nulib trees of one test, and entries run the way an attempt does: request on 3, answer on 4."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provisioning.core.catalogue import Catalogue
from provisioning.execution import reader
from provisioning.execution.nushell import Nushell, Tree, find_nu, load_catalogue, snapshot
from provisioning.storage import files
from tests.answers import answer_in

ATTRIBUTE = 'export alias "attr operation" = echo\n'
HEAD = "use ../lib/operation.nu *\n"


def nu_to_test() -> Nushell:
    """The configured nu, the one of the environment, or the first on PATH."""
    return find_nu(os.environ.get("PROVISIONING_NU"), search=os.environ.get("PATH", ""))


def write(root: Path, name: str, text: str) -> Path:
    """The file of the tree, with this text."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@dataclass(frozen=True)
class Run:
    """How a run of an entry ended."""

    exit_code: int
    answer: dict[str, Any]
    written: bytes
    """The answer as it came."""
    stdout: bytes
    stderr: bytes

    @property
    def verdict(self) -> tuple[int, Any]:
        """What an attempt goes by."""
        return self.exit_code, self.answer


def run_entry(
    nu: Nushell, kept: Path, operation: str, params: dict[str, Any], env: dict[str, str] | None = None
) -> Run:
    """Run an entry as an attempt does."""
    (request, end), answer = os.pipe(), os.memfd_create("answer")
    body = {"params": params, "env": {"PATH": "/usr/bin:/bin"} | (env or {})}
    sender = threading.Thread(target=_send, args=(end, json.dumps(body).encode()))
    sender.start()
    moves = f'exec 3<&{request} 4<&{answer}; exec "$@"'
    command = ["/bin/bash", "-c", moves, "-", str(nu.path), *reader.PLAIN, str(kept / "entries" / f"{operation}.nu")]
    done = subprocess.run(
        command, env=reader.ENVIRONMENT, pass_fds=[request, answer], capture_output=True, timeout=60, check=False
    )
    text = os.pread(answer, 1 << 24, 0)
    os.close(request)
    sender.join()
    said = answer_in(answer)
    os.close(answer)
    return Run(done.returncode, said, text, done.stdout, done.stderr)


def _send(end: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(end, "wb") as pipe:
        pipe.write(data)


def keep(nu: Nushell, catalogue: Catalogue, tree: Tree, target: Path) -> None:
    """A snapshot, by a process that has a scratch folder."""
    files.make_dir(target.parent)
    scratch = files.Scratch(target.with_name("scratch"))
    try:
        snapshot(nu, catalogue, tree, target, scratch)
    finally:
        scratch.close()


def kept_operation(nu: Nushell, root: Path, source: str) -> Path:
    """A snapshot of the tree with this one operation, `test.run`."""
    write(root, "test/run.nu", HEAD + source)
    catalogue, tree = load_catalogue(nu, [root], root.parent / "cache")
    assert not catalogue.broken, catalogue.broken
    kept = root.parent / "kept" / catalogue.digest
    keep(nu, catalogue, tree, kept)
    return kept
