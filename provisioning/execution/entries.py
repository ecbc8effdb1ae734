"""Entries: the generated Nushell files that call one operation each.

An entry reads the request `{"params": {…}, "env": {…}}` on descriptor 3 and answers on descriptor 4 with
`{"result": …}` or with what Nushell tells of an error, `{"failure": {…}}`, never with rendered text, which may show the
environment. What of that people are told `result.py` decides: every start of an entry pays for what is written here.
It exits 0; on an error 1, or the exit code of the external command that failed, so that `exit:75` can be retried.
The request comes through a pipe and is read to its end: the children of the operation inherit the descriptor and must
not find the params, which may hold secrets. The source holds names that passed the patterns of `signature.py`, and no
value.
"""

from __future__ import annotations

from typing import Any

from provisioning.core.catalogue import Operation, Param
from provisioning.core.identifiers import OPERATION_NAME
from provisioning.execution.signature import COMMAND_NAME, CONVERTED, NUSHELL_TYPE, PARAM_NAME

_ENTRY = """\
# Calls {name}. Generated: the request is on descriptor 3, the answer goes to descriptor 4.
module operation {{ export use {file} [{command}] }}
use operation

try {{
  let request = open --raw /dev/fd/3 | from json
  load-env $request.env
  $env.PATH = ($env.PATH | split row ":")
  let params = $request.params
{call}
}} catch {{|failure|
  {{ failure: $failure.details }} | to json --raw | save --force --raw /dev/fd/4
  let code = $failure.exit_code? | default 1
  exit (if $code in 1..125 {{ $code }} else {{ 1 }})
}}
exit # off a terminal, what ends without it looks four times for `tput`
"""


def entry_source(operation: Operation) -> str:
    """The entry of the operation, for the folder beside the `tree` that holds its file."""
    if not OPERATION_NAME.match(operation.name) or not COMMAND_NAME.match(operation.command):
        raise ValueError(f"not the name of an operation: {operation.name!r}, {operation.command!r}")
    call = " ".join(["operation", operation.command, *map(_argument, operation.params)])
    if operation.result_schema is None:
        lines = [f"  {call}", "  { result: null } | to json --raw | save --force --raw /dev/fd/4"]
    else:
        lines = [f"  {{ result: ({call}) }} | to json --raw | save --force --raw /dev/fd/4"]
    return _ENTRY.format(
        name=operation.name,
        file=f"../tree/{operation.domain}/{operation.verb}.nu",
        command=operation.command,
        call="\n".join(lines),
    )


def _argument(param: Param) -> str:
    if not PARAM_NAME.match(param.name):
        raise ValueError(f"not the name of a param: {param.name!r}")
    value = f'$params."{param.name}"'
    conversion = _conversion(param.schema)
    if param.rest:
        return f"...({value} | {conversion})" if conversion else f"...{value}"
    if param.default is False and not param.positional:
        return f"--{param.name}=({value} == true)"  # a switch given null would be null, not false
    if conversion and param.required:
        value = f"({value} | {conversion})"
    elif conversion:
        value = f"({value} | if $in != null {{ {conversion} }})"
    return value if param.positional else f"--{param.name}={value}"


def _conversion(schema: dict[str, Any]) -> str | None:
    """The pipeline that makes the Nushell value of the JSON value, where the two differ.

    JSON has no durations, sizes and dates; and what JSON Schema calls an integer may arrive as 30.0, a float as 30.
    """
    if schema.get(NUSHELL_TYPE) in CONVERTED:
        return f"into {schema[NUSHELL_TYPE]}"
    kind = schema.get("type")
    if kind == "integer":
        return "into int"
    if kind == "array":
        inner = _conversion(schema.get("items", {}))
        return f"each {{ {inner} }}" if inner else None
    if kind == "object":
        steps = []
        for name, field in schema.get("properties", {}).items():
            inner = _conversion(field)
            if inner and PARAM_NAME.match(name):
                steps.append(f'update "{name}" {{ {inner} }}')
        return " | ".join(steps) or None
    return None
