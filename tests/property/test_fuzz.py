"""20,000 inputs that atheris makes for the parsers and the intake, from manifests that are in order: nothing breaks."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from provisioning.core.proof import seal
from tests.disks import in_memory
from tests.doors import GOOD, named

ROOT = Path(__file__).parents[2]
REQUEST = b'{"verb": "cancel", "workflow_id": "01kc0000000000000000000001", "id": "x"}'
JSON = b'{"schema": 1, "name": "j", "id": "y", "tasks": [{"id": "a", "operation": "selftest.noop"}]}'
RUNS = int(os.environ.get("PROVISIONING_FUZZ_RUNS", "20000"))


def files(target: str) -> list[bytes]:
    """What to begin with."""
    examples = [(path.suffix == ".json", path.read_bytes()) for path in (ROOT / "spool" / "examples").iterdir()]
    texts = [*examples, (False, GOOD), (True, JSON), (True, REQUEST), (True, REQUEST[:-1] + b', "tasks": ["a.1"]}')]
    if target == "parsers":
        return [bytes([is_json + 2 * kind]) + text for is_json, text in texts for kind in range(3)]
    short = [(0, seal(GOOD)), (0, seal(named("n"))), (1, seal(JSON)), (2, seal(REQUEST)), (3, b"0" * 64 + b"  a.toml")]
    folders = [bytes([name, -(-len(text) // 8)]) + text.ljust(-(-len(text) // 8) * 8) for name, text in short]
    return [*folders, b"".join(folders)]


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs the extra fuzz: pip install -e .[fuzz]")
@pytest.mark.parametrize("target", ["parsers", "intake"])
def test_nothing_breaks(target: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, data in enumerate(files(target)):
        (corpus / str(number)).write_bytes(data)
    command = [sys.executable, str(ROOT / "tests/property/fuzzing.py"), target, f"-runs={RUNS}", "-max_len=4000"]
    with in_memory(tmp_path / "drops") as memory:  # which libFuzzer leaves as it is when it ends
        done = subprocess.run(
            [*command, "-timeout=60", f"-artifact_prefix={tmp_path}/", str(corpus)],
            cwd=tmp_path,
            env={**os.environ, "TMPDIR": str(memory)},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    covered = re.findall(r"DONE +cov: (\d+)", done.stderr)
    assert f"Done {RUNS} runs" in done.stderr
    print(f"{target}: {RUNS} inputs, {covered[0]} places covered")  # noqa: T201 - shown with -s
