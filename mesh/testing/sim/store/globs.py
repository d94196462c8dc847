"""Redis's patterns: * ? [a-c] [^x] and a backslash before whatever is meant as it stands."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=1024)
def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    out, at = [], 0
    while at < len(pattern):
        byte = pattern[at : at + 1]
        at += 1
        if byte == b"*":
            out.append(b".*")
        elif byte == b"?":
            out.append(b".")
        elif byte == b"[" and (end := pattern.find(b"]", at)) > 0:
            inside = pattern[at:end].replace(b"\\", b"\\\\").replace(b"[", b"\\[")
            out.append(b"[%b]" % inside)
            at = end + 1
        elif byte == b"\\" and at < len(pattern):
            out.append(re.escape(pattern[at : at + 1]))
            at += 1
        else:
            out.append(re.escape(byte))
    return re.compile(b"".join(out), re.DOTALL)


def is_match(pattern: bytes, text: bytes) -> bool:
    """Whether the whole of `text` fits the pattern."""
    return pattern == b"*" or _compiled(pattern).fullmatch(text) is not None
