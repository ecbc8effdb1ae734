"""Completion for a shell that click does not know."""

from __future__ import annotations

import os

from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

VARIABLE = "_PROVISIONING_COMPLETE"


class Nushell(ShellComplete):
    """Nushell completes the words behind a command by a command: it gets the line so far, and gives a table."""

    name = "nushell"
    source_template = """\
# Completes provisioning. Source it, or put it into a folder of $nu.vendor-autoload-dirs.
def "nu-complete provisioning" [context: string] {
  with-env { %(complete_var)s: nushell_complete, COMP_WORDS: $context } { ^%(prog_name)s }
  | lines
  | split column "\\t" value description
}

def --wrapped provisioning [...words: string@"nu-complete provisioning"] { ^provisioning ...$words }
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one at the cursor, and that one."""
        line = os.environ.get("COMP_WORDS", "")
        words = split_arg_string(line)[1:]
        return (words, "") if not words or line.endswith(" ") else (words[:-1], words[-1])

    def format_completion(self, item: CompletionItem) -> str:
        """One line for each candidate."""
        return f"{item.value}\t{' '.join((item.help or '').split())}"


add_completion_class(Nushell)
