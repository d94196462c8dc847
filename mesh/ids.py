"""Identities that must never repeat: sessions of clients, nonces of processes, operations of leaders.

They are drawn from the operating system and never derived from time, pid or host: a pid is reused,
clocks go back, and a forked child would repeat its parent.
"""

from __future__ import annotations

import os

NONCE_BYTES = 8


def new_session() -> int:
    """A client session's number, 64 bits, never 0."""
    return int.from_bytes(os.urandom(8), "big") or 1


def new_nonce() -> bytes:
    """Names one run of one handler process; in the store it names the process's grant."""
    return os.urandom(NONCE_BYTES)


def new_operation() -> bytes:
    """Names one of a leader's store calls, so that its repetition is recognised."""
    return os.urandom(8)
