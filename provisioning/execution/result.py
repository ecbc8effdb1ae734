"""Reads what an operation answered on its descriptor, and holds it to the operation's result type."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from provisioning.core.workflow import TaskError
from provisioning.decoding import decoded

ERROR_TEXT = 4096
"""Characters of an error's code, message and help that are kept."""


class Reply(msgspec.Struct, frozen=True):
    """The answer of an entry: a result or an error, or nothing where the process died before it answered."""

    result: Any = None
    error: TaskError | None = None
    complete: bool = False


class _Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    result: Any = None
    error: TaskError | None = None


def read_reply(descriptor: int, limit: int, schema: dict[str, Any] | None) -> Reply:
    """The answer in the memory file, at most `limit` bytes, its result as the schema says."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        return Reply()
    if size > limit:
        text = f"the result has {size} bytes, and at most {limit} are kept"
        return _refused("result-too-large", text, "return less; write large output to a file or the log")
    try:
        answer = decoded(os.pread(descriptor, size, 0), _Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _refused("result-unreadable", f"the answer is not what an entry writes: {error}", "see its log")
    if answer.error is not None:
        code, msg, help_ = (_cut(text) for text in (answer.error.code, answer.error.msg, answer.error.help))
        return Reply(error=TaskError(code, msg, help_, answer.error.retry_after), complete=True)
    if schema is not None and (problem := _mismatch(answer.result, schema)):
        return _refused("result-mismatch", f"the result is not what the operation declares: {problem}", "")
    return Reply(result=answer.result, complete=True)


def _cut(text: str) -> str:
    """A text short enough that every attempt's error fits into the task's checkpoint."""
    return text if len(text) <= ERROR_TEXT else f"{text[:ERROR_TEXT]}…"


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
