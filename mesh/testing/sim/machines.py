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
from mesh.core.leadership import LeadershipConfig
from mesh.core.supervision import Supervision
from mesh.core.table import Table
from mesh.core.timing import Timing
from mesh.entities import Registry
from mesh.errors import SetupError
from mesh.heart import TaskHeart
from mesh.node import Node
from mesh.node_settings import NodeSettings
from mesh.supervisor import Supervisor, SupervisorSettings
from mesh.testing.models import AppendList, Counter, Register
from mesh.testing.sim.checks import Checks
from mesh.testing.sim.plan import Left, Plan
from mesh.testing.sim.poison import Poison, struck
from mesh.testing.sim.process import Process
from mesh.testing.sim.simulation import Simulation
from mesh.testing.sim.stores import Stores
from mesh.testing.sim.watching import (
    watch_commits,
    watch_grants,
    watch_leader,
    watch_queries,
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
START_S = 3.0
"""That a handler's process may take: ten times what it does. One that dies before anybody knows of it is
missed only then, and all the while a run costs what it costs.
"""
POLL_S = 0.01

_PORT = 7400


class Machines:
    """Those of one run; a `mesh.supervisor.Launcher`, too.

    Args:
        sim: where they run.
        plan: how many there are.
        checks: told what they do.

    Attributes:
        stores: the store.
        nodes: handlers that live, by id.
        supervisors: that listen or did, by name.
        endpoints: where clients, handlers and wardens find supervisors.
        struck: pids of processes that a call has killed.
    """

    def __init__(self, sim: Simulation, plan: Plan, checks: Checks) -> None:
        self.stores = Stores(sim, plan, checks, MESH)
        self.nodes: dict[str, Node] = {}
        self.supervisors: dict[str, Supervisor] = {}
        self.struck: list[int] = []
        self._sim = sim
        self._plan = plan
        self._checks = checks
        self._dice = sim.dice("world")
        self._witnesses = Witnesses(sim.dice("proofs"))
        network = sim.network
        self._judges = [f"s-{i}" for i in range(plan.supervisors)]
        self.endpoints = tuple(f"{network.host(s).address}:{_PORT}" for s in self._judges)

    def __repr__(self) -> str:
        return f"<Machines of {self._sim!r}>"

    @property
    def leader(self) -> str | None:
        """Which supervisor leads; of several that mean to, the one with the highest token."""
        tokens = {
            name: supervisor.core.token
            for name, supervisor in self.supervisors.items()
            if supervisor.core is not None and self._sim.processes[name].alive
        }
        return max(tokens, key=tokens.__getitem__) if tokens else None

    @property
    def standbys(self) -> list[str]:
        """The other supervisors that live."""
        leader, processes = self.leader, self._sim.processes
        return [name for name in self._judges if name != leader and processes[name].alive]

    @property
    def core(self) -> Supervision | None:
        """The leader's brain."""
        return self.supervisors[self.leader].core if self.leader is not None else None

    @property
    def table(self) -> Table | None:
        """The leader's."""
        core = self.core
        return core.table if core is not None else None

    @property
    def ready(self) -> bool:
        """There is a leader, and nothing is left for it to do."""
        core = self.core
        return core is not None and core.ready

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
        self.stores.come_up()
        bringing = sim.spawn("up", self.stores.prepare, host="s-0")
        await self.until(lambda: not bringing.alive, UP_S)
        for name in self._judges:
            sim.spawn(name, self._be_supervisor)
        for number in range(plan.handlers):
            self._spawn_warden(f"w-{number}")
        await self.until(lambda: len(self.supervisors) == len(self._judges), UP_S)
        for number in range(plan.handlers):
            _ = self._spawn_handler(f"h-{number}")
        await self.until(lambda: self.ready, UP_S)
        if not self.ready:
            raise SetupError(f"the mesh did not come up within {UP_S:g} s")

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
            start_s=START_S,
            durability="replicated" if self._plan.replicas else "fsynced",
            leadership=LeadershipConfig(rank=self._judges.index(process.name)),
            timing=Timing() if self._plan.watched else None,
        )
        supervisor = Supervisor(settings, self.stores.access(), self, process.clock)
        watch_supervisor(
            process.name,
            supervisor,
            self._checks,
            lambda: self._sim.now,
            self._sim.note,
            in_words,
        )
        watch_leader(
            process.name, supervisor, self._checks, lambda: self._sim.now, self.stores.members
        )
        await supervisor.listen()
        first = process.name == self._judges[0] and process.name not in self.supervisors
        self.supervisors[process.name] = supervisor
        supervisor.meet(self.endpoints)
        await (supervisor.lead() if first else supervisor.stand_by())
        await supervisor.ended.wait()

    def _spawn_warden(self, name: str) -> None:
        self._sim.spawn(name, self._be_warden, host=name.replace("w-", "h-"))

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

    # -------------------------------------------------------------------------------------- starting again

    def start(self, name: str, left: Left = "intact", *, in_place: bool = False) -> None:
        """Start a dead process again, as whoever looks after it does; handlers are the leader's business.

        Args:
            name: of it.
            left, in_place: of a node of the store; see Stores.start.
        """
        if name.startswith(("db-", "se-")):
            self.stores.start(name, left, in_place=in_place)
        elif not self._sim.processes[name].alive:
            if name.startswith("w-"):
                self._spawn_warden(name)
            elif name in self._judges:
                self._sim.spawn(name, self._be_supervisor)

    def crash(self, name: str) -> None:
        """Kill a process that `start` can start again."""
        self.stores.killed(name)
        self._sim.processes[name].kill()

    def start_everybody(self) -> None:
        """Whoever is dead."""
        for name, process in list(self._sim.processes.items()):
            if not process.alive:
                self.start(name)

    def named(self, role: str) -> list[str]:
        """Whom a role means just now; a name means itself."""
        match role:
            case "primary":
                return [self.stores.primary]
            case "replicas":
                return self.stores.replicas
            case "leader":
                return [self.leader] if self.leader is not None else []
            case "standbys":
                return self.standbys
        return [role]

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
            handling=HandlingConfig(
                cache_bytes=self._plan.cache_bytes, replicas=self._plan.replicas
            ),
        )
        node = Node(
            settings,
            Registry((*ENTITIES, Poison)),
            self.stores.access(),
            process.clock,
            partial(open_inner, token="", mesh=MESH),
            hand_over=self._witnesses.hand_over,
            heart=TaskHeart,
        )
        self.nodes[process.name] = node
        who = f"{process.name} pid {process.pid}"
        watch_tables(who, node, checks, lambda: sim.now)
        watch_tenures(who, node, checks, lambda: sim.now)
        watch_grants(who, node, checks, lambda: sim.now)
        watch_queries(who, node, checks, lambda: sim.now)
        watch_commits(who, node, checks, lambda: sim.now, self.stores.members)
        try:
            await node.start()
        except SetupError as error:
            sim.note(process.name, f"does not start: {error}")
            return  # and its process ends
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
