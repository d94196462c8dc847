"""Who is there: every process of a mesh, told apart from those that get their pids later."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

GONE_S = 30.0


class Process(NamedTuple):
    """One process for good: a pid alone may come to mean another."""

    pid: int
    started: int

    @property
    def is_alive(self) -> bool:
        now = _stat(self.pid)
        return now is not None and now.started == self.started and now.state != "Z"

    @property
    def command(self) -> str:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ")
            return words.decode(errors="replace").strip()
        return ""


class _Stat(NamedTuple):
    state: str
    parent: int
    session: int
    started: int


def _stat(pid: int) -> _Stat | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return _Stat(fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def _everyone() -> Iterator[tuple[Process, _Stat]]:
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (stat := _stat(int(entry))) is not None and stat.state != "Z":
            yield Process(int(entry), stat.started), stat


def family(*pids: int) -> set[Process]:
    """These processes, all that descend from them, and all that share a session with one of those."""
    everyone = dict(_everyone())
    found = {p for p in everyone if p.pid in pids}
    while True:
        known = {p.pid for p in found}
        ours = os.getsid(0)
        sessions = {everyone[p].session for p in found} - {ours}
        more = {p for p, s in everyone.items() if s.parent in known or s.session in sessions}
        if more <= found:
            return found
        found |= more


def naming(*words: object) -> set[Process]:
    """Processes whose command line holds one of these words."""
    return {
        p
        for p, _ in _everyone()
        if p.pid != os.getpid() and any(str(word) in p.command for word in words)
    }


def of_status(status: dict[str, Any]) -> set[int]:
    """Every pid that a status names."""
    rows = (*status["handlers"], *status["supervisors"], *status["wardens"])
    return {row["pid"] for row in (*rows, *status["store"]["nodes"])}


def wait_for(holds: Callable[[], Any], within_s: float = GONE_S) -> Any:
    """Wait until that is something; returns it.

    Raises:
        TimeoutError: it still is not.
    """
    deadline = time.monotonic() + within_s
    while not (result := holds()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s:g} s")
        time.sleep(0.05)
    return result


def assert_gone(processes: set[Process], *words: object) -> None:
    """Within some seconds none of these processes is left, and none that names one of these words."""

    def left() -> dict[int, str]:
        alive = {p for p in processes if p.is_alive} | naming(*words)
        return {p.pid: p.command[:120] for p in alive}

    with contextlib.suppress(TimeoutError):
        wait_for(lambda: not left())
    remain = left()
    assert not remain, f"still there: {remain}"
