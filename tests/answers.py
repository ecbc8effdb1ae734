"""What an entry answered, as a worker understands it."""

from __future__ import annotations

from typing import Any

import msgspec

from provisioning.execution.result import read_reply


def answer_in(descriptor: int) -> dict[str, Any]:
    """`{"result": …}` or `{"error": {…}}`, from the memory file; empty where nothing was answered."""
    reply = read_reply(descriptor, 1 << 24, None)
    if not reply.complete:
        return {}
    return {"error": msgspec.to_builtins(reply.error)} if reply.error else {"result": reply.result}
