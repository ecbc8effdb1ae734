"""The frozen configuration: defaults < file < PROVISIONING_* < flags. Nothing else reads the environment."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from provisioning.errors import NotFound, UsageError
from provisioning.ownership import refuse_unless_ours

MAX_FILE_BYTES = 1 << 20
LOCAL_NULIB = Path("/usr/local/lib/provisioning")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FORBIDDEN_PREFIXES = ("LD_", "_PYI_", "PYTHON", "NU_")
"""Variables that decide which code a process runs: a task never gets them."""

_SIZE_UNITS = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_LOWER_CASE_VARIABLES = {"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"}


class Paths(msgspec.Struct, frozen=True):
    """Where things are; all absolute."""

    spool: Path
    cache: Path
    nulib: tuple[Path, ...] = ()
    """Folders of operations laid over the built-in ones; the first that has a file wins."""
    nu: str | None = None
    """The Nushell to use: an absolute path, or a name on PATH."""


class Orchestrator(msgspec.Struct, frozen=True):
    """How much one orchestrator does at once, and how long it waits for what."""

    slots: int = 10
    active_workflows: int = 64
    scan_seconds: float = 5.0
    drain_seconds: float = 30.0
    idle_worker_seconds: float = 30.0


class Bounds(msgspec.Struct, frozen=True):
    """What a manifest, a result, a log and the end of a process may take."""

    manifest_bytes: int = 64 << 20
    result_bytes: int = 1 << 20
    log_bytes: int = 10 << 20
    grace_seconds: float = 10.0
    """Between TERM and KILL."""


class Environment(msgspec.Struct, frozen=True):
    """What the process of a task gets: built from nothing, never inherited."""

    path: str = DEFAULT_PATH
    home: str = "/"
    lang: str = "C.UTF-8"
    tz: str = ""
    """Empty: the system's own."""
    variables: dict[str, str] = {}
    """Proxies, CA files and whatever else the operator named in [environment]."""


class Disk(msgspec.Struct, frozen=True):
    """What the disk under the spool must be."""

    network: bool = False
    """A file system that other hosts may have mounted is allowed: the operator says that only this one works it."""


class Config(msgspec.Struct, frozen=True):
    """All settings of one command."""

    paths: Paths
    orchestrator: Orchestrator
    limits: Bounds
    environment: Environment
    disk: Disk = Disk()
    search: str = ""
    """The caller's own PATH, on which Nushell is looked for where no setting names it."""
    file: Path | None = None
    """The config file that was read."""

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
        places = _Places(environ, euid)
        values: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
        for section, table in document.items():
            for key, value in _section(section, table, path).items():
                values[section][key] = _converted(section, key, value, f"{path}: {section}.{key}", places)
        for name, (section, key) in _variables(environ).items():
            values[section][key] = _converted(section, key, _Text(environ[name]), name, places)
        for dotted, value in flags.items():
            section, _, key = dotted.partition(".")
            if key and value is not None:
                typed = _Text(value) if isinstance(value, str) else value
                values[section][key] = _converted(section, key, typed, f"--{key.replace('_', '-')}", places)
        return cls(
            paths=Paths(**(places.defaults() | values["paths"])),
            orchestrator=Orchestrator(**values["orchestrator"]),
            limits=Bounds(**values["limits"]),
            environment=_environment(values["environment"], places),
            disk=Disk(**values["disk"]),
            search=environ.get("PATH", ""),
            file=path,
        )


class _Text(str):
    """A value from the environment or the command line: text, whatever it stands for."""


class _Places:
    """Where a user's things are by default (XDG Base Directory Specification)."""

    def __init__(self, environ: Mapping[str, str], euid: int) -> None:
        self._environ = environ
        self._root = euid == 0
        home = environ.get("HOME", "")
        if not home.startswith("/"):
            try:
                home = pwd.getpwuid(euid).pw_dir
            except KeyError:
                home = "/"
        self.home = home

    def _own(self, for_root: str, variable: str, fallback: str) -> Path:
        chosen = self._environ.get(variable, "")
        base = chosen if chosen.startswith("/") else os.path.join(self.home, fallback)
        return Path(for_root if self._root else base, "provisioning")

    def config_dir(self) -> Path:
        return self._own("/etc", "XDG_CONFIG_HOME", ".config")

    def defaults(self) -> dict[str, Any]:
        state = self._own("/var/spool", "XDG_STATE_HOME", ".local/state")
        return {
            "spool": state if self._root else state / "spool",
            "cache": self._own("/var/cache", "XDG_CACHE_HOME", ".cache"),
            "nulib": (LOCAL_NULIB,) if LOCAL_NULIB.is_dir() else (),
        }


