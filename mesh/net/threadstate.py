"""How one thread of a process is, read from /proc: asleep, stopped, or runnable; and what it got of the CPUs.

The thread that matters is the one that the handler's loop runs on, and a process's own figures are those of
its first thread, which in a Ray worker sleeps for ever (schedule F7 b). So its number is handed over with the
process; where that lives in a namespace of its own, the number is looked up among its threads' names there.
"""

from __future__ import annotations

import os
from pathlib import Path

from mesh.core.sightings import Sight

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_FROZEN = "F"


class ThreadView:
    """One thread, as often as somebody looks.

    Args:
        pid: of the process, in the namespace of whoever looks.
        tid: of the thread, as the process itself knows it.
    """

    __slots__ = ("_group", "_pid", "_task")

    def __init__(self, pid: int, tid: int) -> None:
        self._pid = pid
        self._task = Path(f"/proc/{pid}/task/{_found(pid, tid)}")
        self._group = _freezer(pid)

    def __repr__(self) -> str:
        return f"ThreadView({self._task})"

    def look(self, at: float) -> Sight | None:
        """How it is now; None where it cannot be read, because it has ended or is somebody else's.

        Args:
            at: seconds by the clock that spans are told by.
        """
        try:
            state = _fields((self._task / "stat").read_bytes())[0].decode()
            cpu_ns, delay_ns, slices = map(int, (self._task / "schedstat").read_bytes().split())
            process = _fields(Path(f"/proc/{self._pid}/stat").read_bytes())
            process_s = (int(process[11]) + int(process[12])) * _TICK_S
        except (OSError, ValueError, IndexError):
            return None
        if self._group is not None and _is_frozen(self._group):
            state = _FROZEN
        return Sight(at, state, cpu_ns / 1e9, delay_ns / 1e9, slices, process_s)


class OwnThread:
    """A thread of this very process: read ten times a second, so its files stay open.

    Args:
        tid: of the thread.
    """

    __slots__ = ("_files",)

    def __init__(self, tid: int) -> None:
        task = f"/proc/self/task/{tid}"
        names = (f"{task}/stat", f"{task}/schedstat", "/proc/self/stat", "/proc/self/statm")
        self._files: list[int] = []
        try:
            for name in names:
                self._files.append(os.open(name, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:  # macOS; or a /proc that is hidden
            self.close()

    def look(self, at: float) -> tuple[Sight, float] | None:
        """How the thread is, and how many MiB the process has resident; None where it cannot be read."""
        if not self._files:
            return None
        try:
            stat, sched, process, memory = (os.pread(file, 1024, 0) for file in self._files)
            cpu_ns, delay_ns, slices = map(int, sched.split())
            own, whole = _fields(stat), _fields(process)
            process_s = (int(whole[11]) + int(whole[12])) * _TICK_S
            mib = int(memory.split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1024 * 1024)
        except (OSError, ValueError, IndexError):
            return None
        sight = Sight(at, own[0].decode(), cpu_ns / 1e9, delay_ns / 1e9, slices, process_s)
        return sight, mib

    def close(self) -> None:
        """Let go of its files."""
        while self._files:
            os.close(self._files.pop())


def _fields(stat: bytes) -> list[bytes]:
    """Those behind the name, which may hold anything: the first is the state."""
    return stat.rpartition(b")")[2].split()


def _found(pid: int, tid: int) -> int:
    """The thread's number here. In a namespace of its own, a thread's last name is the one it knows."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return tid
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/status", "rb") as status:
                for line in status:
                    if line.startswith(b"NSpid:") and int(line.split()[-1]) == tid:
                        return int(thread)
        except (OSError, ValueError):
            continue
    return tid


def _freezer(pid: int) -> Path | None:
    """The file that tells whether its cgroup is frozen; None where there is none."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines()
        mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in groups:
        _, controllers, path = line.split(":", 2)
        for mount in mounts:
            _, where, kind, options, *_ = mount.split()
            if kind == "cgroup" and "freezer" in controllers.split(","):
                file = "freezer.state" if "freezer" in options.split(",") else ""
            else:
                file = "cgroup.events" if kind == "cgroup2" and not controllers else ""
            # A root group has no such file, and is never frozen.
            if file and (told := Path(where + path) / file).exists():
                return told
    return None


def _is_frozen(group: Path) -> bool:
    try:
        text = group.read_text(encoding="ascii")
    except OSError:
        return False
    return text.strip() == "FROZEN" or "frozen 1" in text
