"""A mesh of real processes over several hosts of one machine (mesh.testing.netns): what a cut is tried on.

Store, Sentinels and supervisor are on this process's own host, the handlers on the others, each with a warden
of that host beside it. What runs is what runs under Ray, down to the bytes on the wire; Ray itself is on
neither path. Nobody is started anew: a handler that was cut off comes back by itself, or does not.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from mesh.client.tool import Tool
from mesh.errors import MeshError, SetupError, Unavailable
from mesh.store.address import StoreAddress
from mesh.store.binary import find_binary
from mesh.store.child import Child
from mesh.store.folder import CONFIG, HOST, NODES, SENTINELS, write_private
from mesh.store.preparing import prepare
from mesh.store.resp import ask_once, pack
from mesh.store.server_config import node_config, sentinel_config
from mesh.testing.netns import Host, Hosts
from mesh.testing.spread_process import Orders

_POLL_S = 0.02
_READY_S = 20.0


class SpreadMesh:
    """Use it as an async context manager.

    Args:
        folder: for data, orders and logs.
        hosts: how many, with one handler each.
        partitions: of the key space.
        down_after_ms: silence after which a Sentinel takes a node of the store for dead.

    Raises:
        SetupError: not root, a tool is missing, or something does not come up.
    """

    def __init__(
        self, folder: Path, *, hosts: int = 3, partitions: int = 64, down_after_ms: int = 1000
    ) -> None:
        self._folder = folder
        self._name = f"spread-{secrets.token_hex(3)}"
        self._partitions = partitions
        self._down_after_ms = down_after_ms
        self._password = secrets.token_hex(16)
        self._hosts = Hosts(hosts, folder)
        self._store: StoreAddress | None = None
        self._supervisor = ""
        self.handlers: dict[str, Child] = {}
        """Their processes."""

    async def __aenter__(self) -> Self:
        try:
            await self._hosts.__aenter__()
            await self._start_store()
            await self._start_mesh()
        except BaseException:
            await self._hosts.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._hosts.close()

    @property
    def endpoint(self) -> str:
        """Of the supervisor."""
        return self._supervisor

    def host_of(self, handler: str) -> Host:
        """The host that this handler is on."""
        return self._hosts.hosts[int(handler.removeprefix("h-"))]

    async def status(self) -> dict[str, Any]:
        """What `mesh status --json` would print."""
        tool = await Tool.open(self._supervisor)
        try:
            return dict(await tool.ask("status"))
        finally:
            tool.close()

    async def events(self) -> list[dict[str, Any]]:
        """What `mesh events --json` would print."""
        tool = await Tool.open(self._supervisor)
        try:
            return list(await tool.ask("events"))
        finally:
            tool.close()

    def logs(self) -> str:
        """What its processes said, for a failing test."""
        return "\n".join(p.read_text(errors="replace") for p in self._folder.glob("*.log"))

    # ------------------------------------------------------------------------------------------ store

    async def _start_store(self) -> None:
        binary = await find_binary()
        host = self._hosts.address
        ports = _free_ports(host, NODES + SENTINELS)
        nodes, sentinels = ports[:NODES], ports[NODES:]
        ids = [secrets.token_hex(20) for _ in sentinels]
        for i, port in enumerate(nodes):
            follows = nodes[0] if i else None
            text = node_config(self._at(f"node-{i}"), port, self._password, primary_port=follows)
            await self._start_server(binary.path, f"node-{i}", text)
            await self._until(f"node {i} answers", port, pack("EXISTS", "x"), [0])
        replicated = pack("PUBLISH", "start", b""), pack("WAIT", NODES - 1, 20)
        await self._until("the replicas follow", nodes[0], *replicated, [0, NODES - 1])
        for i, port in enumerate(sentinels):
            text = sentinel_config(
                self._at(f"sentinel-{i}"),
                port,
                self._password,
                name=self._name,
                primary_port=nodes[0],
                replica_ports=nodes[1:],
                own_id=ids[i],
                others=[(p, id_) for p, id_ in zip(sentinels, ids, strict=True) if p != port],
                down_after_ms=self._down_after_ms,
                failover_timeout_ms=3 * self._down_after_ms,
            )
            await self._start_server(binary.path, f"sentinel-{i}", text, "--sentinel")
        address = tuple((host, port) for port in nodes)
        self._store = StoreAddress(address, self._name, password=self._password)
        await prepare(
            self._store,
            partitions=self._partitions,
            wait_timeout_s=0.2,
            call_timeout_s=2.0,
            connect_timeout_s=1.0,
        )

    def _at(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return folder

    async def _start_server(self, binary: Path | str, name: str, text: str, *options: str) -> None:
        config = self._at(name) / CONFIG
        # The servers of an embedded store are on the loopback, these are where other hosts reach them.
        write_private(config, text.replace(HOST, self._hosts.address))
        await self._hosts.launch([binary, config, *options], self._at(name) / "server.log")

    async def _until(self, what: str, port: int, *rest: Any) -> None:
        *commands, wanted = rest
        replies: list[object] = []
        try:
            async with asyncio.timeout(_READY_S):
                while replies != wanted:
                    await asyncio.sleep(_POLL_S)
                    replies = await self._ask(port, *commands)
        except TimeoutError:
            raise SetupError(
                f"waited {_READY_S:g} s until {what}; it says {replies}; see {self._folder}"
            ) from None

    async def _ask(self, port: int, *commands: bytes) -> list[object]:
        return await ask_once(self._hosts.address, port, *commands, password=self._password)

    # ------------------------------------------------------------------------------------------- mesh

    async def _start_mesh(self) -> None:
        here = self._hosts.address
        [port] = _free_ports(here, 1)
        self._supervisor = f"{here}:{port}"
        await self._start("supervisor", "s-0", None, port=port)
        for number, host in enumerate(self._hosts.hosts):
            await self._start("warden", f"w-{number}", host)
        for number, host in enumerate(self._hosts.hosts):
            await self._warden_listens(number)
            self.handlers[f"h-{number}"] = await self._start("handler", f"h-{number}", host)
        await self._ready()

    async def _start(self, role: str, id_: str, host: Host | None, port: int = 0) -> Child:
        assert self._store is not None
        number = id_.partition("-")[2]
        orders = Orders(
            role,
            id_,
            self._name,
            self._partitions,
            self._hosts.address if host is None else host.address,
            port,
            f"{self._name}-warden-{number}",
            (self._supervisor,),
            self._store.as_dict(),
            tuple(f"h-{i}" for i in range(len(self._hosts.hosts))),
            str(self._folder / f"{id_}.log"),
        )
        file = self._folder / f"{id_}.json"
        write_private(file, json.dumps(asdict(orders)))
        command: list[str | Path] = [sys.executable, "-m", "mesh.testing.spread_process", file]
        log = self._folder / f"{id_}.log"
        if host is None:
            return await self._hosts.launch(command, log)
        return await host.launch(command, log=log)

    async def _warden_listens(self, number: int) -> None:
        """A handler that finds no warden does not start."""
        async with asyncio.timeout(_READY_S):
            while True:
                wardens = (await self._status_or_none() or {}).get("wardens", ())
                if any(w["id"] == f"w-{number}" for w in wardens):
                    return
                await asyncio.sleep(_POLL_S)

    async def _ready(self) -> None:
        try:
            async with asyncio.timeout(_READY_S):
                while True:
                    if (await self._status_or_none() or {}).get("ready"):
                        return
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise SetupError(
                f"the mesh was not ready within {_READY_S:g} s:\n{self.logs()}"
            ) from None

    async def _status_or_none(self) -> dict[str, Any] | None:
        try:
            return await self.status()
        except Unavailable:
            return None
        except MeshError as error:
            raise SetupError(f"{self._supervisor} does not tell its status: {error}") from error


def _free_ports(host: str, count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((host, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
