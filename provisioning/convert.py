"""Values of the configuration: what TOML, the environment or a flag gave, as what the key takes.

A converter raises ValueError, whose text says what was expected.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from provisioning.core.identifiers import LOCAL, SLURM, Executing
from provisioning.core.notices import NOTICES

_SIZE_UNITS = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_A_SIZE = 'a number of bytes, or one with a unit such as "64MiB"'


class Text(str):
    """A value from the environment or the command line: text, whatever it stands for."""


class Places:
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
        own, given = self.config_dir(), self._environ.get("CREDENTIALS_DIRECTORY", "")
        return {
            "spool": state if self._root else state / "spool",
            "cache": self._own("/var/cache", "XDG_CACHE_HOME", ".cache"),
            "infra": (self.config_dir() / "infra",),
            "authority": own / "authority.toml",
            "signers": own / "allowed_signers",
            "tokens": own / "tokens.toml",
            "credentials": Path(given) if given.startswith("/") else own / "credentials",
        }


Converter = Callable[[Any, Places], Any]


def path(value: Any, places: Places) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("a path")
    text = str(value)
    if text == "~" or text.startswith("~/"):
        text = places.home + text[1:]
    if isinstance(value, str) and not isinstance(value, Text) and not text.startswith("/"):
        raise ValueError("an absolute path")
    return Path(os.path.abspath(text))


def paths(value: Any, places: Places) -> tuple[Path, ...]:
    listed = [Text(part) for part in value.split(":") if part] if isinstance(value, Text) else value
    if not isinstance(listed, list):
        raise ValueError("a list of paths")
    return tuple(path(part, places) for part in listed)


def program(value: Any, places: Places) -> str:
    text = line(value, places)
    if not text:
        raise ValueError("the path of a program")
    return str(path(Text(text), places)) if "/" in text else text


def command(value: Any, places: Places) -> tuple[str, ...]:
    words = _words(value)
    if not words or not words[0].startswith("/") or not all(word.isprintable() for word in words):
        raise ValueError("a list: the absolute path of a program, and its arguments")
    return words


def notices(value: Any, places: Places) -> tuple[str, ...]:
    words = _words(value)
    if not words or not {*words} <= {*NOTICES}:
        raise ValueError(f"a list of {', '.join(NOTICES)}")
    return words


def _words(value: Any) -> tuple[str, ...]:
    """The texts of a list; in a variable they stand with spaces between them."""
    listed = value.split() if isinstance(value, Text) else value
    return tuple(listed) if isinstance(listed, list) and all(isinstance(word, str) for word in listed) else ()


def line(value: Any, places: Places) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("a text on one line")
    return str(value)


def lines(value: Any, places: Places) -> tuple[str, ...]:
    listed = [part for part in value.split(",") if part] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple):
        raise ValueError("a list of texts")
    return tuple(line(part, places) for part in listed)


def folders(value: Any, places: Places) -> str:
    text = line(value, places)
    if not text or not all(part.startswith("/") for part in text.split(":")):
        raise ValueError("absolute paths with ':' between them")
    return text


def count(value: Any, places: Places) -> int:
    return _whole(value, 1, 100_000)


def room(value: Any, places: Places) -> int:
    return _whole(value, 1, 1000)


def count_or_zero(value: Any, places: Places) -> int:
    return _whole(value, 0, 1_000_000_000)


def _whole(value: Any, least: int, most: int) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"a whole number from {least} to {most}")
    return value


def size(value: Any, places: Places) -> int:
    if not (found := size_or_zero(value, places)):
        raise ValueError(_A_SIZE)
    return found


def size_or_zero(value: Any, places: Places) -> int:
    found = re.fullmatch(r"([0-9]{1,15}) ?([kmg]ib)?", str(value).lower())
    if isinstance(value, bool) or not found:
        raise ValueError(_A_SIZE)
    return int(found[1]) * _SIZE_UNITS[found[2] or ""]


def seconds(value: Any, places: Places) -> float:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1e9:
        raise ValueError("a number of seconds")
    return float(value)


def executing(value: Any, places: Places) -> Executing:
    if value not in (LOCAL, SLURM):
        raise ValueError('"local" or "slurm"')
    return SLURM if value == SLURM else LOCAL


def flag(value: Any, places: Places) -> bool:
    if isinstance(value, Text) and value.lower() in ("true", "false"):
        value = value.lower() == "true"
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def signature(value: Any, places: Places) -> str:
    if value not in ("off", "optional", "required"):
        raise ValueError('"off", "optional" or "required"')
    return str(value)
