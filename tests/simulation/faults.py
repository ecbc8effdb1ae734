"""Calls of the operating system that fail when a test wants them to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class PowerCut(BaseException):
    """The process ends here: nothing that it would have done afterwards is done."""


def failing(call: str, error: BaseException, monkeypatch: pytest.MonkeyPatch, *, number: int = 1) -> list[Any]:
    """Make the `number`-th use of os.`call` fail; what it was used on."""
    original: Callable[..., Any] = getattr(os, call)
    seen: list[Any] = []

    def replacement(*args: Any, **rest: Any) -> Any:
        seen.append(args[0])
        if len(seen) == number:
            raise error
        return original(*args, **rest)

    monkeypatch.setattr(os, call, replacement)
    return seen


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))
