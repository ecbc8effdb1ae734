"""Help, man page and completions say what the program does, wherever they are asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from provisioning.cli.manual import SHELLS, completion_script, generated, man_page
from provisioning.cli.root import NOUNS
from tests.e2e.conftest import PROGRAM
from tests.installation import find_nu


def said(*arguments: str, **environment: str) -> str:
    """What the program answers on stdout."""
    essential = {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/"), "COLUMNS": "80"}
    done = subprocess.run(
        [PROGRAM, *arguments], env=essential | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_fits_a_screen() -> None:
    text = said("--help")
    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= 80
    assert not [noun for noun in NOUNS if noun not in text]


@pytest.mark.parametrize("noun", ["wf", "workflow", "spool", "s", "selftest", "completion", "install"])
def test_help_works_both_ways(noun: str) -> None:
    before = said("help", noun).splitlines()
    if noun not in ("completion", "install"):
        assert said(noun, "help").splitlines()[1:] == before[1:]
    assert said(noun, "--help").splitlines()[1:] == before[1:]


def test_the_man_page_has_every_verb_option_and_exit_code() -> None:
    page = man_page().replace("\\-", "-")
    for noun, load in NOUNS.items():
        command = load()
        verbs = command.commands if isinstance(command, click.Group) else {"": command}
        for verb, one in verbs.items():
            assert f"\\fB{noun} {verb}".rstrip() in page
            options = [name for param in one.params if not getattr(param, "hidden", True) for name in param.opts]
            assert [name for name in options if name.startswith("--") and name not in page] == []


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man here")
def test_man_shows_the_page_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "provisioning.1"
    path.write_text(man_page())
    done = subprocess.run(
        ["man", "--local-file", "--warnings", "--encoding=UTF-8", path],
        env={"PATH": os.environ["PATH"], "MANWIDTH": "100", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "provisioning - durable workflows" in done.stdout


def test_every_shell_has_a_script() -> None:
    assert set(generated()) == {*SHELLS.values(), "man/man1/provisioning.1"}
    for shell in SHELLS:
        assert "_PROVISIONING_COMPLETE" in completion_script(shell)


def test_bash_completes(tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(completion_script("bash"))
    asked = f"""
        source {script}
        COMP_WORDS=(provisioning workflow st) COMP_CWORD=2
        _provisioning_completion provisioning st workflow
        echo "${{COMPREPLY[*]}}"
    """
    environment = {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-c", asked], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["stats", "status"], "")


def test_nushell_completes_and_passes_everything_on(tmp_path: Path) -> None:
    script = tmp_path / "completion.nu"
    script.write_text(completion_script("nushell"))
    asked = f"""
        source {script}
        print (nu-complete provisioning "provisioning workflow st" | get value | str join " ")
        print (nu-complete provisioning "provisioning orch" | get value | str join " ")
        provisioning --version
        provisioning help wf | lines | length | print
    """
    environment = {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run([find_nu(), "-n", "-c", asked], env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert lines[:3] == ["stats status", "orchestrator", "provisioning 0.1.0"], done.stderr
    assert int(lines[3]) > 5
