"""A receipt that says no, as the error that it is for a command or a caller."""

from __future__ import annotations

from provisioning.core.drop import Reason, Receipt
from provisioning.errors import InvalidManifest, Problem, Refused

_NOT_ALLOWED = ("no-authority", "not-granted", "unknown-workflow", "request-refused", "wrong-host", "unknown-signer")


def raise_if_rejected(receipt: Receipt, file: str) -> None:
    """InvalidManifest with each reason, or Refused, with its code, where the answer is that its operator may not."""
    if receipt.answer != "rejected":
        return
    first = receipt.reason or Reason("rejected", "no reason was given")
    if first.code in _NOT_ALLOWED or first.code.startswith("signature-"):
        refused = Refused(first.message, hint=first.hint)
        refused.code = first.code
        raise refused
    reasons = receipt.reasons or (first,)
    raise InvalidManifest(Problem(each.code, each.message, each.hint, file, each.line, each.field) for each in reasons)
