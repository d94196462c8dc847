"""The processes of a simulated mesh, each on a host:

db-0 … db-2    the store's nodes (mesh.testing.sim.store), db-0 the primary at first
s-0            the supervisor, which starts replacements by way of a launcher
h-0 …          a host each, with the handler h-0 and its warden w-0

They run the real code, and are started as they are in a real mesh.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from mesh.client.inner import open_inner
from mesh.core.handling_config import HandlingConfig
from mesh.core.supervision import Supervision
from mesh.core.table import Table
from mesh.entities import Registry
from mesh.errors import SetupError
from mesh.node import Node, NodeSettings
from mesh.store.address import StoreAddress
from mesh.store.preparing import prepare
from mesh.store.redis import RedisStore
from mesh.supervisor import Supervisor, SupervisorSettings
from mesh.testing.models import AppendList, Counter, Register
from mesh.testing.sim.checks import Checks
from mesh.testing.sim.plan import Plan
from mesh.testing.sim.poison import Poison, struck
from mesh.testing.sim.process import Process
from mesh.testing.sim.simulation import Simulation
from mesh.testing.sim.store.node import EMBEDDED, Disk, StoreNode
from mesh.testing.sim.watching import (
    StoreWatch,
    watch_commits,
    watch_supervisor,
    watch_tables,
    watch_tenures,
)
from mesh.testing.sim.witness import Witnesses
from mesh.warden import Warden
from mesh.wording import in_words

MESH = "sim"
ENTITIES = (Register, Counter, AppendList)
UP_S = 30.0
"""Virtual seconds that a mesh has for coming up."""
POLL_S = 0.01

_PORT = 7400
_STORE_PORT = 6379
_STORE_TIMES = {"wait_timeout_s": 0.2, "call_timeout_s": 2.0, "connect_timeout_s": 1.0}


class Machines:
    """Those of one run; a `mesh.supervisor.Launcher`, too.

    Args:
        sim: where they run.
        plan: how many there are.
        checks: told what they do.

    Attributes:
        store: its nodes, by name.
        nodes: handlers that live, by id.
        supervisor: once it listens.
        endpoints: where clients, handlers and wardens find supervisors.
        struck: pids of processes that a call has killed.
    """

    def __init__(self, sim: Simulation, plan: Plan, checks: Checks) -> None:
        self.store: dict[str, StoreNode] = {}
        self.nodes: dict[str, Node] = {}
        self.supervisor: Supervisor | None = None
        self.struck: list[int] = []
        self._sim = sim
        self._plan = plan
        self._checks = checks
        self._dice = sim.dice("world")
        self._store_dice = sim.dice("store")
        self._witnesses = Witnesses(sim.dice("proofs"))
        network = sim.network
        names = [f"db-{i}" for i in range(1 + plan.replicas)]
        nodes = tuple((network.host(name).address, _STORE_PORT) for name in names)
        self.address = StoreAddress(nodes, MESH)
        self.endpoints = (f"{network.host('s-0').address}:{_PORT}",)

    def __repr__(self) -> str:
        return f"<Machines of {self._sim!r}>"

    @property
    def core(self) -> Supervision | None:
        """The leader's brain."""
        return self.supervisor.core if self.supervisor is not None else None

    @property
    def table(self) -> Table | None:
        """The leader's."""
        return self.core.table if self.core is not None else None

    @property
    def ready(self) -> bool:
        """There is a leader, and nothing is left for it to do."""
        return self.core is not None and self.core.ready

    async def until(self, holds: Callable[[], bool], within_s: float) -> None:
        """Wait for it; what does not come is for the checks to judge."""
        late = self._sim.now + within_s
        while not holds() and self._sim.now < late:  # noqa: ASYNC110 - virtual
            await asyncio.sleep(POLL_S)

    async def come_up(self) -> None:
        """Start all of them.

        Raises:
            SetupError: the mesh is not there in time.
        """
        sim, plan = self._sim, self._plan
        for name in [f"db-{i}" for i in range(1 + plan.replicas)]:
            sim.spawn(name, partial(self._be_store, name))
        bringing = sim.spawn("up", self._prepare, host="s-0")
        await self.until(lambda: not bringing.alive, UP_S)
        sim.spawn("s-0", self._be_supervisor)
        for number in range(plan.handlers):
            host = f"h-{number}"
            sim.spawn(f"w-{number}", self._be_warden, host=host)
        await self.until(lambda: self.supervisor is not None, UP_S)
        for number in range(plan.handlers):
            _ = self._spawn_handler(f"h-{number}")
        await self.until(lambda: self.ready, UP_S)
        if not self.ready:
            raise SetupError(f"the mesh did not come up within {UP_S:g} s")

    # -------------------------------------------------------------------------------------------- the store

    async def _prepare(self, process: Process) -> None:
        while True:
            try:
                prepared = await prepare(
                    self.address, partitions=self._plan.partitions, **_STORE_TIMES
                )
            except SetupError as error:
                self._sim.note(process.name, f"the store is not ready: {error}")
            else:
                if prepared.replicas == self._plan.replicas:
                    return
            await asyncio.sleep(POLL_S)

    async def _be_store(self, name: str, process: Process) -> None:
        first = self.address.nodes[0]
        is_first = (process.host.address, _STORE_PORT) == first
        node = StoreNode(
            Disk(), self._store_dice, settings=EMBEDDED, primary=None if is_first else first
        )
        await node.start(process.host.address, _STORE_PORT)
        self.store[name] = node
        StoreWatch(name, node.server, self._checks, lambda: self._sim.now, self._sim.note)
        await process.loop.create_future()

    def join(self, name: str) -> None:
        """A replica that is no member of the in-sync set attaches itself to the primary."""
        if name not in self._sim.processes:
            self._sim.spawn(name, partial(self._be_store, name))

    def _members(self) -> dict[str, int]:
        """How much of the primary's stream each member of the in-sync set has."""
        names = [f"db-{i}" for i in range(1, 1 + self._plan.replicas)]
        return {name: self.store[name].server.stream.offset for name in names}

    # ------------------------------------------------------------------------------- supervisor and wardens

    async def _be_supervisor(self, process: Process) -> None:
        settings = SupervisorSettings(
            MESH,
            process.name,
            tuple(f"h-{i}" for i in range(self._plan.handlers)),
            self._plan.partitions,
            host=process.host.address,
            port=_PORT,
            replicas=self._plan.replicas,
        )
        supervisor = Supervisor(
            settings, RedisStore(self.address, **_STORE_TIMES), self, process.clock
        )
        watch_supervisor(
            process.name,
            supervisor,
            self._checks,
            lambda: self._sim.now,
            self._sim.note,
            in_words,
            self._members,
        )
        await supervisor.listen()
        self.supervisor = supervisor
        await supervisor.lead()
        await supervisor.ended.wait()

    async def _be_warden(self, process: Process) -> None:
        warden = Warden(
            MESH,
            process.name,
            process.name,
            self.endpoints,
            clock=process.clock,
            node=process.host.name,
            watch=self._witnesses.of(process),
        )
        warden.start()
        await warden.ended.wait()

    # --------------------------------------------------------------------------------------------- handlers

    def _spawn_handler(self, id_: str) -> asyncio.Future[None]:
        """Start its process; the future tells when it has offered itself, or fails as it did."""
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        process = self._sim.spawn(id_, partial(self._be_handler, started))
        process.on_exit.append(partial(self._handler_ended, started))
        return started

    def _handler_ended(self, started: asyncio.Future[None], process: Process) -> None:
        self._sim.note(process.name, f"pid {process.pid} is dead")
        if not started.done():
            started.set_exception(SetupError(f"{process.name} died before it had started"))
            started.exception()  # nobody may wait for it

    async def _be_handler(self, started: asyncio.Future[None], process: Process) -> None:
        sim, checks = self._sim, self._checks
        sim.note(process.name, f"pid {process.pid} starts")
        struck.set(self.struck)  # for its tasks
        process.context.run(struck.set, self.struck)  # for what arrives
        settings = NodeSettings(
            MESH,
            process.name,
            self.endpoints,
            self._plan.partitions,
            host=process.host.address,
            warden=process.name.replace("h-", "w-"),
            handling=HandlingConfig(cache_bytes=self._plan.cache_bytes),
        )
        node = Node(
            settings,
            Registry((*ENTITIES, Poison)),
            RedisStore(self.address, **_STORE_TIMES),
            process.clock,
            partial(open_inner, token="", mesh=MESH),
            hand_over=self._witnesses.hand_over,
        )
        self.nodes[process.name] = node
        who = f"{process.name} pid {process.pid}"
        watch_tables(who, node, checks, lambda: sim.now)
        watch_tenures(who, node, checks, lambda: sim.now)
        watch_commits(who, node, checks, lambda: sim.now, self._members)
        await node.start()
        if not started.done():
            started.set_result(None)
        await node.ended.wait()
        await node.stop()

    async def start_handler(self, id: str) -> None:
        """See Launcher: what Ray does, and as slowly."""
        before = self._sim.processes.get(id)
        if before is not None:
            before.kill()
        await asyncio.sleep(self._dice.uniform(0.1, 0.4))
        started = self._spawn_handler(id)
        process = self._sim.processes[id]
        try:
            await started
        except BaseException:
            process.kill()
            raise
