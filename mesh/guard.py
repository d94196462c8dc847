"""The process that ends what a killed owner leaves behind: `guard.py SESSION [FOLDER]`, of mesh.owner.

An owner that is killed cannot take its mesh down. The store's processes die with it; Ray's take seconds to
notice, its agents a minute. All of Ray's processes belong to the owner's session, so the guard
waits for the owner's exit and kills whoever is left in there. After an end in good order that is
nobody. A folder that is named was for this one run, and is removed then.

It runs as a bare file: no package is imported, and it costs a few megabytes.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys

_AGAIN_S = 0.02
_ROUNDS = 500


def main() -> None:
    """Wait for the session's leader to exit, then end the session."""
    session = int(sys.argv[1])
    with contextlib.suppress(ProcessLookupError):
        leader = os.pidfd_open(session)
        select.select([leader], [], [])
    _end(session)
    for folder in sys.argv[2:]:
        _remove(folder)


def _end(session: int) -> None:
    for _ in range(_ROUNDS):
        members = [pid for pid in _pids() if _is_alive_in(session, pid)]
        if not members:
            return
        for pid in members:
            _kill(session, pid)
        select.select([], [], [], _AGAIN_S)


def _remove(folder: str) -> None:
    # Its servers die with the owner, and may still be writing for a moment.
    for _ in range(_ROUNDS):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        select.select([], [], [], _AGAIN_S)


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]


def _is_alive_in(session: int, pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in "ZX" and int(fields[3]) == session


def _kill(session: int, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        # Looked at again through the descriptor: by now the number may be another's.
        if _is_alive_in(session, pid):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


if __name__ == "__main__":
    main()
