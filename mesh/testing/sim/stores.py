"""The store of a simulated mesh: nodes and Sentinels, each a process on a host of its own.

    db-0 … db-2    the nodes, db-0 the primary at first
    se-0 … se-2    Sentinels, in meshes that have them

A node that is started again finds the disk that it left: as it was, as a loss of power leaves it, as a
snapshot of long ago, or empty. It follows whom it followed last. One that was a primary follows another node,
as an embedded store's node does, which is never a primary by itself; or it is the primary again, as the node
of a store that somebody else looks after.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial

from mesh.core.syncset import InSyncSet
from mesh.errors import SetupError
from mesh.store.address import Sentinels, StoreAddress
from mesh.store.calls import Calls
from mesh.store.preparing import prepare
from mesh.store.redis import RedisStore
from mesh.testing.sim.checks import Checks
from mesh.testing.sim.plan import Left, Plan
from mesh.testing.sim.process import Process
from mesh.testing.sim.simulation import Simulation
from mesh.testing.sim.store.node import EMBEDDED, Disk, StoreNode
from mesh.testing.sim.store.sentinel import SentinelNode
from mesh.testing.sim.store.sentinel_view import SentinelConfig
from mesh.testing.sim.store_watching import StoreWatch

_PORT = 6379
_SENTINEL_PORT = 26_379
_MASTER = "store"
_TIMES = {"wait_timeout_s": 0.1, "call_timeout_s": 2.0, "connect_timeout_s": 1.0}
_POLL_S = 0.01
_WATCHED_S = 1.2
"""In which Sentinels have looked at every node."""

_PLAIN = {"min-replicas-to-write": "0"}
"""Of a store without replicas."""


class Stores:
    """Nodes and Sentinels of one run.

    Args:
        sim: where they run.
        plan: how many there are.
        checks: told what they do.
        mesh: its name.

    Attributes:
        nodes: by name.
        sentinels: by name.
        address: where to look for the primary.
        moved: the primary has been another one than at first, or may have been.
    """

    def __init__(self, sim: Simulation, plan: Plan, checks: Checks, mesh: str) -> None:
        self.nodes: dict[str, StoreNode] = {}
        self.sentinels: dict[str, SentinelNode] = {}
        self.moved = False
        self._sim = sim
        self._plan = plan
        self._checks = checks
        self._dice = sim.dice("store")
        self._names = [f"db-{i}" for i in range(1 + plan.replicas)]
        self._watchers = [f"se-{i}" for i in range(plan.sentinels)]
        self._disks: dict[str, Disk] = {}
        self._early: dict[str, Disk] = {}
        """What a node's disk held early in the run, for rolling back to it."""
        self._follows: dict[str, tuple[str, int] | None] = {}
        self._recorded = b""
        self._members: list[str] = []
        """Those in the record that was read last."""
        addresses = tuple(map(self.address_of, self._names))
        if self._watchers:
            asked = tuple(map(self.address_of, self._watchers))
            self.address = StoreAddress((), mesh, sentinels=Sentinels(asked, _MASTER))
        else:
            self.address = StoreAddress(addresses, mesh)
        self._configs = {name: self._config(i) for i, name in enumerate(self._watchers)}
        self._life_key = Calls(self.address.prefix).life_key

    def __repr__(self) -> str:
        return f"<Stores {list(self.nodes.values())}>"

    def access(self) -> RedisStore:
        """What a process of the mesh reaches the store by."""
        return RedisStore(self.address, **_TIMES)

    # ---------------------------------------------------------------------------------------- who is what

    @property
    def primary(self) -> str:
        """The node that is the primary; of several that say so the one that Sentinels mean, or whose life is
        the latest.
        """
        sayers = [n for n in self.nodes if self._lives(n) and self.nodes[n].is_primary]
        if not sayers:
            return self._names[0]
        if len(sayers) == 1:
            return sayers[0]
        meant = [s.config.primary for name, s in self.sentinels.items() if self._lives(name)]
        return max(sayers, key=lambda n: (meant.count(self.address_of(n)), self._life(n)))

    @property
    def replicas(self) -> list[str]:
        """The other nodes that run."""
        primary = self.primary
        return [name for name in self.nodes if name != primary and self._lives(name)]

    @property
    def recorded_members(self) -> frozenset[str]:
        """The nodes in the in-sync set that the primary has on record."""
        return frozenset(self._members_of(self.primary))

    def _members_of(self, primary: str) -> list[str]:
        recorded = self._record(primary).get(b"set")
        if recorded is None:
            return []
        if recorded != self._recorded:
            # Asked for each batch, and nearly always the same.
            links = {"{}:{}".format(*self.address_of(name)): name for name in self.nodes}
            self._recorded = recorded
            self._members = [links[m] for m in sorted(InSyncSet.decode(recorded).members)]
        return self._members

    def members(self) -> dict[str, int]:
        """How much of the primary's stream each member of its in-sync set has; nothing is said of a store
        whose primary has changed, since there is more than one stream then.
        """
        first = self._names[0]
        promoted = (n.is_primary for name, n in self.nodes.items() if name != first)
        self.moved = self.moved or self.primary != first or any(promoted)
        if self.moved:
            return {}
        names = self._members_of(self._names[0])
        return {name: self.nodes[name].server.stream.offset for name in names}

    def _lives(self, name: str) -> bool:
        return self._sim.processes[name].alive

    def address_of(self, name: str) -> tuple[str, int]:
        """Where a node or a Sentinel listens."""
        port = _PORT if name.startswith("db-") else _SENTINEL_PORT
        return self._sim.network.host(name).address, port

    def _record(self, name: str) -> dict[bytes, bytes]:
        record = self.nodes[name].server.data.databases[0].get(self._life_key)
        return record if isinstance(record, dict) else {}

    def _life(self, name: str) -> int:
        return int(self._record(name).get(b"number", 0))

    # -------------------------------------------------------------------------------------------- starting

    def come_up(self) -> None:
        """Start all of them; whoever needs them waits until they are ready (`prepare`)."""
        for name in self._names:
            self._sim.spawn(name, partial(self._be_node, name, {}))
        for name in self._watchers:
            self._sim.spawn(name, partial(self._be_sentinel, name))

    async def prepare(self, process: Process) -> None:
        """Load the mesh's functions, as soon as the store is ready."""
        while True:
            try:
                prepared = await prepare(self.address, partitions=self._plan.partitions, **_TIMES)
            except SetupError as error:
                self._sim.note(process.name, f"the store is not ready: {error}")
            else:
                if prepared.replicas == self._plan.replicas:
                    break
            await asyncio.sleep(_POLL_S)
        if self._watchers:
            await asyncio.sleep(_WATCHED_S)

    def join(self, name: str) -> None:
        """A replica that is no member of the in-sync set attaches itself to the primary."""
        if name not in self._sim.processes:
            self._follows[name] = self.address_of(self.primary)
            self._sim.spawn(name, partial(self._be_node, name, {}))

    def keep(self) -> None:
        """Copy every disk: what `rolled back` goes back to."""
        self._early = {name: disk.copy() for name, disk in self._disks.items()}

    def killed(self, name: str) -> None:
        """Note whom a node that has just been killed follows."""
        if name not in self.nodes:
            return
        follower = self.nodes[name].server.follower
        self._follows[name] = (follower.host, follower.port) if follower is not None else None
        self.moved = self.moved or follower is None

    def start(self, name: str, left: Left = "intact", *, in_place: bool = False) -> None:
        """Start a node or a Sentinel that is dead.

        Args:
            name: of it.
            left: what a node finds on its disk.
            in_place: one that was the primary is it again.
        """
        if self._lives(name):
            return
        if name in self._configs:
            self._sim.spawn(name, partial(self._be_sentinel, name))
            return
        disk = self._disks[name]
        if left == "power lost":
            disk.lose_power(self._dice)
        elif left == "rolled back" and name in self._early:
            disk.restore(self._early[name])
        elif left == "empty":
            disk.wipe()
        follows = self._follows.get(name)
        if follows is None and not in_place:
            # Another one that may be the primary; Sentinel or the leader say whom it has to follow.
            others = [n for n in (*self.replicas, *self._names) if n != name]
            follows = self.address_of(self.primary if self.primary != name else others[0])
        self._follows[name] = follows
        changed = {} if in_place else {"replica-priority": "0"}
        self._sim.spawn(name, partial(self._be_node, name, changed))

    async def _be_node(self, name: str, changed: dict[str, str], process: Process) -> None:
        first = self.address_of(self._names[0])
        follows = self._follows.setdefault(name, None if name == self._names[0] else first)
        disk = self._disks.setdefault(name, Disk())
        settings = EMBEDDED | changed | ({"appendfsync": "always"} if self._plan.synced else {})
        if not self._plan.replicas:
            settings |= _PLAIN
        node = StoreNode(disk, self._dice, settings=settings, primary=follows)
        await node.start(*self.address_of(name))
        self.nodes[name] = node
        sure_s = self._plan.down_after_s if self._watchers else math.inf
        StoreWatch(name, node.server, self._checks, lambda: self._sim.now, self._sim.note, sure_s)
        await process.loop.create_future()

    def _config(self, number: int) -> SentinelConfig:
        others = {
            self.address_of(name): f"{i:040x}"
            for i, name in enumerate(self._watchers)
            if i != number
        }
        first, *replicas = map(self.address_of, self._names)
        down_after_s = self._plan.down_after_s
        return SentinelConfig(
            f"{number:040x}",
            _MASTER,
            first,
            replicas,
            others,
            down_after_s=down_after_s,
            tilt_s=5 * down_after_s,
        )

    async def _be_sentinel(self, name: str, process: Process) -> None:
        sentinel = SentinelNode(self._configs[name], self._dice)
        await sentinel.start(*self.address_of(name))
        self.sentinels[name] = sentinel
        await process.loop.create_future()
