"""Who runs first when a handler has died and every core is busy with it.

A death wakes everyone at once: Ray's control service, its agents and monitors note it, log it and
tell each other while both cores are full, and everybody waits for the supervisor, which needs a
millisecond. So Ray's services, which nobody waits for, yield; and the supervisor and the warden,
which use one percent of a core, ask for precedence where the system allows it (CAP_SYS_NICE;
without it they stay as they are).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

YIELDING = 10
PRECEDING = -10

# Not the raylet: the workers that it starts would inherit it, and they are the handlers.
_SERVICES = (
    b"gcs_server",
    b"monitor.py",
    b"dashboard.py",
    b"DashboardAgent",
    b"RuntimeEnvAgent",
)


def precede() -> None:
    """Ask for precedence for the calling thread."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRECEDING)


def let_services_yield() -> None:
    """Lower the priority of the Ray services that this process has started."""
    raylets = [pid for pid in _children(os.getpid()) if b"raylet/raylet" in _command(pid)]
    for parent in (os.getpid(), *raylets):
        for pid in _children(parent):
            if any(name in _command(pid) for name in _SERVICES):
                for thread in _threads(pid):
                    # It may end at any moment; then there is nothing to do.
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.setpriority(os.PRIO_PROCESS, thread, YIELDING)


def _children(parent: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[1]) == parent:
                    yield int(entry.name)


def _threads(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    return []


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
