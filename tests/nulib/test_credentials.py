"""A secret that an infra's settings name is the file that a manifest would name, under the same conditions."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioning.core.redaction import Redactor
from provisioning.execution.credentials import Unusable, of_settings, resolve
from tests.nulib.attempts import NOBODY, NULIB, find_nu

pytestmark = pytest.mark.nu

TOKEN = "a token\n"


def said_by_the_worker(folder: Path) -> str:
    """The text of the secret called `name`, or the code of the error, as a param of a manifest gets it."""
    try:
        return str(resolve({}, {"token": "name"}, str(folder))[0]["token"])
    except Unusable as error:
        return error.error.code


def said_by_an_operation(folder: Path) -> str:
    """The same of an operation that reads what its infra's settings name."""
    words = f"use {NULIB / 'lib' / 'credential.nu'} [read-credential]; read-credential name"
    environment = {"PATH": os.environ["PATH"], "PROVISIONING_CREDENTIALS": str(folder)}
    done = subprocess.run([find_nu(), "-n", "-c", words], env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"provisioning::credential::[a-z-]+", done.stderr)
    return done.stdout.strip() if done.returncode == 0 else found[0] if found else done.stderr


def kept(text: str, mode: int, uid: int = -1, gid: int = -1) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_text(text)
        os.chown(path, uid, gid)
        path.chmod(mode)

    return make


def linked(path: Path) -> None:
    kept(TOKEN, 0o400)(path.with_name("other"))
    path.symlink_to("other")


AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(kept(TOKEN, 0o400), TOKEN.strip(), id="good"),
        pytest.param(kept(TOKEN, 0o600), TOKEN.strip(), id="writable by its owner"),
        pytest.param(kept(TOKEN, 0o440, 0, 0), TOKEN.strip(), id="of systemd, with an ACL", marks=AS_ROOT),
        pytest.param(kept(TOKEN, 0o440, 0, NOBODY), "unsafe", id="readable by a group", marks=AS_ROOT),
        pytest.param(kept(TOKEN, 0o400, NOBODY), "unsafe", id="of another user", marks=AS_ROOT),
        pytest.param(kept(TOKEN, 0o404), "unsafe", id="readable by all"),
        pytest.param(kept(TOKEN, 0o420), "unsafe", id="writable by a group"),
        pytest.param(kept("abc", 0o400), "invalid", id="short"),
        pytest.param(kept("a" * 65537, 0o400), "invalid", id="long"),
        pytest.param(Path.mkdir, "unreadable", id="folder"),
        pytest.param(linked, "unreadable", id="link"),
        pytest.param(lambda path: None, "not-found", id="missing"),
    ],
)
def test_one_verdict(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    make(tmp_path / "name")
    expected = said if said == TOKEN.strip() else f"provisioning::credential::{said}"
    assert (said_by_the_worker(tmp_path), said_by_an_operation(tmp_path)) == (expected, expected)


def test_what_settings_name_is_not_shown(tmp_path: Path) -> None:
    """Values of a file of several lines too; what is not there, or cannot be used, is nobody's to show."""
    settings = tmp_path / "infra" / "trial" / "settings.toml"
    settings.parent.mkdir(parents=True)
    named = {"aws": "keys", "upcloud": "open", "a": "none", "b": "../x"}
    settings.write_text("".join(f'[{section}]\ncredential = "{name}"\n' for section, name in named.items()))
    kept("[default]\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG\n", 0o400)(tmp_path / "keys")
    kept(TOKEN, 0o404)(tmp_path / "open")
    variables = {"PROVISIONING_INFRA": f"{tmp_path / 'none'}:{tmp_path / 'infra'}"}
    hidden = of_settings({"infra": "trial"}, variables, str(tmp_path))
    assert list(hidden) == ["keys"]
    assert Redactor(hidden).text("it is wJalrXUtnFEMI/K7MDENG.") == "it is [secret keys]."
    for params in ({}, {"infra": "other"}, {"infra": 1}):
        assert of_settings(params, variables, str(tmp_path)) == {}
