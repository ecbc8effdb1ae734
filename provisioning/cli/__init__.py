"""The command line. Everything else is imported by the command that needs it, so that a command starts fast."""

from __future__ import annotations

import os


def run(argv: list[str]) -> int:
    """Do what the arguments say; the exit code of the process."""
    from provisioning.cli.context import Context
    from provisioning.cli.ending import exit_code_of, prepare_streams
    from provisioning.cli.root import root

    if "_PROVISIONING_COMPLETE" in os.environ:
        import provisioning.cli.shells  # noqa: F401 - click finds the shell by its class

    context = Context()
    try:
        prepare_streams()
        answer = root.main(argv, "provisioning", standalone_mode=False, obj=context)
        context.close()
        return answer if isinstance(answer, int) else 0
    except BaseException as error:  # noqa: BLE001 - the one place where errors become messages and exit codes
        return exit_code_of(error, context, argv)
