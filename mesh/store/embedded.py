"""A store that a mesh brings along: a primary, two replicas and three Sentinels on this machine.

They are children of this process and end with it, however it ends; the data stays in a folder, and
a later start goes on with it. Everything listens on the loopback only, behind a password drawn for
the folder.

A server that dies is started again. A data node comes back as a replica of whoever is the primary by then,
at replica-priority 0: it may be promoted once the leader has had it acknowledged as a member of the in-sync
set. Never as a primary: its data may be older than what was acknowledged, and the others would copy them.
Only where no node is left at all does the one that was promoted last begin, as after a stop.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from mesh.core.keyspace import DEFAULT_PARTITIONS
from mesh.errors import SetupError
from mesh.store.address import Sentinels, StoreAddress
from mesh.store.binary import ServerBinary, find_binary
from mesh.store.child import Child, Launcher
from mesh.store.folder import (
    CONFIG,
    HOST,
    NODES,
    SENTINELS,
    FolderState,
    StoreFolder,
    free_ports,
    write_private,
)
from mesh.store.readiness import Readiness
from mesh.store.server_config import node_config, sentinel_config

log = logging.getLogger("mesh.store")

_LATE_SHARE = 0.2
"""Of down-after, by which the last Sentinel is slower than the others: where all three become candidates at
one instant, each votes for itself, and the next election is seconds later.
"""
_TILT_SHARE = 5
_DEAD_SHARE = 2.0
"""Of down-after, for which a data node stays dead. One that is up again before its Sentinels have missed it
holds every write up until it has copied everything; one that is missed is done without.
"""
_CRASHED_S = 2.0
"""A server that ends that soon is not started again at once."""
_MOST_PAUSE_S = 10.0
_POLL_S = 0.01
_LOCK_POLL_S = 0.05
_LOCK_S = 1.0
"""How long to wait for the servers of a killed owner to be gone."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One server, as `mesh status` shows it. `lag_bytes`: what a replica has not confirmed yet."""

    role: Literal["primary", "replica", "sentinel", "down"]
    pid: int
    host: str
    port: int
    lag_bytes: int | None = None


