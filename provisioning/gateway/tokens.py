"""The file of tokens: hashes, by the name of their operator."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from provisioning.core.bearer import Token, Tokens
from provisioning.decoding import converted
from provisioning.errors import Refused, SpoolUnusable
from provisioning.ownership import refuse_unless_ours
from provisioning.storage import reading

_MAX_BYTES = 1 << 20
_HINT = "each [[token]] has operator and sha256; provisioning authority token OPERATOR prints one"


def read_tokens(path: Path) -> tuple[Token, ...]:
    """The tokens there are now; none where there is no file. Refused or SpoolUnusable where it cannot be relied on."""
    if not os.path.lexists(path):
        return ()
    refuse_unless_ours(path, "file of tokens", os.geteuid())
    if os.stat(path).st_mode & 0o077:
        raise Refused(f"others may read the file of tokens {path}", hint=f"chmod 600 {path}")
    try:
        document = tomllib.loads(reading.read_regular(Path(os.path.realpath(path)), _MAX_BYTES).decode())
        return converted(document, Tokens).token
    except (ValueError, RecursionError) as error:  # of either reader
        raise SpoolUnusable(f"the file of tokens {path} is broken: {str(error)[:200]}", hint=_HINT) from None
