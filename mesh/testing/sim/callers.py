"""The clients of a simulated mesh: those that make a plan's calls, and those that ask afterwards.

c-0 …      make the plan's calls
poisoner   makes the one that kills whoever runs it
prober     asks every partition, as soon as faults are over
judge      asks every key, once nothing else is under way
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from functools import partial
from typing import Any

from mesh.client.aio import AsyncClient
from mesh.core.keyspace import key_bytes, partition_of
from mesh.errors import MeshError
from mesh.methods import BuiltIn
from mesh.testing.history import ASKING, History
from mesh.testing.recorder import Recorder
from mesh.testing.sim.checks import Checks
from mesh.testing.sim.machines import MESH, UP_S, Machines
from mesh.testing.sim.plan import Plan, PlannedCall
from mesh.testing.sim.process import Process
from mesh.testing.sim.simulation import Simulation
from mesh.testing.sim.watching import watch_redirects, watch_tables

SETTLE_S = 20.0
"""Virtual seconds that the mesh has for answering everywhere once no fault is left."""
_AGAIN_S = 0.1


class Callers:
    """Those of one run.

    Args:
        sim: where they run.
        plan: what they call.
        machines: the mesh.
        checks: told of what they get to see.
        history: of their calls.

    Attributes:
        clients: that make the plan's calls, by name.
        askers: the others whose calls count.
        left: how many calls have not ended.
        answered: of each partition when it first answered after the faults.
        final: what each key holds at last, by (entity, key).
        silent: those that did not say, although the mesh had settled.
        poisoning: the call that kills is still to come, or under way.
    """

    def __init__(
        self, sim: Simulation, plan: Plan, machines: Machines, checks: Checks, history: History
    ) -> None:
        self.clients: dict[str, AsyncClient] = {}
        self.askers: list[AsyncClient] = []
        self.left = 0
        self.answered: dict[int, float | None] = {}
        self.final: dict[tuple[str, bytes], Any] = {}
        self.silent: dict[tuple[str, str], None] = {}
        self.poisoning = False
        self._sim = sim
        self._plan = plan
        self._machines = machines
        self._checks = checks
        self._history = history

    def __repr__(self) -> str:
        return f"<Callers, {self.left} calls left>"

    async def come_up(self) -> None:
        """Start those that make the plan's calls, which they do from now on."""
        loop = asyncio.get_running_loop()
        connected = [loop.create_future() for _ in range(self._plan.clients)]
        go = asyncio.Event()
        for number, ready in enumerate(connected):
            self._sim.spawn(f"c-{number}", partial(self._be_client, ready, go))
        await asyncio.gather(*connected)
        self._sim.note("world", "up")
        go.set()

    async def connect(self, process: Process) -> AsyncClient:
        """A client in that process."""
        sim = self._sim
        client = AsyncClient(self._machines.endpoints, mesh=MESH)
        client._clock = process.clock
        watch_tables(process.name, client, self._checks, lambda: sim.now)
        watch_redirects(process.name, client, self._checks, lambda: sim.now)
        await client.start(UP_S)
        return client

    async def _be_client(
        self, ready: asyncio.Future[None], go: asyncio.Event, process: Process
    ) -> None:
        client = self.clients[process.name] = await self.connect(process)
        ready.set_result(None)
        recorder = Recorder(client, self._history, process.name)
        mine = [call for call in self._plan.calls if call.client == process.name]
        mine.sort(key=lambda call: call.at)
        self.left += len(mine)
        await go.wait()
        start = self._sim.now
        calling: list[asyncio.Task[None]] = []
        for call in mine:
            if (pause_s := start + call.at - self._sim.now) > 0:
                await asyncio.sleep(pause_s)
            calling.append(process.loop.create_task(self._make(recorder, call)))
        await process.loop.create_future()

    async def _make(self, recorder: Recorder, call: PlannedCall) -> None:
        try:
            # No time-out where there is none to set: it would cost as much as the rest.
            async with (
                asyncio.timeout(call.cancel_s)
                if call.cancel_s is not None
                else contextlib.nullcontext()
            ):
                await _carry_out(recorder, call)
        except (MeshError, TimeoutError):
            pass  # it is in the history
        finally:
            self.left -= 1

    async def poison(self, process: Process) -> None:
        """Make the call that kills."""
        self.poisoning = True
        client = await self.connect(process)
        assert self._plan.poison_at is not None
        await asyncio.sleep(self._plan.poison_at)
        with contextlib.suppress(MeshError):
            await client.call("Poison.strike", "p", timeout=SETTLE_S)
        self.poisoning = False

    async def probe(self, process: Process) -> None:
        """Ask every partition."""
        client = await self.connect(process)
        self.askers.append(client)
        async with asyncio.TaskGroup() as group:
            for partition, key in one_each(self._plan.partitions).items():
                group.create_task(self.ask(client, partition, key))

    async def judge(self, process: Process) -> None:
        """Ask every key that the plan's calls were about."""
        places = dict.fromkeys(
            (call.method.partition(".")[0], call.key) for call in self._plan.calls
        )
        client = await self.connect(process)
        self.askers.append(client)
        await self.read_all(Recorder(client, self._history, process.name), places)

    async def read_all(self, recorder: Recorder, places: Iterable[tuple[str, str]]) -> None:
        """Ask those (entity, key), at once."""
        async with asyncio.TaskGroup() as group:
            for entity, key in places:
                group.create_task(self._read(recorder, entity, key))

    async def ask(self, client: AsyncClient, partition: int, key: str) -> None:
        """Whether that partition answers, and when. A call that was under way on two handlers that died is
        not sent to a third: it is another one then that asks.
        """
        until = self._sim.now + SETTLE_S
        while (left_s := until - self._sim.now) > 0:
            with contextlib.suppress(MeshError):
                await client.call("Register.read", key, timeout=left_s)
                self.answered[partition] = self._sim.now
                return
            await asyncio.sleep(_AGAIN_S)

    async def _read(self, recorder: Recorder, entity: str, key: str) -> None:
        self.silent[entity, key] = None
        with contextlib.suppress(MeshError):
            value = await recorder.call(f"{entity}.read", key, timeout=SETTLE_S)
            self.final[entity, key_bytes(key)] = value
            del self.silent[entity, key]


async def _carry_out(recorder: Recorder, call: PlannedCall) -> None:
    entity, _, method = call.method.partition(".")
    named = call.idempotency_key
    if method == BuiltIn.DELETE.value:
        await recorder.delete(entity, call.key, timeout=call.timeout, idempotency_key=named)
    elif method == BuiltIn.EXISTS.value:
        await recorder.exists(entity, call.key, timeout=call.timeout)
    elif method == ASKING:
        assert named is not None
        asked = f"{entity}.{call.args[0]}"
        await recorder.outcome(asked, call.key, named, timeout=call.timeout)
    else:
        await recorder.call(
            call.method, call.key, *call.args, timeout=call.timeout, idempotency_key=named
        )


def one_each(partitions: int) -> dict[int, str]:
    """A key for each partition."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < partitions:
        key = f"probe-{number}"
        found.setdefault(partition_of(key.encode(), partitions), key)
        number += 1
    return found
