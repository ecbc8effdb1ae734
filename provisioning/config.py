"""The frozen configuration: defaults < file < PROVISIONING_* < flags. Nothing else reads the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from provisioning import convert
from provisioning.core.identifiers import SLURM, Executing
from provisioning.errors import NotFound, UsageError
from provisioning.ownership import refuse_unless_ours
from provisioning.sections import DEFAULT_PATH as DEFAULT_PATH
from provisioning.sections import Audit as Audit
from provisioning.sections import Bounds as Bounds
from provisioning.sections import Disk as Disk
from provisioning.sections import Drop as Drop
from provisioning.sections import Environment as Environment
from provisioning.sections import Gateway as Gateway
from provisioning.sections import Metrics as Metrics
from provisioning.sections import Notify as Notify
from provisioning.sections import Orchestrator as Orchestrator
from provisioning.sections import Receive as Receive
from provisioning.sections import Retention as Retention
from provisioning.sections import Slurm as Slurm
from provisioning.sections import Supervisor as Supervisor

MAX_FILE_BYTES = 1 << 20
LOOKS_BEFORE_LOST = 3
"""So many looks at the least must an attempt have been silent for that Slurm has forgotten."""
LOCAL_NULIB = Path("/usr/local/lib/provisioning")
FORBIDDEN_PREFIXES = ("LD_", "_PYI_", "PYTHON", "NU_")
"""Variables that decide which code a process runs: a task never gets them."""

_LOWER_CASE_VARIABLES = {"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"}


class Paths(msgspec.Struct, frozen=True):
    """Where things are; all absolute."""

    spool: Path
    cache: Path
    nulib: tuple[Path, ...] = ()
    """Folders of operations laid over the built-in ones; the first that has a file wins."""
    nu: str | None = None
    """The Nushell to use: an absolute path, or a name on PATH."""
    infra: tuple[Path, ...] = ()
    """Folders of infras, each a folder with its `settings.toml`; the first that has one of that name wins."""
    authority: Path = Path("/etc/provisioning/authority.toml")
    signers: Path = Path("/etc/provisioning/allowed_signers")
    """OpenSSH's file of who may sign with which keys."""
    revoked: Path | None = None
    """OpenSSH's list of keys that are no longer good, if there is one."""
    credentials: Path = Path("/etc/provisioning/credentials")
    """A folder with one file for each credential, which its owner alone may read."""
    tokens: Path = Path("/etc/provisioning/tokens.toml")
    """Hashes of the gateway's tokens, by the name of their operator."""
    ssh_keygen: Path = Path("/usr/bin/ssh-keygen")


class Config(msgspec.Struct, frozen=True):
    """All settings of one command."""

    paths: Paths
    orchestrator: Orchestrator
    limits: Bounds
    environment: Environment
    disk: Disk = Disk()
    retention: Retention = Retention()
    groups: dict[str, int] = {}
    """How many attempts of each concurrency group may be under way at once, in all processes of a spool."""
    executors: dict[str, Executing] = {}
    """Where the attempts of a group's tasks are made."""
    slurm: Slurm = Slurm()
    drop: Drop = Drop()
    receive: Receive = Receive()
    audit: Audit = Audit()
    metrics: Metrics = Metrics()
    notify: Notify = Notify()
    gateway: Gateway = Gateway()
    search: str = ""
    """The caller's own PATH, on which Nushell is looked for where no setting names it."""
    ssh_agent: str = ""
    """The caller's own agent, which may sign manifests."""
    term: str = ""
    """The kind of the caller's terminal, for a program that takes it over."""
    file: Path | None = None
    """The config file that was read."""
    supervisor: Supervisor = Supervisor()

    @classmethod
    def of_this_process(cls, flags: Mapping[str, Any]) -> Config:
        """The configuration from this process's own environment and user."""
        return cls.load(flags, os.environ, euid=os.geteuid())

    @classmethod
    def load(cls, flags: Mapping[str, Any], environ: Mapping[str, str], *, euid: int) -> Config:
        """Layer all sources. `flags` has `config` and keys such as `paths.spool`; None counts as not given.

        UsageError names an unknown key or a wrong type and where it stands; Refused a file that others could change.
        """
        path, document = _document(flags, environ, euid)
        places = convert.Places(environ, euid)
        values: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
        for section, table in document.items():
            for key, value in _section(section, table, path).items():
                values[section][key] = _converted(section, key, value, f"{path}: {section}.{key}", places)
        for name, (section, key) in _variables(environ).items():
            values[section][key] = _converted(section, key, convert.Text(environ[name]), name, places)
        for dotted, value in flags.items():
            section, _, key = dotted.partition(".")
            if key and value is not None:
                typed = convert.Text(value) if isinstance(value, str) else value
                values[section][key] = _converted(section, key, typed, f"--{key.replace('_', '-')}", places)
        _refuse_of_slurm(values, path)
        nulib = (LOCAL_NULIB,) if LOCAL_NULIB.is_dir() else ()
        return cls(
            paths=Paths(**({"nulib": nulib} | places.defaults() | values["paths"])),
            orchestrator=Orchestrator(**values["orchestrator"]),
            limits=Bounds(**values["limits"]),
            groups=values["groups"],
            executors=values["executors"],
            slurm=Slurm(**values["slurm"]),
            environment=_environment(values["environment"], places),
            disk=Disk(**values["disk"]),
            retention=Retention(**values["retention"]),
            drop=Drop(**values["drop"]),
            receive=Receive(**values["receive"]),
            audit=Audit(**values["audit"]),
            metrics=Metrics(**values["metrics"]),
            notify=Notify(**values["notify"]),
            gateway=Gateway(**values["gateway"]),
            search=environ.get("PATH", ""),
            ssh_agent=environ.get("SSH_AUTH_SOCK", ""),
            term=environ.get("TERM", ""),
            file=path,
            supervisor=_supervisor(environ),
        )


