"""One process of a mesh that is spread over hosts (mesh.testing.spread): a handler, a warden or a supervisor.

`python -m mesh.testing.spread_process FILE`: the file holds the process's orders. It is what the Ray actors
are, without Ray.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from mesh import logs
from mesh.entities import Registry
from mesh.node import Node
from mesh.node_settings import NodeSettings
from mesh.store.address import StoreAddress
from mesh.store.redis import RedisStore
from mesh.supervisor import Supervisor, SupervisorSettings
from mesh.warden import Warden


@dataclass(frozen=True, slots=True)
class Orders:
    """What a process is to be.

    Attributes:
        role: "handler", "warden" or "supervisor".
        id: of it.
        mesh: the mesh's name.
        host: the address that it listens on.
        port: of a supervisor.
        warden: address of the host's warden.
        supervisors: "host:port" of each.
        store: the store's address (mesh.store.address).
        handlers: ids of all.
        log: where it logs.
    """

    role: str
    id: str
    mesh: str
    partitions: int
    host: str
    port: int
    warden: str
    supervisors: tuple[str, ...]
    store: dict[str, Any]
    handlers: tuple[str, ...]
    log: str


class NoReplacements:
    """Nobody is started anew: whoever was cut off comes back by itself."""

    async def start_handler(self, id: str) -> None:
        """See Launcher."""


def _store(orders: Orders) -> RedisStore:
    return RedisStore(StoreAddress.from_dict(orders.store))


async def _handler(orders: Orders) -> None:
    settings = NodeSettings(
        orders.mesh,
        orders.id,
        orders.supervisors,
        orders.partitions,
        host=orders.host,
        warden=orders.warden,
    )
    node = Node(settings, Registry([]), _store(orders))
    await node.start()
    await node.ended.wait()
    await node.stop()


async def _warden(orders: Orders) -> None:
    warden = Warden(
        orders.mesh, orders.id, orders.warden, orders.supervisors, node=f"host {orders.host}"
    )
    warden.start()
    await warden.ended.wait()
    await warden.stop()


async def _supervisor(orders: Orders) -> None:
    settings = SupervisorSettings(
        orders.mesh,
        orders.id,
        orders.handlers,
        orders.partitions,
        host=orders.host,
        port=orders.port,
    )
    supervisor = Supervisor(settings, _store(orders), NoReplacements())
    await supervisor.listen()
    await supervisor.lead()
    await supervisor.ended.wait()
    await supervisor.stop()


_ROLES = {"handler": _handler, "warden": _warden, "supervisor": _supervisor}


def main() -> None:
    """Be what the orders say, until the mesh stops."""
    values = json.loads(Path(sys.argv[1]).read_text())
    lists = {name: tuple(values[name]) for name in ("supervisors", "handlers")}
    orders = Orders(**{**values, **lists})
    logs.set_up(f"{orders.role} {orders.id}", level="info", path=Path(orders.log), secrets=())
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(_ROLES[orders.role](orders))


if __name__ == "__main__":
    main()
