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

from benchmarks.faulty import failing, slow
from mesh.testing.netns import Host

BUSY = 8
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
        """Each call takes ten times as long."""
        self._throw(slow, victims)

    def cut(self, victims: Iterable[Victim]) -> None:
        """Their hosts are cut off until healed."""
        for victim in victims:
            host = self._host_of(victim.name)
            self._healing.callback(host.mend)
            host.cut()

    def fail(self, victims: Iterable[Victim]) -> None:
        """Half of the calls fail."""
        self._throw(failing, victims)

    def _throw(self, switch: Callable[[Path, int], Path], victims: Iterable[Victim]) -> None:
        for victim in victims:
            file = switch(self._folder, victim.pid)
            file.touch()
            self._healing.callback(file.unlink)

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