SECTIONS: dict[str, dict[str, convert.Converter]] = {
    "paths": {
        "spool": convert.path,
        "nu": convert.program,
        "nulib": convert.paths,
        "cache": convert.path,
        "infra": convert.paths,
    }
    | dict.fromkeys(("authority", "signers", "revoked", "credentials", "ssh_keygen", "tokens"), convert.path),
    "orchestrator": {
        "slots": convert.count,
        "active_workflows": convert.count,
        "scan_seconds": convert.seconds,
        "drain_seconds": convert.seconds,
        "idle_worker_seconds": convert.seconds,
        "standby_processes": convert.count_or_zero,
        "executor": convert.executing,
    },
    "limits": dict.fromkeys(("manifest_bytes", "result_bytes", "log_bytes"), convert.size)
    | {"grace_seconds": convert.seconds},
    "disk": {"network": convert.flag, "free_bytes": convert.size_or_zero, "free_inodes": convert.count_or_zero},
    "retention": {"age_seconds": convert.seconds, "count": convert.count_or_zero},
    "groups": {},
    "executors": {},
    "slurm": {
        "directory": convert.path,
        "slots": convert.count,
        "partition": convert.line,
        "account": convert.line,
        "arguments": convert.lines,
        "poll_seconds": convert.seconds,
        "lost_seconds": convert.seconds,
        "commands": convert.path,
        "conf": convert.path,
        "program": convert.command,
    },
    "drop": {
        "grace_seconds": convert.seconds,
        "max_bytes": convert.size,
        "trust_unsealed": convert.flag,
        "signature": convert.signature,
        "parse_seconds": convert.seconds,
        "parse_bytes": convert.size,
        "max_values": convert.count,
        "files": convert.count_or_zero,
        "bytes": convert.size_or_zero,
        "active_workflows": convert.count_or_zero,
        "receipt_seconds": convert.seconds,
        "host": convert.line,
    },
    "receive": {"signature": convert.signature},
    "audit": {"bytes": convert.size, "syslog": convert.path},
    "metrics": {"seconds": convert.seconds, "file": convert.path},
    "notify": {"command": convert.command, "on": convert.notices, "seconds": convert.seconds, "at_once": convert.room},
    "gateway": {
        "listen": convert.lines,
        "certificate": convert.path,
        "key": convert.path,
        "hosts": convert.lines,
        "body_bytes": convert.size,
    },
    "environment": {"path": convert.folders, "home": convert.path, "lang": convert.line, "tz": convert.line},
}
"""Every key of the config file; [environment] takes the names of further variables besides."""
FREE: dict[str, convert.Converter] = {"groups": convert.room, "executors": convert.executing}
"""Sections whose keys are names of groups."""

SHORT_FORMS = {
    "PROVISIONING_SPOOL": "spool",
    "PROVISIONING_NU": "nu",
    "PROVISIONING_NULIB": "nulib",
    "PROVISIONING_CACHE": "cache",
}


def _converted(section: str, key: str, value: Any, where: str, places: convert.Places) -> Any:
    converter = SECTIONS[section].get(key) or FREE.get(section, convert.line)
    try:
        return converter(value, places)
    except ValueError as error:
        raise UsageError(f"{where} must be {error}, not {str(value)[:60]!r}") from None


