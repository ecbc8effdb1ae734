"""Text that is safe on any terminal, and values, instants and durations as people read them."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""What a terminal obeys, what turns text around, what hides: control characters, bidi marks, tags, half surrogates."""
_UNSAFE_BLOCK = re.compile("(?![\n\t])" + _UNSAFE.pattern)


def _named(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def safe(text: str) -> str:
    """The text on one line, with control characters written as `\\x1b`."""
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(_named, text)


def safe_block(text: str) -> str:
    """The text with its lines and tabs, and other control characters written as `\\x1b`."""
    return _UNSAFE_BLOCK.sub(_named, text)


def compact(value: Any) -> str:
    """Any JSON value on one line: a string as it is, the rest as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return safe(value)
    return safe(json.dumps(value, ensure_ascii=False))


def pretty_json(value: Any) -> str:
    """JSON for people and programs; only ASCII, so nothing in it that a terminal obeys."""
    return json.dumps(value, indent=2, default=_as_json)


def line_json(value: Any) -> str:
    """JSON on one line: an item of a stream."""
    return json.dumps(value, default=_as_json)


def _as_json(value: Any) -> str:
    return instant(value) if isinstance(value, datetime) else str(value)


def instant(at: datetime) -> str:
    """RFC 3339, UTC."""
    return at.isoformat().replace("+00:00", "Z")


def clock_time(at: str | None) -> str:
    """The time of day of an RFC 3339 instant, in the local time zone; with the date when it is not today."""
    if not at:
        return ""
    local = datetime.fromisoformat(at).astimezone()
    return f"{local:%H:%M:%S}" if local.date() == datetime.now().astimezone().date() else f"{local:%Y-%m-%d %H:%M}"


def spent(started_at: str | None, ended_at: str | None, now: datetime) -> str:
    """How long something took or has taken so far: 0.4s, 12s, 3m20s, 2h05m, 4d03h."""
    if not started_at:
        return ""
    end = datetime.fromisoformat(ended_at) if ended_at else now
    return duration(max(0.0, (end - datetime.fromisoformat(started_at)).total_seconds()))


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.4s, 12s, 3m20s, 2h05m, 4d03h."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d{hours % 24:02d}h"
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
