"""Reads what an operation answered on its descriptor, and holds it to the operation's result type."""

from __future__ import annotations

import os
import re
from typing import Any

import msgspec

from provisioning.core.workflow import TaskError
from provisioning.decoding import decoded

NO_CODE = "nu::shell::error"
"""The code of an error of Nushell that has none."""
FAILURE_BYTES = 1 << 20
"""What Nushell tells of an error may have so many at least, however few a result may have: little of it is kept."""
ERROR_TEXT = 4096
"""Characters of an error's code, message and help that are kept."""


class Reply(msgspec.Struct, frozen=True):
    """The answer of an entry: a result or an error, or nothing where the process died before it answered."""

    result: Any = None
    error: TaskError | None = None
    complete: bool = False


class _Label(msgspec.Struct, frozen=True):
    text: str | None = None


class _Failure(msgspec.Struct, frozen=True):
    """An error as Nushell's `catch` has it in `details`, as far as people are told of it."""

    code: str | None = None
    msg: str | None = None
    help: str | None = None
    url: str | None = None
    labels: list[_Label] | None = None
    inner: list[_Failure] | None = None


class _Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    result: Any = None
    failure: _Failure | None = None
    error: TaskError | None = None
    """What an entry says that was kept by an earlier version."""


def read_reply(descriptor: int, limit: int, schema: dict[str, Any] | None) -> Reply:
    """The answer in the memory file: a result of at most `limit` bytes that is as the schema says, or an error."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        return Reply()
    if size > max(limit, FAILURE_BYTES):
        return _too_large(size, limit)
    try:
        answer = decoded(os.pread(descriptor, size, 0), _Answer)
        told = _told(answer.failure) if answer.failure is not None else answer.error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _refused("result-unreadable", f"the answer is not what an entry writes: {error}", "see its log")
    if told is not None:
        code, msg, help_ = (_cut(text) for text in (told.code, told.msg, told.help))
        return Reply(error=TaskError(code, msg, help_, told.retry_after), complete=True)
    if size > limit:
        return _too_large(size, limit)
    if schema is not None and (problem := _mismatch(answer.result, schema)):
        return _refused("result-mismatch", f"the result is not what the operation declares: {problem}", "")
    return Reply(result=answer.result, complete=True)


def _told(failure: _Failure) -> TaskError:
    """The innermost error with a code of ours, or else the innermost: `each` and `par-each` wrap what happened."""
    errors: list[_Failure] = []
    level = [failure]
    while level:
        errors += level
        level = [inner for error in level for inner in error.inner or ()]
    coded = [error for error in errors if error.code and error.code.startswith("provisioning::")]
    error = (coded or errors)[-1]
    label = error.labels[0].text if error.labels and not coded else ""
    text = ": ".join(filter(None, (error.msg, label)))
    passes = re.fullmatch("retry-after:([0-9]{1,6})", error.url or "")  # see nulib/lib/failure.nu
    return TaskError(error.code or NO_CODE, text, error.help or "", float(passes[1]) if passes else None)


def _cut(text: str) -> str:
    """A text short enough that every attempt's error fits into the task's checkpoint."""
    return text if len(text) <= ERROR_TEXT else f"{text[:ERROR_TEXT]}…"


def _too_large(size: int, limit: int) -> Reply:
    text = f"the answer has {size} bytes, and at most {limit} of a result are kept"
    return _refused("result-too-large", text, "return less; write large output to a file or the log")


def _refused(case: str, text: str, hint: str) -> Reply:
    return Reply(error=TaskError(f"provisioning::attempt::{case}", text, hint), complete=True)


def _mismatch(result: Any, schema: dict[str, Any]) -> str:
    """What is wrong with the result, in a sentence; nothing where it fits."""
    if not schema:
        return ""
    from provisioning.core.manifest import schema_findings  # only for operations that return something

    return "; ".join(
        f"{'.'.join(map(str, finding.path)) or 'it'} {finding.message}" for finding in schema_findings(schema, result)
    )
