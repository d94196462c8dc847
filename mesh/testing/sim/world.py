"""A whole mesh in one thread: real supervisor, wardens, handlers and clients, and what befalls them.

    result = simulate(7)                  # or simulate(plan): see mesh.testing.sim.plan
    assert result.ok, result.report()

    db-0 … db-2    the store's nodes (mesh.testing.sim.store), db-0 the primary at first
    s-0            the supervisor, which starts replacements by way of a launcher
    h-0 …          a host each, with the handler h-0 and its warden w-0
    c-0 …          clients that make the plan's calls; after them `prober`, which asks every partition
                   once faults are over, and `judge`, which asks every key at the end

A run has five parts: the mesh comes up; calls and faults, as planned; faults stop; every call ends and the
mesh settles; the judge reads everything, and the checks say what they think.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mesh.client.aio import AsyncClient
from mesh.client.inner import open_inner
from mesh.client.stats import ClientStats
from mesh.core.calling import MAX_DEATHS
from mesh.core.handling_config import HandlingConfig
from mesh.core.keyspace import key_bytes, partition_of
from mesh.entities import Registry
from mesh.errors import MeshError, SetupError
from mesh.node import Node, NodeSettings
from mesh.store.address import StoreAddress
from mesh.store.preparing import prepare
from mesh.store.redis import RedisStore
from mesh.supervisor import Supervisor, SupervisorSettings
from mesh.testing.history import End, History, Operation
from mesh.testing.models import AppendList, Counter, Register
from mesh.testing.recorder import Recorder
from mesh.testing.sim.checks import Checks, Violation
from mesh.testing.sim.faults import Faults
from mesh.testing.sim.loop import Stuck, current
from mesh.testing.sim.plan import Plan, PlannedCall, draw
from mesh.testing.sim.poison import Poison, struck
from mesh.testing.sim.process import Process
from mesh.testing.sim.simulation import Simulation, Trace, quiet_collector
from mesh.testing.sim.store.node import EMBEDDED, Disk, StoreNode
from mesh.testing.sim.watching import (
    StoreWatch,
    watch_commits,
    watch_redirects,
    watch_supervisor,
    watch_tables,
    watch_tenures,
)
from mesh.testing.sim.witness import Witnesses
from mesh.warden import Warden
from mesh.wording import in_words

MESH = "sim"
ENTITIES = (Register, Counter, AppendList)

_PORT = 7400
_STORE_PORT = 6379
_UP_S = 30.0
_SETTLE_S = 20.0
"""Virtual seconds that the mesh has for answering everywhere once no fault is left."""
_READY_S = 45.0
"""The same, for having replaced everyone: one that died before anybody knew of it is missed after 30 s
(SupervisionConfig.start_s).
"""
_CALL_BOUND_S = 1.0
_BEATEN_S = 2.0
"""In which every handler beats once more."""
_PATIENT_S = 5.0
_POLL_S = 0.01
_STORE_TIMES = {"wait_timeout_s": 0.2, "call_timeout_s": 2.0, "connect_timeout_s": 1.0}


@dataclass(slots=True)
class Result:
    """What became of a run.

    Attributes:
        violations: promises that were broken; none after a good run.
        trace: what happened.
        history: of all calls.
        digest: of every byte on the network: two runs of one plan have the same.
        lasted_s: virtual seconds.
        steps: of all processes.
        gave_up: keys whose history was too much to judge.
    """

    plan: Plan
    violations: list[Violation]
    trace: Trace
    history: History
    digest: int
    lasted_s: float
    steps: int
    gave_up: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """No promise was broken."""
        return not self.violations

    def report(self, *, traced: bool = True) -> str:
        """For people: what was broken, under which plan, and what had happened."""
        parts = [str(self.plan), *map(str, self.violations)]
        if traced:
            parts.append(str(self.trace))
        return "\n".join(parts)


def simulate(seed_or_plan: int | Plan, **drawn: Any) -> Result:
    """Run one mesh from its beginning to its end.

    Args:
        seed_or_plan: a seed, of which the plan is drawn too, or a plan.
        drawn: what the plan of a seed is to have; see mesh.testing.sim.plan.draw.
    """
    plan = draw(seed_or_plan, **drawn) if isinstance(seed_or_plan, int) else seed_or_plan
    with quiet_collector():
        return World(plan).run()


def sweep(seeds: Iterable[int], **drawn: Any) -> Iterator[Result]:
    """Run one seed after the other.

    Args:
        seeds: of each run.
        drawn: what their plans are to have; see mesh.testing.sim.plan.draw.
    """
    return (simulate(seed, **drawn) for seed in seeds)


class World:
    """One run.

    Args:
        plan: what it is put through.
        observers: called with each line of the trace when it is written.
    """

    def __init__(
        self, plan: Plan, observers: Sequence[Callable[[float, str, object], None]] = ()
    ) -> None:
        self.plan = plan
        self.sim = Simulation(plan.seed)
        self.checks = Checks(plan.partitions)
        self.note = self.sim.note
        self.sim.observers += observers
        self.history = _TracedHistory(lambda: self.sim.now, self.note)
        self.store: dict[str, StoreNode] = {}
        self.nodes: dict[str, Node] = {}
        """Handlers that live, by id."""
        self.clients: dict[str, AsyncClient] = {}
        self.supervisor: Supervisor | None = None
        self._dice = self.sim.dice("world")
        self._store_dice = self.sim.dice("store")
        self._witnesses = Witnesses(self.sim.dice("proofs"))
        self._faults = Faults(self.sim, self._join)
        self._left = 0
        self._answered: dict[int, float | None] = {}
        self._final: dict[tuple[str, bytes], Any] = {}
        self._struck: list[int] = []
        self._poisons = False
        self._askers: list[AsyncClient] = []
        network = self.sim.network
        names = [f"db-{i}" for i in range(1 + plan.replicas)]
        nodes = tuple((network.host(name).address, _STORE_PORT) for name in names)
        self.address = StoreAddress(nodes, MESH)
        self._endpoint = f"{network.host('s-0').address}:{_PORT}"

    def __repr__(self) -> str:
        return f"<World of {self.sim!r}>"

    def run(self) -> Result:
        """From the beginning to the end."""
        sim, checks = self.sim, self.checks
        with _logged(self.note), sim:
            try:
                sim.run(self._run())
            except (Stuck, SetupError, TimeoutError) as error:
                checks.violated(sim.now, "the mesh settles", f"{type(error).__name__}: {error}")
            for told in sim.unhandled:
                name = getattr(told.get("process"), "name", "nobody")
                checks.violated(sim.now, "no step fails", f"{name}: {_failure(told)}")
        return Result(
            self.plan,
            checks.violations,
            sim.trace,
            self.history,
            sim.network.digest,
            sim.now,
            sim.loop.steps,
            checks.gave_up,
        )

    # ----------------------------------------------------------------- the parts

    async def _run(self) -> None:
        await self._come_up()
        start = self.sim.now
        for fault in self.plan.faults:
            self._faults.schedule(fault, start)
        if self.plan.poison_at is not None:
            self._poisons = True
            self.sim.spawn("poisoner", self._poison)
        await asyncio.sleep(self.plan.length_s * 1.1)
        self._faults.stop()
        stopped_at = self.sim.now
        prober = self.sim.spawn("prober", self._probe)
        bound = max((call.timeout for call in self.plan.calls), default=0.0) + _CALL_BOUND_S
        await self._until(lambda: not self._left, bound)
        await self._until(lambda: not prober.alive, _SETTLE_S)
        await self._until(lambda: not self._poisons, _SETTLE_S)
        await self._until(lambda: self._is_ready, _READY_S)
        await self._until(lambda: not self._astray(), _SETTLE_S)
        if not self._is_ready:
            why = f"{_READY_S:g} s after the last fault and call it still is not ready"
            self.checks.violated(self.sim.now, "the mesh settles", why)
        self.note("world", "settled")
        stats = {name: client.stats() for name, client in self.clients.items()}
        judge = self.sim.spawn("judge", self._judge)
        await self._until(lambda: not judge.alive, _SETTLE_S)
        if self._is_undisturbed:
            await asyncio.sleep(_BEATEN_S)
        self._say(stopped_at, stats)

    def _say(self, stopped_at: float, stats: dict[str, ClientStats]) -> None:
        """What the checks think of it."""
        now, checks, history = self.sim.now, self.checks, self.history
        checks.calls_ended(now, history, _CALL_BOUND_S + self._stopped_s())
        for name, counted in stats.items():
            checks.client_counts(now, name, history, counted)
        everybody = [*stats.values(), *(client.stats() for client in self._askers)]
        checks.counts_add_up(now, everybody, undisturbed=self._is_undisturbed)
        checks.owners_answer(now, stopped_at, _SETTLE_S, self._answered)
        if len(self._struck) > MAX_DEATHS:
            why = f"it has killed processes {self._struck}"
            checks.violated(now, f"a call that killed {MAX_DEATHS} goes to no other", why)
        for line in self._astray():
            checks.violated(now, "every client learns who owns what", line)
        # Of keys on which nobody has repeated a call of his own: the search judges the others.
        repeated = {(o.entity, o.key) for o in history if o.idempotency_key is not None}
        final = {place: value for place, value in self._final.items() if place not in repeated}
        checks.nothing_lost_or_doubled(now, history, final)
        checks.linearizable(now, history, *ENTITIES)
        checks.were_told(now, history)

    @property
    def _is_undisturbed(self) -> bool:
        """Nothing happens to any call: no fault, and no caller that gives it up or repeats it. Of a script,
        whose calls and meddling are in no plan, nobody knows.
        """
        calls = self.plan.calls
        patient = (
            call.cancel_s is None and call.idempotency_key is None and call.timeout >= _PATIENT_S
            for call in calls
        )
        return bool(calls) and not self.plan.faults and all(patient)

    def _astray(self) -> list[str]:
        """Clients that take another process for a partition's owner than the leader does."""
        core = self.supervisor.core if self.supervisor is not None else None
        table = core.table if core is not None else None
        if table is None:
            return []
        lines: list[str] = []
        for name, client in self.clients.items():
            for partition in range(len(table)):
                known, owner = client._core.owner(partition), table.owner(partition)
                if known is None or known.epoch != owner.epoch:
                    lines.append(f"{name} takes {known} for the owner of {partition}, not {owner}")
        return lines

    def _stopped_s(self) -> float:
        """How long clients themselves could not look at their clocks, or these went too slowly."""
        stops = ("pause", "starve", "clock")
        faults = (f for f in self.plan.faults if f.kind in stops and f.who[0].startswith("c-"))
        return sum(fault.for_s for fault in faults)

    async def _until(self, holds: Callable[[], bool], within_s: float) -> None:
        """Wait for it; what does not come is for the checks to judge."""
        late = self.sim.now + within_s
        while not holds() and self.sim.now < late:  # noqa: ASYNC110 - virtual
            await asyncio.sleep(_POLL_S)

    @property
    def _is_ready(self) -> bool:
        core = self.supervisor.core if self.supervisor is not None else None
        return core is not None and core.ready

    # ------------------------------------------------------------------ coming up

    async def _come_up(self) -> None:
        sim, plan = self.sim, self.plan
        for name in [f"db-{i}" for i in range(1 + plan.replicas)]:
            sim.spawn(name, partial(self._be_store, name))
        bringing = sim.spawn("up", self._prepare, host="s-0")
        await self._until(lambda: not bringing.alive, _UP_S)
        sim.spawn("s-0", self._be_supervisor)
        for number in range(plan.handlers):
            host = f"h-{number}"
            sim.spawn(f"w-{number}", self._be_warden, host=host)
        await self._until(lambda: self.supervisor is not None, _UP_S)
        for number in range(plan.handlers):
            _ = self._spawn_handler(f"h-{number}")
        await self._until(lambda: self._is_ready, _UP_S)
        if not self._is_ready:
            raise SetupError(f"the mesh did not come up within {_UP_S:g} s")
        connected = [asyncio.get_running_loop().create_future() for _ in range(plan.clients)]
        go = asyncio.Event()
        for number, ready in enumerate(connected):
            sim.spawn(f"c-{number}", partial(self._be_client, ready, go))
        await asyncio.gather(*connected)
        self.note("world", "up")
        go.set()

    async def _prepare(self, process: Process) -> None:
        while True:
            try:
                prepared = await prepare(
                    self.address, partitions=self.plan.partitions, **_STORE_TIMES
                )
            except SetupError as error:
                self.note(process.name, f"the store is not ready: {error}")
            else:
                if prepared.replicas == self.plan.replicas:
                    return
            await asyncio.sleep(_POLL_S)

    async def _be_store(self, name: str, process: Process) -> None:
        first = self.address.nodes[0]
        is_first = (process.host.address, _STORE_PORT) == first
        node = StoreNode(
            Disk(), self._store_dice, settings=EMBEDDED, primary=None if is_first else first
        )
        await node.start(process.host.address, _STORE_PORT)
        self.store[name] = node
        StoreWatch(name, node.server, self.checks, lambda: self.sim.now, self.note)
        await process.loop.create_future()

    def _join(self, name: str) -> None:
        """A replica that is no member of the in-sync set attaches itself to the primary."""
        if name not in self.sim.processes:
            self.sim.spawn(name, partial(self._be_store, name))

    def _members(self) -> dict[str, int]:
        """How much of the primary's stream each member of the in-sync set has."""
        names = [f"db-{i}" for i in range(1, 1 + self.plan.replicas)]
        return {name: self.store[name].server.stream.offset for name in names}

    async def _be_supervisor(self, process: Process) -> None:
        settings = SupervisorSettings(
            MESH,
            process.name,
            tuple(f"h-{i}" for i in range(self.plan.handlers)),
            self.plan.partitions,
            host=process.host.address,
            port=_PORT,
            replicas=self.plan.replicas,
        )
        supervisor = Supervisor(
            settings, RedisStore(self.address, **_STORE_TIMES), self, process.clock
        )
        watch_supervisor(
            process.name,
            supervisor,
            self.checks,
            lambda: self.sim.now,
            self.note,
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
            (self._endpoint,),
            clock=process.clock,
            node=process.host.name,
            watch=self._witnesses.of(process),
        )
        warden.start()
        await warden.ended.wait()

    def _spawn_handler(self, id_: str) -> asyncio.Future[None]:
        """Start its process; the future tells when it has offered itself, or fails as it did."""
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        process = self.sim.spawn(id_, partial(self._be_handler, started))
        process.on_exit.append(partial(self._handler_ended, started))
        return started

    def _handler_ended(self, started: asyncio.Future[None], process: Process) -> None:
        self.note(process.name, f"pid {process.pid} is dead")
        if not started.done():
            started.set_exception(SetupError(f"{process.name} died before it had started"))
            started.exception()  # nobody may wait for it

    async def _be_handler(self, started: asyncio.Future[None], process: Process) -> None:
        self.note(process.name, f"pid {process.pid} starts")
        struck.set(self._struck)  # for its tasks
        process.context.run(struck.set, self._struck)  # for what arrives
        settings = NodeSettings(
            MESH,
            process.name,
            (self._endpoint,),
            self.plan.partitions,
            host=process.host.address,
            warden=process.name.replace("h-", "w-"),
            handling=HandlingConfig(cache_bytes=self.plan.cache_bytes),
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
        watch_tables(who, node, self.checks, lambda: self.sim.now)
        watch_tenures(who, node, self.checks, lambda: self.sim.now)
        watch_commits(who, node, self.checks, lambda: self.sim.now, self._members)
        await node.start()
        if not started.done():
            started.set_result(None)
        await node.ended.wait()
        await node.stop()

    async def start_handler(self, id: str) -> None:
        """See Launcher: what Ray does, and as slowly."""
        before = self.sim.processes.get(id)
        if before is not None:
            before.kill()
        await asyncio.sleep(self._dice.uniform(0.1, 0.4))
        started = self._spawn_handler(id)
        process = self.sim.processes[id]
        try:
            await started
        except BaseException:
            process.kill()
            raise

    # -------------------------------------------------------------------- clients

    async def _be_client(
        self, ready: asyncio.Future[None], go: asyncio.Event, process: Process
    ) -> None:
        client = self.clients[process.name] = await self._connect(process)
        ready.set_result(None)
        recorder = Recorder(client, self.history, process.name)
        mine = [call for call in self.plan.calls if call.client == process.name]
        mine.sort(key=lambda call: call.at)
        self._left += len(mine)
        await go.wait()
        start = self.sim.now
        calling: list[asyncio.Task[None]] = []
        for call in mine:
            await asyncio.sleep(start + call.at - self.sim.now)
            calling.append(process.loop.create_task(self._make(recorder, call)))
        await process.loop.create_future()

    async def _connect(self, process: Process) -> AsyncClient:
        client = AsyncClient((self._endpoint,), mesh=MESH)
        client._clock = process.clock
        watch_tables(process.name, client, self.checks, lambda: self.sim.now)
        watch_redirects(process.name, client, self.checks, lambda: self.sim.now)
        await client.start(_UP_S)
        return client

    async def _make(self, recorder: Recorder, call: PlannedCall) -> None:
        try:
            # No time-out where there is none to set: it would cost as much as the rest.
            async with (
                asyncio.timeout(call.cancel_s)
                if call.cancel_s is not None
                else contextlib.nullcontext()
            ):
                await recorder.call(
                    call.method,
                    call.key,
                    *call.args,
                    timeout=call.timeout,
                    idempotency_key=call.idempotency_key,
                )
        except (MeshError, TimeoutError):
            pass  # it is in the history
        finally:
            self._left -= 1

    async def _poison(self, process: Process) -> None:
        """Make the call that kills."""
        client = await self._connect(process)
        assert self.plan.poison_at is not None
        await asyncio.sleep(self.plan.poison_at)
        with contextlib.suppress(MeshError):
            await client.call("Poison.strike", "p", timeout=_SETTLE_S)
        self._poisons = False

    async def _probe(self, process: Process) -> None:
        """Ask every partition, as soon as faults are over."""
        client = await self._connect(process)
        self._askers.append(client)
        async with asyncio.TaskGroup() as group:
            for partition, key in _one_each(self.plan.partitions).items():
                group.create_task(self._ask(client, partition, key))

    async def _judge(self, process: Process) -> None:
        """Ask every key, once nothing else is under way."""
        client = await self._connect(process)
        self._askers.append(client)
        recorder = Recorder(client, self.history, process.name)
        places = dict.fromkeys(
            (call.method.partition(".")[0], call.key) for call in self.plan.calls
        )
        async with asyncio.TaskGroup() as group:
            for entity, key in places:
                group.create_task(self._read(recorder, entity, key))

    async def _ask(self, client: AsyncClient, partition: int, key: str) -> None:
        with contextlib.suppress(MeshError):
            await client.call("Register.read", key, timeout=_SETTLE_S)
            self._answered[partition] = self.sim.now

    async def _read(self, recorder: Recorder, entity: str, key: str) -> None:
        with contextlib.suppress(MeshError):
            value = await recorder.call(f"{entity}.read", key, timeout=_SETTLE_S)
            self._final[entity, key_bytes(key)] = value


class _TracedHistory(History):
    """Its operations are in the trace, too."""

    def __init__(self, now: Callable[[], float], note: Callable[[str, object], None]) -> None:
        super().__init__(now)
        self._note = note

    def begin(self, *args: Any, **kwargs: Any) -> Operation:
        operation = super().begin(*args, **kwargs)
        self._note(operation.client, _Begun(operation))
        return operation

    def finish(self, operation: Operation, end: End) -> None:
        super().finish(operation, end)
        self._note(operation.client, operation)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A line of the trace, written down when somebody reads it."""

    operation: Operation

    def __str__(self) -> str:
        return f"#{self.operation.number} {self.operation.call} ..."


class _LogNotes(logging.Handler):
    """Puts what the mesh logs into the trace, under the process that logs it."""

    def __init__(self, note: Callable[[str, object], None]) -> None:
        super().__init__(logging.WARNING)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        process = current.get()
        who = process.name if isinstance(process, Process) else "log"
        words = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            words += f": {record.exc_info[1]!r}"
        self._note(who, f"logs: {words}")


@contextlib.contextmanager
def _logged(note: Callable[[str, object], None]) -> Iterator[None]:
    logger = logging.getLogger("mesh")
    handler = _LogNotes(note)
    propagates = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


def _failure(told: dict[str, Any]) -> str:
    error = told.get("exception")
    if error is None:
        return str(told["message"])
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{f.name} ({Path(f.filename).name}:{f.lineno})" for f in reversed(frames))
    return f"{error!r} in {where}; {told['message']}"


def _one_each(partitions: int) -> dict[int, str]:
    """A key for each partition."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < partitions:
        key = f"probe-{number}"
        found.setdefault(partition_of(key.encode(), partitions), key)
        number += 1
    return found