# Values. A converter takes what TOML, the environment or a flag gave; ValueError says what was expected.


def _path(value: Any, places: _Places) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("a path")
    text = str(value)
    if text == "~" or text.startswith("~/"):
        text = places.home + text[1:]
    if isinstance(value, str) and not isinstance(value, _Text) and not text.startswith("/"):
        raise ValueError("an absolute path")
    return Path(os.path.abspath(text))


def _paths(value: Any, places: _Places) -> tuple[Path, ...]:
    listed = [_Text(part) for part in value.split(":") if part] if isinstance(value, _Text) else value
    if not isinstance(listed, list):
        raise ValueError("a list of paths")
    return tuple(_path(part, places) for part in listed)


def _program(value: Any, places: _Places) -> str:
    text = _text(value, places)
    if not text:
        raise ValueError("the path of a program")
    return str(_path(_Text(text), places)) if "/" in text else text


def _text(value: Any, places: _Places) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("a text on one line")
    return str(value)


def _folder_list(value: Any, places: _Places) -> str:
    text = _text(value, places)
    if not text or not all(part.startswith("/") for part in text.split(":")):
        raise ValueError("absolute paths with ':' between them")
    return text


def _count(value: Any, places: _Places) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 100_000:
        raise ValueError("a whole number from 1 to 100000")
    return value


def _size(value: Any, places: _Places) -> int:
    found = re.fullmatch(r"([0-9]{1,15}) ?([kmg]ib)?", str(value).lower())
    if isinstance(value, bool) or not found or int(found[1]) < 1:
        raise ValueError('a number of bytes, or one with a unit such as "64MiB"')
    return int(found[1]) * _SIZE_UNITS[found[2] or ""]


def _seconds(value: Any, places: _Places) -> float:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1e9:
        raise ValueError("a number of seconds")
    return float(value)


def _flag(value: Any, places: _Places) -> bool:
    if isinstance(value, _Text) and value.lower() in ("true", "false"):
        value = value.lower() == "true"
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


Converter = Callable[[Any, _Places], Any]

SECTIONS: dict[str, dict[str, Converter]] = {
    "paths": {"spool": _path, "nu": _program, "nulib": _paths, "cache": _path},
    "orchestrator": {
        "slots": _count,
        "active_workflows": _count,
        "scan_seconds": _seconds,
        "drain_seconds": _seconds,
        "idle_worker_seconds": _seconds,
    },
    "limits": {"manifest_bytes": _size, "result_bytes": _size, "log_bytes": _size, "grace_seconds": _seconds},
    "disk": {"network": _flag},
    "environment": {"path": _folder_list, "home": _path, "lang": _text, "tz": _text},
}
"""Every key of the config file; [environment] takes the names of further variables besides."""

SHORT_FORMS = {"PROVISIONING_SPOOL": "spool", "PROVISIONING_NU": "nu", "PROVISIONING_NULIB": "nulib"}


def _converted(section: str, key: str, value: Any, where: str, places: _Places) -> Any:
    convert: Converter = SECTIONS[section].get(key, _text)
    try:
        return convert(value, places)
    except ValueError as error:
        raise UsageError(f"{where} must be {error}, not {str(value)[:60]!r}") from None


def _environment(values: dict[str, Any], places: _Places) -> Environment:
    settings: dict[str, Any] = {"home": places.home, "variables": {}}
    for key, value in values.items():
        (settings if key in SECTIONS["environment"] else settings["variables"])[key] = str(value)
    return Environment(**settings)


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
        elif key not in SECTIONS[section]:
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
    path = Path(os.path.abspath(named)) if named else _Places(environ, euid).config_dir() / "config.toml"
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
    kept = ("HOME", "PATH", "LANG", "TZ", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")
    return {name: value for name, value in environ.items() if name in kept or name.startswith("PROVISIONING_")}
