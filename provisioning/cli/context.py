"""What a command works with: config, spool and catalogue, each made when it is first asked for."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from provisioning.errors import Unwritable, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from provisioning.config import Config
    from provisioning.core.catalogue import Catalogue
    from provisioning.core.locate import Limits
    from provisioning.core.tasks import Sources
    from provisioning.execution.nulib import Nulib
    from provisioning.storage.spool import Spool


@contextlib.contextmanager
def on_stdout() -> Iterator[None]:
    """Unwritable where stdout refuses what the block writes; a pipe whose reader has gone stays a broken pipe.

    It cannot be told afterwards: much text goes past the buffer, and none of it is left there to be tried again.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename:  # a file that was read for it
            raise
        raise Unwritable.of(error) from error


class Context:
    """One command: its flags, and what follows from them."""

    def __init__(self) -> None:
        self.flags: dict[str, Any] = {}
        self.debug = False
        self.json = False
        """Whether the answer goes out as JSON."""
        self.answered = False
        """Whether an answer went out already."""

    def set_flag(self, name: str, value: Any) -> None:
        """Take a global flag, given before the noun or behind the verb."""
        if value is None or self.flags.get(name) == value:
            return
        if name == "config" and "config" in self.__dict__:
            raise UsageError("--config comes too late here", hint=f"write: provisioning --config {value} …")
        self.flags[name] = value
        for made in ("config", "spool"):
            self.__dict__.pop(made, None)

    @cached_property
    def config(self) -> Config:
        from provisioning.config import Config

        return Config.of_this_process(self.flags)

    @cached_property
    def spool(self) -> Spool:
        from provisioning.orchestrator.oversight import Oversight
        from provisioning.storage.spool import Spool

        disk = self.config.disk
        spool = Spool.open(self.config.paths.spool, disk, network=disk.network)
        spool.gate = Oversight(spool, self.config)
        return spool

    @property
    def drop_folder(self) -> Path | None:
        """Where this user's submissions go instead of into the spool, because that is another user's."""
        from provisioning.storage.doors import own_folder

        return own_folder(self.config.paths.spool, self.operator)

    @cached_property
    def nulib(self) -> Nulib:
        """Nushell and the operations, as they are now."""
        from provisioning.execution.nulib import load_nulib

        return load_nulib(self.config)

    @property
    def catalogue(self) -> Catalogue:
        return self.nulib.catalogue

    @property
    def sources(self) -> Sources:
        """Where what manifests refer to comes from: settings of infras, planning operations."""
        return self.nulib.sources(lambda: self.spool)

    @property
    def limits(self) -> Limits:
        """What a manifest may not exceed."""
        from provisioning.core.locate import Limits

        return Limits(bytes=self.config.limits.manifest_bytes)

    @property
    def operator(self) -> str:
        """Who asks: the login name of this user."""
        import pwd

        try:
            return pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            return str(os.getuid())

    def close(self) -> None:
        """Flush what was said, and give back what was taken from the spool."""
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.flush()
        spool = self.__dict__.get("spool")
        if spool is not None:
            spool.close()
        sys.stdout.flush()

    # Saying things: the answer on stdout, all else on stderr.

    def answer(self, text: str) -> None:
        """The answer, for people; an empty one prints nothing."""
        self.answered = True
        if text:
            with on_stdout():
                sys.stdout.write(text if text.endswith("\n") else text + "\n")
                sys.stdout.flush()

    def answer_json(self, value: Any) -> None:
        """The answer, for programs."""
        from provisioning.views.text import pretty_json

        self.answer(pretty_json(value))

    def say(self, text: str) -> None:
        """Anything else that a person should know."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def note_if_unworked(self) -> None:
        """Say that nobody works the spool, where somebody must."""
        record = self.spool.running_orchestrator()
        if record is None:
            self.say(f"note: no orchestrator works {self.spool.root}; start one: provisioning orchestrator start")
        elif (state := record.state(self.spool.root)) != "running":
            self.say(f"note: the orchestrator is {state} and starts nothing; see: provisioning orchestrator status")

    @property
    def width(self) -> int | None:
        """Columns that a table may take: what the terminal has; no limit where stdout is none."""
        import shutil

        return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
