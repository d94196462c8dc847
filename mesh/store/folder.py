"""The data folder of an embedded store: whose it is, who uses it, and what must be remembered.

FOLDER/lock             held (flock) by the owner and by each server, so until the last of them
is gone FOLDER/store.json       mesh, partitions and ports FOLDER/secret           password of
the servers, mode 0600 FOLDER/node-N, sentinel-N   a server's configuration, data and log
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from mesh.core.keyspace import DEFAULT_PARTITIONS
from mesh.errors import SetupError

HOST = "127.0.0.1"
NODES = 3
SENTINELS = 3

CONFIG = "server.conf"

_REPLICAOF = re.compile(r"(?m)^(?:replicaof|slaveof) ")


@dataclass(slots=True)
class FolderState:
    """What store.json holds: whose the folder is, and the ports that it used last."""

    mesh: str
    partitions: int
    node_ports: list[int]
    sentinel_ports: list[int]


class StoreFolder:
    """An embedded store's folder, locked while this object is open."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self.lock_fd = lock_fd

    @classmethod
    def open(cls, path: Path) -> StoreFolder:
        """Make the folder if need be, and lock it.

        Raises:
            SetupError: another process has it, or it cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SetupError(
                f"data folder {path} cannot be used: {error.strerror}; name another one with --data-dir"
            ) from error
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock_fd, 20, 0).decode() or "?"
            os.close(lock_fd)
            raise SetupError(
                f"data folder {path} is in use by the mesh of process {holder}: stop it first, "
                "or use another folder"
            ) from None
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, str(os.getpid()).encode(), 0)
        return cls(path.absolute(), lock_fd)

    def close(self) -> None:
        """Unlock, once every server is gone."""
        os.close(self.lock_fd)

    def node(self, index: int) -> Path:
        return self.path / f"node-{index}"

    def sentinel(self, index: int) -> Path:
        return self.path / f"sentinel-{index}"

    def load(self, mesh: str, partitions: int | None) -> FolderState:
        """The folder's state, or that of a new one. `partitions` None: whatever is on record.

        Raises:
            SetupError: the folder is another mesh's, or damaged.
        """
        file = self.path / "store.json"
        if not file.exists():
            return FolderState(mesh, partitions or DEFAULT_PARTITIONS, [], [])
        try:
            state = FolderState(**json.loads(file.read_text()))
        except (ValueError, TypeError) as error:
            raise SetupError(
                f"{file} is damaged ({error}): put it back from a backup, or name another folder"
            ) from error
        asked = state.partitions if partitions is None else partitions
        if (state.mesh, state.partitions) != (mesh, asked):
            raise SetupError(
                f"data folder {self.path} holds mesh {state.mesh!r} with {state.partitions} "
                f"partitions, not {mesh!r} with {asked}: name the right one, or another folder"
            )
        return state

    def save(self, state: FolderState) -> None:
        """Write the state so that a crash leaves the old or the new one."""
        write_private(self.path / "store.json", json.dumps(asdict(state), indent=1) + "\n")

    def secret(self) -> str:
        """The servers' password; drawn once."""
        file = self.path / "secret"
        if not file.exists():
            write_private(file, secrets.token_hex(32))
        return file.read_text().strip()

    def last_primary(self) -> int:
        """Index of the node to start as the primary: the one that was promoted last.

        A promotion by Sentinel ends with the node's rewriting its own configuration, which then
        follows nobody. So may that of a primary that died before; it was written earlier.

        Raises:
            SetupError: that node's data is gone, and the others would copy the emptiness.
        """
        written = {
            index: file.stat().st_mtime_ns
            for index in range(NODES)
            if (file := self.node(index) / CONFIG).exists()
            and not _REPLICAOF.search(file.read_text())
        }
        primary = max(written, key=written.__getitem__, default=0)
        with_data = [i for i in range(NODES) if (self.node(i) / "appendonlydir").is_dir()]
        if with_data and primary not in with_data:
            raise SetupError(
                f"{self.node(primary)} was the store's primary and has no data any more: put it back, "
                f"or remove {self.path} to begin anew"
            )
        return primary


def write_private(file: Path, text: str) -> None:
    """Replace a file that only its owner may read, and have it on disk before its name.

    Its folder is made if need be.
    """
    file.parent.mkdir(exist_ok=True, mode=0o700)
    new = file.with_name(file.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)


def free_ports(wanted: list[int], count: int) -> list[int]:
    """`count` ports of the loopback: those wanted where nobody listens there, others where somebody
    does.
    """
    sockets = []
    try:
        for port in (*wanted, *[0] * count)[:count]:
            one = socket.socket()
            sockets.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
            try:
                one.bind((HOST, port))
            except OSError:
                one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
