"""Errors become messages and exit codes here and nowhere else.

Messages go to stderr as text. A command that was asked for JSON, and has not answered yet, also answers
`{"error": {"code", "message", "hint", "exit_code", "problems"?}}` on stdout: what reads it always finds JSON.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TextIO

import click

from provisioning.cli.context import Context
from provisioning.errors import Interrupted, Invalid, Problem, ProvisioningError, SpoolUnusable, Unwritable

CODES = {
    0: "done",
    1: "the workflow failed or was cancelled",
    2: "usage",
    3: "invalid manifest or params",
    4: "not found",
    5: "refused",
    6: "the spool, Nushell or the orchestrator cannot be used",
    7: "gave up waiting",
    70: "internal error",
    75: "the attempt is another's: nothing was done",
    130: "interrupted",
}
BROKEN_PIPE = 141
"""What a shell reports of a program that SIGPIPE ended: who reads our answer has gone."""


def exit_code_of(error: BaseException, context: Context, argv: Sequence[str] = ()) -> int:
    """Say what went wrong; the exit code that stands for it."""
    if isinstance(error, click.exceptions.Exit):
        return _closed(context, error.exit_code)
    if isinstance(error, SystemExit):  # click leaves so after shell completion
        return _closed(context, error.code if isinstance(error.code, int) else 1)
    if isinstance(error, click.UsageError) and "--json" in itertools.takewhile("--".__ne__, argv):
        context.json = True  # the words were wrong before click came to this one
    if context.debug and not isinstance(error, click.ClickException):
        import traceback

        traceback.print_exception(error)
    known = _known(error)
    if isinstance(known, Unwritable):
        drop_stdout()
    with contextlib.suppress(BrokenPipeError, Unwritable):
        _tell(known, context)
        if context.json and not context.answered:
            context.answer_json({"error": _as_json(known)})
    return _closed(context, known.exit_code)


def _closed(context: Context, code: int) -> int:
    """Close what the command had open; an answer that could not be written turns a success into a failure."""
    try:
        context.close()
    except BrokenPipeError:
        drop_stdout()
        return code or BROKEN_PIPE
    except (OSError, ProvisioningError) as error:
        drop_stdout()
        if not code:
            _say(f"error: {Unwritable.of(error) if isinstance(error, OSError) else error}")
        return code or SpoolUnusable.exit_code
    return code


def _known(error: BaseException) -> ProvisioningError:
    """Any error as one of ours."""
    if isinstance(error, ProvisioningError):
        return error
    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, KeyboardInterrupt | click.exceptions.Abort):
        return Interrupted("interrupted")
    if isinstance(error, OSError):
        if not error.filename and not _stdout_works():
            return Unwritable.of(error)
        where = f"{error.filename}: " if error.filename else ""
        named = SpoolUnusable(f"{where}{error.strerror or error}", hint="see: provisioning spool check")
        named.code = "system"
        return named
    if isinstance(error, MemoryError):
        return ProvisioningError("there is not enough memory", hint="free some, or split the manifest")
    text = str(error).partition("\n")[0][:300]
    return ProvisioningError(
        f"internal error: {type(error).__name__}: {text}", hint="--debug shows more; please report it"
    )


def _stdout_works() -> bool:
    """Whether what is still to be written goes out: an error of a write names no file."""
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _usage(error: click.ClickException) -> ProvisioningError:
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "provisioning"
    known = ProvisioningError(error.format_message(), hint=f"see: {path} --help")
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        known = ProvisioningError(error.format_message())
        known.code = "help"
    else:
        known.code = "usage"
    known.exit_code = 2
    return known


def _tell(error: ProvisioningError, context: Context) -> None:
    from provisioning.views.text import safe_block

    if error.code == "help":
        _say(error.message)
        return
    if isinstance(error, Invalid):
        blocks = ["\n".join(_block(_placed(problem), problem.hint)) for problem in error.problems]
        text = "\n\n".join(blocks)
        if len(blocks) > 1:
            text += f"\n\n{len(blocks)} problems; nothing was done"
        if error.code == "rejected":
            text = f"{error.message}\n\n{text}"
    else:
        text = "\n".join(_block(error.message, error.hint))
    _say(safe_block(text))


def _placed(problem: Problem) -> str:
    """A problem without its hint."""
    return str(Problem(problem.code, problem.message, "", problem.file, problem.line, problem.field))


def _block(message: str, hint: str) -> Iterator[str]:
    yield f"error: {message}"
    if hint:
        yield f"hint: {hint}"


def _as_json(error: ProvisioningError) -> dict[str, Any]:
    page: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
    if isinstance(error, Invalid):
        page["problems"] = [problem_json(problem) for problem in error.problems]
    page.update(getattr(error, "details", {}))
    return page


def problem_json(problem: Problem) -> dict[str, Any]:
    """A problem as an object, in the words of receipts and reports."""
    return {
        "code": problem.code,
        "message": problem.message,
        "hint": problem.hint,
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "field": problem.field,
    }


def answer_problems(context: Context, sound: str, problems: Sequence[Problem]) -> None:
    """Answer what is wrong, by code, or the one word that nothing is."""
    if context.json:
        context.answer_json({sound: not problems, "problems": [problem_json(problem) for problem in problems]})
    else:
        context.answer("\n\n".join(map(problem_text, problems)) or sound)


def problem_text(problem: Problem) -> str:
    """A problem for people, its code first: one line, and one of what to do. No name of a file adds another."""
    from provisioning.views.text import safe

    message, hint, file = safe(problem.message), safe(problem.hint), safe(problem.file)
    return f"{problem.code}: {replace(problem, message=message, hint=hint, file=file)}"


def _say(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:  # a closed pipe, a full disk: the exit code still says it
        _drop(sys.stderr)


def prepare_streams() -> None:
    """Let no character that the locale lacks end a command, nor a stream that its caller has closed."""
    closed = sys.stdout is None
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # no file of ours may become fd 0, 1 or 2
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    if closed:
        raise SpoolUnusable("stdout is closed", hint="redirect it to a file, or to /dev/null")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def drop_stdout() -> None:
    """Let the interpreter's own last flush go nowhere."""
    _drop(sys.stdout)


def _drop(stream: TextIO) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(null, stream.fileno())
    os.close(null)
