"""Hurting processes, and undoing all of it however the benchmark ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faulty import switch_of
from mesh.testing.netns import Host

BUSY = 8
SLOWER = 10
_PERIOD_US = 10_000
_CPU = Path("/sys/fs/cgroup/cpu")
# It ends with whoever started it, however that ends.
_SPIN = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100_000))\n"


@dataclass(frozen=True, slots=True)
class Victim:
    """One process of the mesh, as `mesh status` names it."""

    name: str
    pid: int
    process: str = ""
    """Of a handler: its nonce."""
    partitions: tuple[int, ...] = ()
    address: str = ""


def handlers(status: dict[str, Any]) -> list[Victim]:
    """All handlers."""
    return [
        Victim(h["id"], h["pid"], h["process"], tuple(h["partitions"]), f"{h['host']}:{h['port']}")
        for h in status["handlers"]
    ]


def supervisors(status: dict[str, Any], role: str = "") -> list[Victim]:
    """All supervisors, or those of that role."""
    return [Victim(s["id"], s["pid"]) for s in status["supervisors"] if role in ("", s["role"])]


def wardens(status: dict[str, Any]) -> list[Victim]:
    """All wardens."""
    return [Victim(w["id"], w["pid"]) for w in status["wardens"]]


def store_nodes(status: dict[str, Any], role: str) -> list[Victim]:
    """The store's servers of that role."""
    return [
        Victim(f"{role} {node['host']}:{node['port']}", node["pid"])
        for node in status["store"]["nodes"]
        if node["role"] == role
    ]


class Wounds:
    """What has been done and can be undone. Use it as a context manager.

    Args:
        folder: where the switches of benchmarks.faulty are.
        host_of: the host that the handler of an id is on, where hosts can be cut off.
    """

    def __init__(self, folder: Path, host_of: Callable[[str], Host] | None = None) -> None:
        self._folder = folder
        self._host_of = host_of or _no_hosts
        self._healing = contextlib.ExitStack()

    def __enter__(self) -> Wounds:
        return self

    def __exit__(self, *_: object) -> None:
        self.heal()

    def heal(self) -> None:
        """Undo everything that can be undone; whoever was killed stays dead."""
        self._healing.close()

    def kill(self, victims: Iterable[Victim]) -> None:
        """SIGKILL."""
        for victim in victims:
            os.kill(victim.pid, signal.SIGKILL)

    def stop(self, victims: Iterable[Victim]) -> None:
        """SIGSTOP; SIGCONT when healed."""
        for victim in victims:
            descriptor = os.pidfd_open(victim.pid)  # its pid may be another's by then
            signal.pidfd_send_signal(descriptor, signal.SIGSTOP)
            self._healing.callback(_resume, descriptor)

    def slow(self, victims: Iterable[Victim]) -> None:
        """A tenth of a core, in slices of a millisecond."""
        for victim in victims:
            group = _CPU / f"raymesh-bench-{os.getpid()}-{victim.pid}"
            before = _cpu_group(victim.pid)
            try:
                group.mkdir()
                self._healing.callback(group.rmdir)
                (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
                (group / "cpu.cfs_quota_us").write_text(str(_PERIOD_US // SLOWER))
                self._healing.callback(_join, before, victim.pid)
                _join(group, victim.pid)
            except OSError as error:
                raise SystemExit(
                    f"a handler is slowed by a CPU quota, which needs root and cgroup v1 at {_CPU}: {error}"
                ) from error

    def cut(self, victims: Iterable[Victim]) -> None:
        """Their hosts are cut off until healed."""
        for victim in victims:
            host = self._host_of(victim.name)
            self._healing.callback(host.mend)
            host.cut()

    def fail(self, victims: Iterable[Victim]) -> None:
        """Half of the calls fail."""
        for victim in victims:
            switch = switch_of(self._folder, victim.pid)
            switch.touch()
            self._healing.callback(switch.unlink)

    def starve(self, _: Iterable[Victim]) -> None:
        """Processes that do nothing but take the cores."""
        for _ in range(BUSY):
            process = subprocess.Popen([sys.executable, "-ISc", _SPIN])
            self._healing.callback(process.wait)
            self._healing.callback(process.kill)


def _no_hosts(id_: str) -> Host:
    raise SystemExit(f"{id_} is not on a host that can be cut off")


def _resume(descriptor: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, signal.SIGCONT)
    os.close(descriptor)


def _cpu_group(pid: int) -> Path:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            group = _CPU / path.lstrip("/")
            return group if group.is_dir() else _CPU  # in a container the path may be the host's
    return _CPU


def _join(group: Path, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it died meanwhile
        (group / "cgroup.procs").write_text(str(pid))
