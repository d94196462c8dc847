"""Several hosts on one machine: network namespaces with own addresses, that can be cut off. Linux, root.

A host is cut off at the switch, a bridge: the cable stays plugged in, and what is sent is gone without a
word, as it is where a switch or a hypervisor fails. (Taking an interface down would tell the sender.)

The namespaces have no names: each lives as long as a process that sleeps in it, and that one as long as this
process. The cables end with the namespaces, so that nothing is left behind even by a SIGKILL.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from mesh.errors import SetupError
from mesh.store.child import Child, Launcher

_TOOLS = ("ip", "bridge", "nsenter", "unshare", "sleep")
_POLL_S = 0.005
_FORWARDING, _DISABLED = "3", "0"


class Host:
    """One namespace. Made by `Hosts`."""

    def __init__(self, hosts: Hosts, number: int, holder: Child, address: str) -> None:
        self._hosts = hosts
        self._number = number
        self._holder = holder
        self.address = address
        """Of its one interface."""

    async def launch(self, arguments: Sequence[str | Path], *, log: Path) -> Child:
        """Run a program there; it ends with this process.

        Args:
            arguments: of the program, itself first, with its whole path.
            log: where what it prints goes.
        """
        enter = (_path("nsenter"), "-t", str(self._holder.pid), "-n")
        return await self._hosts.launch([*enter, *arguments], log)

    def cut(self) -> None:
        """From now on nothing gets there, and nothing from there."""
        self._hosts.set_port(self._number, _DISABLED)

    def mend(self) -> None:
        """Undo `cut`."""
        self._hosts.set_port(self._number, _FORWARDING)


class Hosts:
    """Use it as an async context manager; this process's own namespace is one more host, on the same switch.

    Args:
        count: of hosts.
        folder: for the programs' logs.
        subnet: the first three numbers of the addresses; None: of those that are set aside for tests
            (RFC 2544).

    Raises:
        SetupError: not root, or a tool is missing.
    """

    def __init__(self, count: int, folder: Path, *, subnet: str | None = None) -> None:
        missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
        if os.geteuid() or missing:
            raise SetupError(
                f"hosts of their own need root (this is user {os.geteuid()}) and {', '.join(_TOOLS)} "
                f"(missing: {', '.join(missing) or 'none'})"
            )
        self._count = count
        self._folder = folder
        self._subnet = subnet or f"198.18.{os.getpid() % 256}"
        self._cable = f"rm{os.getpid()}"
        self._launcher = Launcher()
        self._children: list[Child] = []
        self._switch: Child | None = None
        self._keep = os.open(os.devnull, os.O_RDONLY)
        self.hosts: list[Host] = []

    def __repr__(self) -> str:
        return f"<Hosts {self.address} and {[host.address for host in self.hosts]}>"

    @property
    def address(self) -> str:
        """Of this process's own namespace, on the switch."""
        return f"{self._subnet}.1"

    async def __aenter__(self) -> Self:
        try:
            self._switch = await self._namespace()
            self._in(self._switch, "link", "add", "br0", "type", "bridge", "stp_state", "0")
            self._in(self._switch, "link", "set", "br0", "up")
            self._plug(None, 0)
            for number in range(1, self._count + 1):
                holder = await self._namespace()
                self._plug(holder, number)
                self.hosts.append(Host(self, number, holder, f"{self._subnet}.{number + 1}"))
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every program on these hosts, and the hosts."""
        await asyncio.gather(*(child.killed() for child in self._children))
        self._launcher.close()
        os.close(self._keep)

    async def launch(self, arguments: Sequence[str | Path], log: Path | None = None) -> Child:
        """Run a program in this process's own namespace; see Host.launch."""
        child = await self._launcher.launch(
            arguments, log=log or self._folder / "hosts.log", keep_fd=self._keep
        )
        self._children.append(child)
        return child

    def set_port(self, number: int, state: str) -> None:
        """Have the switch pass on what comes from and goes to that host, or not."""
        assert self._switch is not None
        enter = (_path("nsenter"), "-t", str(self._switch.pid), "-n", _path("bridge"))
        _run(*enter, "link", "set", "dev", f"p{number}", "state", state)

    async def _namespace(self) -> Child:
        child = await self.launch([_path("unshare"), "-n", _path("sleep"), "infinity"])
        ours = os.stat("/proc/self/ns/net").st_ino
        while True:
            if not child.is_running:
                raise SetupError(f"no network namespace could be made: {child.last_words()}")
            if os.stat(f"/proc/{child.pid}/ns/net").st_ino != ours:
                return child
            await asyncio.sleep(_POLL_S)

    def _plug(self, holder: Child | None, number: int) -> None:
        """A cable from the switch to a namespace, ours where none is named."""
        assert self._switch is not None
        ours, theirs = f"{self._cable}-{number}a", f"{self._cable}-{number}b"
        _run(_path("ip"), "link", "add", ours, "type", "veth", "peer", "name", theirs)
        _run(
            _path("ip"), "link", "set", theirs, "netns", str(self._switch.pid), "name", f"p{number}"
        )
        self._in(self._switch, "link", "set", f"p{number}", "master", "br0", "up")
        name = ours
        if holder is not None:
            name = "eth0"
            _run(_path("ip"), "link", "set", ours, "netns", str(holder.pid), "name", name)
            self._in(holder, "link", "set", "lo", "up")
        self._in(holder, "address", "add", f"{self._subnet}.{number + 1}/24", "dev", name)
        self._in(holder, "link", "set", name, "up")

    def _in(self, holder: Child | None, *command: str) -> None:
        enter = () if holder is None else (_path("nsenter"), "-t", str(holder.pid), "-n")
        _run(*enter, _path("ip"), *command)


def _path(tool: str) -> str:
    return str(shutil.which(tool))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if done.returncode:
        raise SetupError(f"{' '.join(command)} failed: {done.stderr.strip()}")
