"""Every error a user can meet, each with its exit code. The text says what, where and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an input: a stable code, what, where (file, line, field) and what to do."""

    code: str
    message: str
    hint: str = ""
    file: str = ""
    line: int | None = None
    field: str = ""
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part)
        where = " ".join(part for part in (place, self.field) if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}\n    {self.hint}" if self.hint else text


class ProvisioningError(Exception):
    """Base of all expected failures. `hint` says what to do; `exit_code` is the process's answer."""

    exit_code = 70
    code = "internal"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class WorkflowFailed(ProvisioningError):
    """The workflow that was waited for did not succeed."""

    exit_code = 1
    code = "workflow-failed"


class UsageError(ProvisioningError):
    """The command was typed wrongly, or a configuration key is wrong."""

    exit_code = 2
    code = "usage"


class Invalid(ProvisioningError):
    """An input that breaks its contract; carries every problem that was found."""

    exit_code = 3
    code = "invalid"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class InvalidManifest(Invalid):
    """A manifest that is not accepted."""

    code = "invalid-manifest"


class InvalidParams(Invalid):
    """Params that the operation's signature refuses."""

    code = "invalid-params"


class NotFound(ProvisioningError):
    """A workflow, task, operation or file that is not there."""

    exit_code = 4
    code = "not-found"


class Refused(ProvisioningError):
    """Not allowed: owner, mode, authority, or a state that forbids the request."""

    exit_code = 5
    code = "refused"


class SpoolUnusable(ProvisioningError):
    """The spool is missing, foreign, damaged, full or not writable."""

    exit_code = 6
    code = "spool-unusable"


class Unwritable(ProvisioningError):
    """The answer cannot be written to stdout: a full disk, a closed descriptor."""

    exit_code = 6
    code = "stdout"

    @classmethod
    def of(cls, error: OSError) -> Unwritable:
        """What the host said of the write."""
        return cls(f"cannot write to stdout: {error.strerror or error}")


class OrchestratorUnusable(ProvisioningError):
    """The orchestrator is not running, is running already, or does not answer."""

    exit_code = 6
    code = "orchestrator-unusable"


class NushellUnusable(ProvisioningError):
    """Nushell is missing, too old or cannot be executed."""

    exit_code = 6
    code = "nushell-unusable"


class GaveUp(ProvisioningError):
    """Waiting took longer than the user allowed."""

    exit_code = 7
    code = "gave-up"


class Interrupted(ProvisioningError):
    """The user interrupted a foreground command."""

    exit_code = 130
    code = "interrupted"
