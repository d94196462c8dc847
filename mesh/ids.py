"""Identities that must never repeat: sessions of clients, nonces of processes, operations of leaders.

They are drawn from the operating system and never derived from time, pid or host: a pid is reused,
clocks go back, and a forked child would repeat its parent. A simulation (mesh.testing.sim), whose runs
have to repeat, draws them from its dice.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

NONCE_BYTES = 8

_draw: Callable[[int], bytes] = os.urandom
_pid: Callable[[], int] = os.getpid


def new_session() -> int:
    """A client session's number, 64 bits, never 0."""
    return int.from_bytes(_draw(8), "big") or 1


def new_nonce() -> bytes:
    """Names one run of one handler process; in the store it names the process's grant."""
    return _draw(NONCE_BYTES)


def new_operation() -> bytes:
    """Names one of a leader's store calls, so that its repetition is recognised."""
    return _draw(8)


def new_draw() -> int:
    """Keeps a life's number apart from others of the same count; 32 bits."""
    return int.from_bytes(_draw(4), "big")


def process_id() -> int:
    """What the operating system calls this process, for people and for what watches it."""
    return _pid()


@contextlib.contextmanager
def drawn_from(draw: Callable[[int], bytes], pid: Callable[[], int]) -> Iterator[None]:
    """Within this, identities come from elsewhere.

    Args:
        draw: returns as many bytes as asked for.
        pid: of the process that asks.
    """
    global _draw, _pid
    before = _draw, _pid
    _draw, _pid = draw, pid
    try:
        yield
    finally:
        _draw, _pid = before