def _refuse_of_slurm(values: dict[str, dict[str, Any]], path: Path | None) -> None:
    wanted = {"orchestrator.executor": values["orchestrator"].get("executor")}
    wanted |= {f"executors.{group}": named for group, named in values["executors"].items()}
    if SLURM in wanted.values() and "directory" not in values["slurm"]:
        key = next(key for key, named in wanted.items() if named == SLURM)
        text = f"{key} is slurm, and no shared directory is named" + (f" in {path}" if path else "")
        raise UsageError(text, hint="name the folder that this host and all nodes see: slurm.directory")
    slurm = Slurm(**values["slurm"])
    if slurm.lost_seconds < LOOKS_BEFORE_LOST * slurm.poll_seconds:
        raise UsageError(
            f"slurm.lost_seconds is {slurm.lost_seconds:g} with slurm.poll_seconds {slurm.poll_seconds:g}",
            hint=f"let it be {LOOKS_BEFORE_LOST} looks at least: an attempt that has just begun would count as lost",
        )


def _environment(values: dict[str, Any], places: convert.Places) -> Environment:
    settings: dict[str, Any] = {"home": places.home, "variables": {}}
    for key, value in values.items():
        (settings if key in SECTIONS["environment"] else settings["variables"])[key] = str(value)
    return Environment(**settings)


def _supervisor(environ: Mapping[str, str]) -> Supervisor:
    address = environ.get("NOTIFY_SOCKET", "")
    microseconds = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))  # not for a child that inherited it
    return Supervisor(
        socket=address if address.startswith(("/", "@")) else "",
        watchdog_seconds=int(microseconds) / 1e6 if meant and re.fullmatch(r"[0-9]{1,15}", microseconds) else 0.0,
    )


def _variables(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The variables that set a key, in such an order that the long form wins over the short one."""
    found = {name: ("paths", key) for name, key in SHORT_FORMS.items() if environ.get(name)}
    for name in sorted(environ):
        section, _, key = name.removeprefix("PROVISIONING_").lower().partition("_")
        if not name.startswith("PROVISIONING_") or section not in SECTIONS or not key or not environ[name]:
            continue
        if section == "environment" and key not in SECTIONS[section]:
            key = key if key in _LOWER_CASE_VARIABLES else key.upper()
            _check_variable(key, name)
        elif key not in SECTIONS[section] and section not in FREE:
            hint = _nearest(name, [f"PROVISIONING_{section}_{other}".upper() for other in SECTIONS[section]])
            raise UsageError(f"the environment variable {name} sets no key of the config", hint=hint)
        found[name] = (section, key)
    return found


def _check_variable(name: str, where: str) -> None:
    if name.upper().startswith(FORBIDDEN_PREFIXES):
        text = f"{where}: a task never gets {name}: it decides which code its process runs"
        raise UsageError(text, hint="set it inside the operation that needs it")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise UsageError(f"{where}: {name!r} is no name of a variable", hint="use letters, digits and _")


def _section(section: str, table: Any, path: Path | None) -> dict[str, Any]:
    """One table of the file, its keys checked."""
    if section not in SECTIONS:
        raise UsageError(f"{path}: unknown section [{section}]", hint=_nearest(section, list(SECTIONS)))
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {section} must be a section", hint=f"write [{section}] and its keys below it")
    checked: dict[str, Any] = {}
    for key, value in table.items():
        known = key.lower() if section == "environment" else key
        if known in SECTIONS[section]:
            checked[known] = value
        elif section == "environment":
            _check_variable(key, f"{path}: {section}.{key}")
            checked[key] = value
        elif section in FREE:
            checked[key] = value
        else:
            raise UsageError(f"{path}: unknown key {key!r} in [{section}]", hint=_nearest(key, list(SECTIONS[section])))
    return checked


def _nearest(name: str, known: list[str]) -> str:
    import difflib  # only for those who mistype

    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _document(flags: Mapping[str, Any], environ: Mapping[str, str], euid: int) -> tuple[Path | None, dict[str, Any]]:
    """The config file and what it says; it need not exist unless it was named."""
    named = flags.get("config") or environ.get("PROVISIONING_CONFIG") or ""
    path = Path(os.path.abspath(named)) if named else convert.Places(environ, euid).config_dir() / "config.toml"
    try:
        refuse_unless_ours(path, "config file", euid)
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        if named:
            raise NotFound(f"there is no config file {path}", hint="see --config and PROVISIONING_CONFIG") from None
        return None, {}
    except OSError as error:
        raise UsageError(f"cannot read the config file {path}: {error.strerror}", hint="check its mode") from None
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"the config file {path} has more than {MAX_FILE_BYTES} bytes", hint="is it the right file?")
    import tomllib

    try:
        return path, tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the config file {path} is not TOML: {str(error)[:200]}", hint="correct it there") from None


def environment_of_a_daemon(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables with which a process in the background reads the same config, and nothing else."""
    kept = (
        "HOME",
        "PATH",
        "LANG",
        "CREDENTIALS_DIRECTORY",
        "TZ",
        "XDG_CONFIG_HOME",
        "XDG_STATE_HOME",
        "XDG_CACHE_HOME",
    )
    return {name: value for name, value in environ.items() if name in kept or name.startswith("PROVISIONING_")}
