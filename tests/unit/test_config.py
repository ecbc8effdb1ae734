"""The configuration: its layers, its refusals, and who may write its file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from provisioning.config import LOCAL_NULIB, SECTIONS, Config, environment_of_a_daemon
from provisioning.errors import NotFound, Refused, UsageError
from provisioning.ownership import refuse_unless_ours

EUID = os.geteuid()


def load(environ: dict[str, str] | None = None, flags: dict[str, Any] | None = None, euid: int = EUID) -> Config:
    return Config.load(flags or {}, environ or {}, euid=euid)


def written(tmp_path: Path, text: str) -> dict[str, str]:
    """An environment that names a config file with this text."""
    path = tmp_path / "config.toml"
    path.write_text(text)
    path.chmod(0o600)
    return {"PROVISIONING_CONFIG": str(path)}


def test_layers_in_their_order(tmp_path: Path) -> None:
    environ = written(tmp_path, '[orchestrator]\nslots = 2\nscan_seconds = 3\n[limits]\nresult_bytes = "2MiB"\n')
    assert load().orchestrator.slots == 10
    assert load(environ).orchestrator.slots == 2
    environ["PROVISIONING_ORCHESTRATOR_SLOTS"] = "3"
    assert load(environ).orchestrator.slots == 3
    config = load(environ, {"orchestrator.slots": 4})
    assert (config.orchestrator.slots, config.orchestrator.scan_seconds) == (4, 3.0)
    assert config.limits.result_bytes == 2 << 20
    assert config.limits.manifest_bytes == 64 << 20


def test_defaults_of_a_user_are_in_the_home() -> None:
    config = load({"HOME": "/home/alice"}, euid=12345)
    assert config.paths.spool == Path("/home/alice/.local/state/provisioning/spool")
    assert config.paths.cache == Path("/home/alice/.cache/provisioning")
    assert config.environment.home == "/home/alice"
    moved = load({"HOME": "/home/alice", "XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "relative"}, euid=12345)
    assert moved.paths.spool == Path("/s/provisioning/spool")
    assert moved.paths.cache == Path("/home/alice/.cache/provisioning")


def test_defaults_of_root_are_in_the_system() -> None:
    config = load({"HOME": "/root", "XDG_STATE_HOME": "/s"}, euid=0)
    assert config.paths.spool == Path("/var/spool/provisioning")
    assert config.paths.cache == Path("/var/cache/provisioning")
    assert config.paths.nulib == ((LOCAL_NULIB,) if LOCAL_NULIB.is_dir() else ())


def test_a_home_that_nobody_names_is_looked_up() -> None:
    assert load({}, euid=0).environment.home.startswith("/")
    assert load({}, euid=54321).environment.home == "/"


def test_short_forms_and_lists() -> None:
    environ = {"PROVISIONING_SPOOL": "/a", "PROVISIONING_NU": "nu", "PROVISIONING_NULIB": "/x::/y"}
    config = load(environ)
    assert (config.paths.spool, config.paths.nu) == (Path("/a"), "nu")
    assert config.paths.nulib == (Path("/x"), Path("/y"))
    assert load({**environ, "PROVISIONING_PATHS_SPOOL": "/b"}).paths.spool == Path("/b")
    assert load({"PROVISIONING_SPOOL": ""}).paths.spool == load().paths.spool


def test_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load({"PROVISIONING_SPOOL": "x/../y"}).paths.spool == tmp_path / "y"
    assert load({"PROVISIONING_NU": "./nu"}).paths.nu == str(tmp_path / "nu")
    assert load(flags={"paths.spool": "z"}).paths.spool.is_absolute() is True
    environ = written(tmp_path, '[paths]\nspool = "~/spool"\n')
    assert load({**environ, "HOME": "/home/bob"}).paths.spool == Path("/home/bob/spool")


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("[orchestrater]\nslots = 1\n", "[orchestrater]", "orchestrator"),
        ("[orchestrator]\nslot = 1\n", "'slot'", "slots"),
        ("slots = 1\n", "[slots]", "known are"),
        ("orchestrator = 1\n", "must be a section", "[orchestrator]"),
        ("[orchestrator]\nslots = true\n", "orchestrator.slots", ""),
        ('[orchestrator]\nslots = "many"\n', "whole number", ""),
        ("[orchestrator]\nslots = 0\n", "whole number", ""),
        ('[orchestrator]\nscan_seconds = "-1"\n', "seconds", ""),
        ("[orchestrator]\nscan_seconds = nan\n", "seconds", ""),
        ('[limits]\nlog_bytes = "3 parsecs"\n', "bytes", ""),
        ("[paths]\nspool = 3\n", "a path", ""),
        ('[paths]\nspool = "relative"\n', "absolute", ""),
        ('[paths]\nnulib = "/x"\n', "list of paths", ""),
        ('[environment]\npath = "bin"\n', "absolute paths", ""),
        ('[environment]\nLD_PRELOAD = "/x"\n', "never gets LD_PRELOAD", "inside the operation"),
        ('[environment]\nnu_lib_dirs = "/x"\n', "never gets", ""),
        ('[environment]\nPYTHONPATH = "/x"\n', "never gets", ""),
        ('[environment]\n"a b" = "/x"\n', "no name of a variable", ""),
        ('[environment]\nhttps_proxy = "a\\nb"\n', "one line", ""),
        ("[orchestrator\n", "not TOML", ""),
        ("a.b.c = 1\na = 2\n", "not TOML", ""),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, text: str, said: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(written(tmp_path, text))
    assert said in caught.value.message
    assert str(tmp_path) in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_variable_that_sets_no_key() -> None:
    with pytest.raises(UsageError, match="PROVISIONING_ORCHESTRATOR_SLOT ") as caught:
        load({"PROVISIONING_ORCHESTRATOR_SLOT": "3"})
    assert "PROVISIONING_ORCHESTRATOR_SLOTS" in caught.value.hint
    with pytest.raises(UsageError, match="PROVISIONING_LIMITS_LOG_BYTES must be"):
        load({"PROVISIONING_LIMITS_LOG_BYTES": "lots"})
    assert load({"PROVISIONING_SERVERS": "/x", "PROVISIONING_TASK": "web"}) == load()


def test_every_key_has_its_variable(tmp_path: Path) -> None:
    values = {"nulib": "/n", "path": "/p", "lang": "de_DE.UTF-8", "tz": "UTC", "network": "True"}
    values |= {"trust_unsealed": "True", "signature": "optional", "syslog": "/s", "file": "/f"}
    values |= {"command": "/c", "on": "failed"}
    values |= {"certificate": "/c", "key": "/k", "executor": "local"}
    values |= {"directory": "/d", "commands": "/c", "conf": "/s", "program": "/p"}
    for section, keys in SECTIONS.items():
        for key in keys:
            text = values.get(key, "/value" if section in ("paths", "environment") else "7")
            config = load({f"PROVISIONING_{section}_{key}".upper(): text})
            found = getattr(getattr(config, section), key)
            assert str(found[0] if isinstance(found, tuple) else found) in (text, f"{text}.0")


def test_what_a_task_gets(tmp_path: Path) -> None:
    environ = written(tmp_path, '[environment]\nTZ = "UTC"\nhttps_proxy = "http://p"\nSSL_CERT_FILE = "/ca"\n')
    environment = load({**environ, "LD_PRELOAD": "/evil", "SECRET": "x"}).environment
    assert environment.tz == "UTC"
    assert environment.variables == {"https_proxy": "http://p", "SSL_CERT_FILE": "/ca"}
    named = {"PROVISIONING_ENVIRONMENT_HTTPS_PROXY": "http://q", "PROVISIONING_ENVIRONMENT_FOO": "bar"}
    assert load(named).environment.variables == {"https_proxy": "http://q", "FOO": "bar"}
    with pytest.raises(UsageError, match="LD_PRELOAD"):
        load({"PROVISIONING_ENVIRONMENT_LD_PRELOAD": "/x"})


def test_a_named_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        load(flags={"config": str(tmp_path / "none.toml")})
    assert caught.value.exit_code == 4
    assert load({"XDG_CONFIG_HOME": str(tmp_path)}, euid=EUID or 1).file is None


def test_a_file_that_others_may_write(tmp_path: Path) -> None:
    environ = written(tmp_path, "")
    path = Path(environ["PROVISIONING_CONFIG"])
    path.chmod(0o620)
    with pytest.raises(Refused, match="others may write") as caught:
        load(environ)
    assert caught.value.exit_code == 5
    assert str(path) in caught.value.hint
    path.chmod(0o600)
    assert load(environ).file == path
    tmp_path.chmod(0o777)
    with pytest.raises(Refused, match=f"others may write {tmp_path}$"):
        load(environ)


def test_a_link_counts_with_all_that_it_leads_through(tmp_path: Path) -> None:
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    (open_folder / "real.toml").write_text("")
    (tmp_path / "config.toml").symlink_to(open_folder / "real.toml")
    open_folder.chmod(0o770)
    with pytest.raises(Refused, match="open"):
        refuse_unless_ours(tmp_path / "config.toml", "config file", EUID)


@pytest.mark.root
def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    environ = written(tmp_path, "")
    os.chown(environ["PROVISIONING_CONFIG"], 12345, 12345)
    with pytest.raises(Refused, match="belongs to uid 12345"):
        load(environ)


def test_a_file_that_cannot_be_a_config(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load({"PROVISIONING_CONFIG": str(tmp_path)})
    with pytest.raises(UsageError, match="more than"):
        load(written(tmp_path, "#" * (1 << 20) + "\n"))


def test_a_daemon_gets_what_names_the_config_and_no_more() -> None:
    environ = {"HOME": "/h", "PROVISIONING_SPOOL": "/s", "LD_PRELOAD": "/x", "TOKEN": "t", "XDG_STATE_HOME": "/x"}
    assert environment_of_a_daemon(environ) == {"HOME": "/h", "PROVISIONING_SPOOL": "/s", "XDG_STATE_HOME": "/x"}


def test_a_flag_is_true_or_false(tmp_path: Path) -> None:
    assert not load().disk.network
    assert load(written(tmp_path, "[disk]\nnetwork = true\n")).disk.network
    assert not load(
        {**written(tmp_path, "[disk]\nnetwork = true\n"), "PROVISIONING_DISK_NETWORK": "false"}
    ).disk.network
    for text in ('"true"', "1", '"yes"'):
        with pytest.raises(UsageError, match=r"disk\.network must be true or false"):
            load(written(tmp_path, f"[disk]\nnetwork = {text}\n"))
    with pytest.raises(UsageError, match="PROVISIONING_DISK_NETWORK must be true or false"):
        load({"PROVISIONING_DISK_NETWORK": "1"})


@pytest.mark.parametrize(("poll", "lost"), [("2", "0"), ("2", "5"), ("300", "300")])
def test_an_attempt_must_have_been_looked_at_before_it_counts_as_lost(poll: str, lost: str) -> None:
    environ = {"PROVISIONING_SLURM_POLL_SECONDS": poll, "PROVISIONING_SLURM_LOST_SECONDS": lost}
    with pytest.raises(UsageError, match=rf"slurm\.lost_seconds is {lost} with slurm\.poll_seconds {poll}"):
        load(environ)
    assert load({**environ, "PROVISIONING_SLURM_LOST_SECONDS": str(3 * int(poll))}).slurm.poll_seconds == int(poll)