class EmbeddedStore:
    """Starts, watches and stops the servers.

    Args:
        folder: where data, configuration and logs are; made if need be.
        mesh: name of the mesh that the folder belongs to.
        partitions: number of its partitions; None for what the folder has on record.
        down_after_ms: silence after which a Sentinel takes a node for dead.
        failover_timeout_ms: after it a failover that did not come to an end is tried again.
        tilt_ms: how long a Sentinel that was itself paused does nothing; None: five times `down_after_ms`.
            A Sentinel promotes no replica whose link to the primary was down for more than ten times
            that when it first takes the primary for dead, and never comes to another verdict: with the
            30 s of Sentinel's own, a primary that dies in the first seconds of it stays without successor.
        start_timeout_s: for each step of the start.
        stop_timeout_s: after it a server that does not end is killed.
        binary: the server program; None finds one.
        restart_s: how often to look for servers that died, and start them again; None: never.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        mesh: str = "default",
        partitions: int | None = None,
        down_after_ms: int = 1000,
        failover_timeout_ms: int = 3000,
        tilt_ms: int | None = None,
        start_timeout_s: float = 10.0,
        stop_timeout_s: float = 5.0,
        binary: ServerBinary | None = None,
        restart_s: float | None = 0.25,
    ) -> None:
        self._path = Path(folder)
        self._mesh = mesh
        self._partitions = partitions
        self._down_after_ms = down_after_ms
        self._failover_timeout_ms = failover_timeout_ms
        self._tilt_ms = _TILT_SHARE * down_after_ms if tilt_ms is None else tilt_ms
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._binary = binary
        self._folder: StoreFolder | None = None
        self._launcher: Launcher | None = None
        self._state = FolderState(mesh, partitions or DEFAULT_PARTITIONS, [], [])
        self._password = ""
        self._readiness = Readiness(mesh, "", self._tilt_ms)
        self._nodes: list[Child] = []
        self._sentinels: list[Child] = []
        self._restart_s = restart_s
        self._tending: asyncio.Task[None] | None = None
        self._dead_since: dict[int, float] = {}
        """By data node: when it was seen dead first."""
        self._pauses: dict[Path, tuple[float, float]] = {}
        """By folder: when that server was started again, and how long to wait should it end at once."""

    def __repr__(self) -> str:
        running = sum(child.is_running for child in (*self._nodes, *self._sentinels))
        return f"<EmbeddedStore {self._path}, {running} of {NODES + SENTINELS} servers running>"

    async def __aenter__(self) -> EmbeddedStore:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def address(self) -> StoreAddress:
        """For `RedisStore`; known once started."""
        nodes = tuple((HOST, port) for port in self._state.node_ports)
        sentinels = Sentinels(self.sentinels, self._mesh)
        return StoreAddress(
            nodes, self._mesh, password=self._password, sentinels=sentinels, managed=True
        )

    @property
    def sentinels(self) -> tuple[tuple[str, int], ...]:
        """Addresses of the Sentinels. They know the store by the mesh's name, and want its
        password.
        """
        return tuple((HOST, port) for port in self._state.sentinel_ports)

    async def check(self) -> None:
        """Refuse what `start` would refuse, as far as it can be known before anything is started.

        Raises:
            SetupError: no fit binary, or the folder is in use, another mesh's, damaged or not writable.
        """
        if self._binary is None:
            await find_binary()
        folder = await self._locked_folder()
        try:
            folder.load(self._mesh, self._partitions)
            folder.last_primary()
        finally:
            folder.close()

    async def start(self) -> StoreAddress:
        """Start all servers and wait until both replicas follow and the Sentinels agree.

        Raises:
            SetupError: no fit binary, the folder is in use or another mesh's, or a server did not
            come up.
        """
        if self._folder is not None:
            raise SetupError(f"the embedded store in {self._path} is started already")
        binary = self._binary or await find_binary()
        self._folder = await self._locked_folder()
        self._launcher = Launcher()
        try:
            await self._bring_up(self._folder, binary)
        except BaseException:
            await self._end_all()
            raise
        if self._restart_s is not None:
            self._tending = asyncio.get_running_loop().create_task(self._tend(self._restart_s))
        return self.address

    async def stop(self) -> None:
        """End the servers: Sentinels first, so that nobody fails over; the primary last, its AOF
        synced.
        """
        if self._folder is None:
            return
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
            self._tending = None
        try:
            await self._terminate(self._sentinels)
            roles = await asyncio.gather(*map(self._readiness.role, self._state.node_ports))
            await self._terminate(
                [c for c, role in zip(self._nodes, roles, strict=True) if not role]
            )
            await self._terminate(self._nodes)
        finally:
            await self._end_all()

    async def nodes(self) -> list[NodeStatus]:
        """Every server: the primary, its replicas with what they lag behind, the Sentinels."""
        roles = await asyncio.gather(*map(self._readiness.role, self._state.node_ports))
        lags = {
            name: role.offset - confirmed
            for role in roles
            if role
            for name, confirmed in role.links
        }
        statuses = []
        for child, port, role in zip(self._nodes, self._state.node_ports, roles, strict=True):
            if not child.is_running:
                statuses.append(NodeStatus("down", child.pid, HOST, port))
            elif role:
                statuses.append(NodeStatus("primary", child.pid, HOST, port))
            else:
                lag = lags.get(f"{HOST}:{port}")
                statuses.append(NodeStatus("replica", child.pid, HOST, port, lag))
        for child, port in zip(self._sentinels, self._state.sentinel_ports, strict=True):
            statuses.append(
                NodeStatus("sentinel" if child.is_running else "down", child.pid, HOST, port)
            )
        return statuses

    async def revive(self, after_s: float = 0.0) -> list[int]:
        """Start servers that died again; the ports of those that could be.

        A data node has to wait until another one is the primary.

        Args:
            after_s: for how long it must have been seen dead.
        """
        assert self._folder
        revived = []
        now = asyncio.get_running_loop().time()
        dead = [i for i, child in enumerate(self._nodes) if not child.is_running]
        self._dead_since = {i: self._dead_since.get(i, now) for i in dead}
        if dead and len(dead) == len(self._nodes):
            last = self._folder.last_primary()
            if await self._start_again(self._nodes, last, self._folder.node(last), primary=None):
                revived.append(self._state.node_ports[last])
        elif dead:
            roles = await asyncio.gather(*map(self._readiness.role, self._state.node_ports))
            found = {i: len(role.links) for i, role in enumerate(roles) if role}
            primary = max(found, key=found.__getitem__, default=None)
            if primary is None:
                dead = []
            for i in (i for i in dead if now - self._dead_since[i] >= after_s):
                folder = self._folder.node(i)
                started = await self._start_again(self._nodes, i, folder, primary=primary)
                revived += [self._state.node_ports[i]] if started else []
        for i, child in enumerate(self._sentinels):
            folder = self._folder.sentinel(i)
            if not child.is_running and await self._start_again(self._sentinels, i, folder):
                port = self._state.sentinel_ports[i]
                await self._readiness.agrees(port)  # and is told its periods again
                revived.append(port)
        return revived

    async def _tend(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                for port in await self.revive(_DEAD_SHARE * self._down_after_ms / 1000):
                    log.warning(
                        "the store's server at port %d had died and was started again", port
                    )
            except (OSError, SetupError) as error:
                log.error("a server of the store died and cannot be started again: %s", error)

    async def _start_again(
        self, children: list[Child], index: int, folder: Path, *, primary: int | None = None
    ) -> bool:
        """Start it, unless it has just died of the same; whether it was started."""
        now = asyncio.get_running_loop().time()
        started_at, pause_s = self._pauses.get(folder, (-_MOST_PAUSE_S, 0.0))
        if now < started_at + pause_s:
            return False
        crashed = now < started_at + pause_s + _CRASHED_S
        longer_s = min(_MOST_PAUSE_S, max(_CRASHED_S, 2 * pause_s))
        self._pauses[folder] = now, longer_s if crashed else 0.0
        if children is self._nodes:
            priority = 100 if primary is None else 0
            children[index] = await self._start_node(index, primary, priority)
        else:
            # It goes on from what it wrote there itself: votes, and who is the primary.
            children[index] = await self._launch(folder, "--sentinel")
        return True

    async def _locked_folder(self) -> StoreFolder:
        for _ in range(round(_LOCK_S / _LOCK_POLL_S)):
            try:
                return StoreFolder.open(self._path)
            except SetupError:
                await asyncio.sleep(_LOCK_POLL_S)
        return StoreFolder.open(self._path)

    async def _bring_up(self, folder: StoreFolder, binary: ServerBinary) -> None:
        self._binary = binary
        state = folder.load(self._mesh, self._partitions)
        primary = folder.last_primary()
        ports = free_ports([*state.node_ports, *state.sentinel_ports], NODES + SENTINELS)
        state.node_ports, state.sentinel_ports = ports[:NODES], ports[NODES:]
        folder.save(state)
        self._state, self._password = state, folder.secret()
        self._readiness = Readiness(self._mesh, self._password, self._tilt_ms)

        replicas = [i for i in range(NODES) if i != primary]
        nodes = {primary: await self._start_node(primary, None)}
        self._nodes = list(nodes.values())
        await self._until("the primary answers", partial(self._readiness.answers, ports[primary]))
        for i in replicas:
            nodes[i] = await self._start_node(i, primary)
            self._nodes = list(nodes.values())
        self._nodes = [nodes[i] for i in range(NODES)]
        ids = [secrets.token_hex(20) for _ in range(SENTINELS)]
        for i in range(SENTINELS):
            self._sentinels.append(await self._start_sentinel(i, primary, replicas, ids))
        follows = partial(self._readiness.is_followed, ports[primary])
        await self._until("both replicas follow", follows)
        for port in state.sentinel_ports:
            await self._until("the Sentinels agree", partial(self._readiness.agrees, port))

    async def _start_node(self, index: int, primary: int | None, priority: int = 100) -> Child:
        assert self._folder
        ports = self._state.node_ports
        text = node_config(
            self._folder.node(index),
            ports[index],
            self._password,
            primary_port=None if primary is None else ports[primary],
            priority=priority,
        )
        return await self._start_server(self._folder.node(index), text)

    async def _start_sentinel(
        self, index: int, primary: int, replicas: list[int], ids: list[str]
    ) -> Child:
        assert self._folder
        ports = self._state.sentinel_ports
        text = sentinel_config(
            self._folder.sentinel(index),
            ports[index],
            self._password,
            name=self._mesh,
            primary_port=self._state.node_ports[primary],
            replica_ports=[self._state.node_ports[i] for i in replicas],
            own_id=ids[index],
            others=[(ports[i], ids[i]) for i in range(SENTINELS) if i != index],
            down_after_ms=round(self._down_after_ms * (1 + _LATE_SHARE * (index == SENTINELS - 1))),
            failover_timeout_ms=self._failover_timeout_ms,
        )
        return await self._start_server(self._folder.sentinel(index), text, "--sentinel")

    async def _start_server(self, folder: Path, config: str, *options: str) -> Child:
        write_private(folder / CONFIG, config)
        return await self._launch(folder, *options)

    async def _launch(self, folder: Path, *options: str) -> Child:
        assert self._folder and self._launcher and self._binary
        return await self._launcher.launch(
            [self._binary.path, folder / CONFIG, *options],
            log=folder / "server.log",
            keep_fd=self._folder.lock_fd,
        )

    async def _until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        children = (*self._nodes, *self._sentinels)
        try:
            async with asyncio.timeout(self._start_timeout_s):
                while not await holds():
                    for child in children:
                        if not child.is_running:
                            raise SetupError(
                                f"a server of the embedded store ended: {child.last_words()}"
                            )
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            words = "\n".join(child.last_words(3) for child in children)
            raise SetupError(
                f"embedded store in {self._path}: waited {self._start_timeout_s:g} s until {what}:\n"
                f"{words}"
            ) from None

    async def _terminate(self, children: list[Child]) -> None:
        await asyncio.gather(*(child.terminate(self._stop_timeout_s) for child in children))

    async def _end_all(self) -> None:
        """Kill what is left, and give the folder free."""
        await asyncio.gather(*(child.killed() for child in (*self._sentinels, *self._nodes)))
        self._sentinels, self._nodes = [], []
        if self._launcher is not None:
            self._launcher.close()
        if self._folder is not None:
            self._folder.close()
        self._launcher = self._folder = None
