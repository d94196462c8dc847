"""A scenario, played: its steps are taken one after the other in a World of the real code.

    result = play(read(path.read_text()))
    assert result.ok, result.report()

Between its steps nothing else goes wrong: delays are drawn from a seed, so a scenario should hold for each of
them. At its end the network is mended and whatever was stopped goes on; then every call has to end, the mesh
to settle, and all that a simulated mesh is checked for is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from mesh.client.prepared import DEFAULT_TIMEOUT_S
from mesh.core.keyspace import key_bytes, partition_of
from mesh.errors import MeshError
from mesh.testing.history import End, Operation, readable
from mesh.testing.history_text import Called, parse_call
from mesh.testing.recorder import Recorder
from mesh.testing.sim.callers import SETTLE_S, one_each
from mesh.testing.sim.meddling import Meddling
from mesh.testing.sim.plan import Plan
from mesh.testing.sim.process import Process
from mesh.testing.sim.result import Result
from mesh.testing.sim.script import Script, Step, event, names
from mesh.testing.sim.world import World

_PATIENCE_S = 30.0
"""Virtual seconds that a step waits for what it says."""
_POLL_S = 0.001
_END = re.compile(r" (?=(?:->|raised|not executed|unknown|cancelled)(?: |$))")
_ROLES = {"the store": "primary", "the primary": "primary"} | {
    "the supervisor": "leader",
    "the leader": "leader",
}
"""Of whoever has them when it is written of them."""
_WARDEN = "the warden of "


_Begun = tuple[int, asyncio.Task[None]]
"""A call whose end has not been told: which of its client's it is, and what makes it."""


class _Fails(Exception):
    """A step is not as it is written."""


def play(script: Script, seed: int = 1) -> Result:
    """Play a scenario once.

    Args:
        script: what happens.
        seed: of delays and identities.
    """
    return Stage(script, seed).run()


class Stage(World):
    """The world of one scenario.

    Args:
        script: what happens.
        seed: of delays and identities.
    """

    def __init__(self, script: Script, seed: int) -> None:
        size = script.size
        super().__init__(
            Plan(
                seed,
                (),
                (),
                handlers=size["handler"],
                clients=size["client"],
                replicas=size["replica"],
                partitions=size["partition"],
                length_s=0.0,
            )
        )
        self._script = script
        self._cast: dict[str, tuple[str, bytes]] = {}
        """Handlers by what they are called: the process's name, and the nonce of that run of it."""
        self._keys: dict[str, str] = {}
        """Keys that a scenario has named by where they are, as they are really called."""
        self._begun: dict[str, list[_Begun]] = {}
        self._started: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self._awaited: list[Step] = []
        """What was to be done as soon as something happens, which has not happened."""
        self._steps: dict[str, Callable[[dict[str, str]], Any]] = {
            "owns": self._owns,
            "another": self._another,
            "replaces": self._replaces,
            "given up": self._given_up,
            "pass": self._pass,
            "at": self._at,
            "begin": self._begin_call,
            "end": self._end_call,
            "running": self._still_running,
            "cancel": self._cancel,
            "call": self._call,
            "nothing": self._owns_nothing,
            "all ended": self._all_ended,
            "verdict": self._verdict,
            **Meddling(self.sim.network, self._process, self._hosts).steps,
        }

    async def _run(self) -> None:
        await self.come_up()
        for step in self._script.steps:
            self.note("scenario", step.text)
            try:
                await self._take(step)
            except _Fails as failed:
                what = "the scenario goes as it is written"
                self.checks.violated(self.sim.now, what, f"{step}: {failed}")
                return

    async def _take(self, step: Step) -> None:
        if step.verb == "as soon as":
            self._as_soon_as(step)
        elif step.verb == "until":
            await self._until_event(step)
        else:
            waiting = self._steps[step.verb](step.words)
            if waiting is not None:
                await waiting

    # ------------------------------------------------------------------------------------------ who is who

    def _process(self, name: str) -> Process:
        if name.startswith(_WARDEN):
            name = self._process(name.removeprefix(_WARDEN)).name.replace("h-", "w-")
        elif name in self._cast:
            name = self._cast[name][0]
        elif name in _ROLES:
            name = next(iter(self.machines.named(_ROLES[name])), name)
        elif re.fullmatch("[a-z]", name):
            name = f"c-{ord(name) - ord('a')}"
        process = self.sim.processes.get(name)
        if process is None:
            raise _Fails(f"there is no {name!r}; handlers are named by what they own")
        return process

    def _hosts(self, text: str) -> list[str]:
        if text == "everybody":
            return [host.name for host in self.sim.network.hosts.values()]
        if text == "the replicas":
            return self.machines.stores.replicas
        return [self._process(name).host.name for name in names(text)]

    def _owner(self, key: str) -> tuple[str, bytes]:
        """Of a key, as the leader's table has it: the process's name and nonce."""
        table = self.machines.table
        if table is None:
            raise _Fails("there is no table")
        row = table.owner(self._partition(key)).handler
        return row.id, row.nonce

    def _partition(self, quoted: str) -> int:
        key = quoted.strip("'")
        return partition_of(key_bytes(self._keys.get(key, key)), self.plan.partitions)

    def _given_up(self, words: dict[str, str]) -> None:
        name = words["key"].strip("'")
        node = self.machines.nodes[self._process(words["who"]).name]
        if not node._core._tenures.released:
            raise _Fails(f"{words['who']} has given up nothing")
        # The last one: whatever else is moved then begins with the first ones.
        partition = max(node._core._tenures.released)
        numbered = (f"{name}-{number}" for number in itertools.count())
        self._keys[name] = next(
            key
            for key in numbered
            if partition_of(key_bytes(key), self.plan.partitions) == partition
        )

    def _owns(self, words: dict[str, str]) -> None:
        owner = self._owner(words["key"])
        known = self._cast.setdefault(words["name"], owner)
        if known != owner:
            raise _Fails(f"{words['key']} belongs to {owner[0]}, and {words['name']} is {known[0]}")

    def _another(self, words: dict[str, str]) -> None:
        named = set(self._cast.values())
        others = [
            (id_, n.nonce) for id_, n in self.machines.nodes.items() if (id_, n.nonce) not in named
        ]
        if not others:
            raise _Fails(f"there is no handler that has no name yet; there are {self._cast}")
        self._cast[words["name"]] = others[0]

    async def _replaces(self, words: dict[str, str]) -> None:
        name, nonce = self._cast[words["who"]]

        def replaced() -> bool:
            node = self.machines.nodes.get(name)
            return node is not None and node.nonce != nonce and self._is_enrolled(node.nonce)

        await self._expect(replaced, f"{words['who']} was not replaced")
        self._cast[words["name"]] = name, self.machines.nodes[name].nonce

    def _is_enrolled(self, nonce: bytes) -> bool:
        table = self.machines.table
        return table is not None and table.row(nonce) is not None

    def _owns_nothing(self, words: dict[str, str]) -> None:
        table = self.machines.table
        held = table.partitions_of(self._cast[words["who"]][1]) if table is not None else []
        if held:
            raise _Fails(f"{words['who']} owns the partitions {held}")

    # ---------------------------------------------------------------------------------------- time, events

    async def _pass(self, words: dict[str, str]) -> None:
        await asyncio.sleep(float(words["s"]))

    async def _at(self, words: dict[str, str]) -> None:
        await asyncio.sleep(max(0.0, float(words["s"]) - self.sim.now))

    async def _expect(self, holds: Callable[[], bool], why: str) -> None:
        late = self.sim.now + _PATIENCE_S
        while not holds():
            if self.sim.now >= late:
                raise _Fails(f"{why} within {_PATIENCE_S:g} s")
            await asyncio.sleep(_POLL_S)

    async def _until_event(self, step: Step) -> None:
        name, words = event(step)
        if name == "moved":
            nonce = self._cast[words["who"]][1]
            moved = lambda: self._owner(words["key"])[1] != nonce  # noqa: E731
            await self._expect(moved, f"{words['key']} did not move")
        elif name == "dead":
            process = self._process(words["who"])
            await self._expect(lambda: not process.alive, f"{process.name} did not end")
        elif name == "settled":
            await self._expect(lambda: self.machines.ready, "something is still moving")
        else:
            happened: list[None] = []
            self._listen(name, words, lambda: happened.append(None))
            await self._expect(lambda: bool(happened), f"no {name} happened")

    def _as_soon_as(self, step: Step) -> None:
        name, words = event(step)

        self._awaited.append(step)

        def happens() -> None:
            self._awaited.remove(step)
            for inner in step.inner:
                self.note("scenario", inner.text)
                self._steps[inner.verb](inner.words)

        self._listen(name, words, happens)

    def _listen(self, name: str, words: dict[str, str], then: Callable[[], object]) -> None:
        """Call it once, when that happens next."""
        nonce = self._cast[words["who"]][1]
        store = self.machines.stores.primary
        if name == "commit":

            def committed(node: str, by: bytes, _tenures: object) -> None:
                if node == store and by == nonce:
                    self.checks.on_commit.remove(committed)
                    then()

            self.checks.on_commit.append(committed)
        elif name == "tell":
            partition = self._partition(words["key"])

            def granted(node: str, moved: int, _epoch: int, to: bytes) -> None:
                if node == store and moved == partition and to == nonce:
                    self.checks.on_grant.remove(granted)
                    then()

            self.checks.on_grant.append(granted)
        else:
            raise _Fails(f"{name} can be waited for, but nothing can be done as soon as it happens")

    # ----------------------------------------------------------------------------------------------- calls

    def _begin_call(self, words: dict[str, str]) -> None:
        self._start(words["client"], parse_call(words["call"]))

    def _start(self, who: str, called: Called) -> None:
        process = self._process(who)
        recorder = Recorder(self.callers.clients[process.name], self.history, who)
        timeout = min(called.timeout, DEFAULT_TIMEOUT_S)
        # In a step of the client's own, as all that it does is.
        task = self.sim.loop.create_task(
            _quietly(recorder, called._replace(key=self._key(called.key)), timeout),
            context=process.context.copy(),
        )
        self._tasks.append(task)
        self._begun.setdefault(who, []).append((self._started[who], task))
        self._started[who] += 1

    def _key(self, key: str | bytes) -> str | bytes:
        return self._keys.get(key, key) if isinstance(key, str) else key

    async def _end_call(self, words: dict[str, str]) -> None:
        await self._ends(words["client"], words["end"])

    async def _ends(self, who: str, wanted: str) -> None:
        index, task = self._oldest(who)
        await self._expect(task.done, f"{who}'s call did not end")
        self._begun[who].pop(0)
        operation = self._operation(who, index)
        if not any(operation.outcome.startswith(one) for one in wanted.split(" or ")):
            raise _Fails(f"it ended: {operation}")

    def _oldest(self, who: str) -> _Begun:
        begun = self._begun.get(who)
        if not begun:
            raise _Fails(f"{who} has begun no call whose end was not told")
        return begun[0]

    def _operation(self, who: str, index: int) -> Operation:
        return [o for o in self.history if o.client == who][index]

    def _still_running(self, words: dict[str, str]) -> None:
        index, task = self._oldest(words["client"])
        if task.done():
            raise _Fails(f"it has ended: {self._operation(words['client'], index)}")

    def _cancel(self, words: dict[str, str]) -> None:
        self._oldest(words["client"])[1].cancel()

    async def _call(self, words: dict[str, str]) -> None:
        text = words["call"]
        for found in _END.finditer(text):
            try:
                called = parse_call(text[: found.start()])
            except (ValueError, SyntaxError):
                continue
            if self._begun.get(words["client"]):
                raise _Fails(f"say first how {words['client']}'s last call ends")
            self._start(words["client"], called)
            await self._ends(words["client"], text[found.end() :])
            return
        raise _Fails("a call is written with its end: a: KV.get('k') -> 1")

    # ------------------------------------------------------------------------------------------- the end

    async def _all_ended(self, words: dict[str, str]) -> None:
        await self._expect(
            lambda: all(task.done() for task in self._tasks),
            f"{[str(o) for o in self.history if o.end is End.RUNNING]} did not end",
        )
        self._begun.clear()

    async def _verdict(self, words: dict[str, str]) -> None:
        if self._awaited:
            raise _Fails(f"this has not happened: {', '.join(map(str, self._awaited))}")
        self.faults.stop()
        stopped_at = self.sim.now
        await self._all_ended({})
        await self.machines.until(lambda: self.machines.ready, SETTLE_S)
        self.note("world", "settled")
        stats = {
            who: self.callers.clients[self._process(who).name].stats() for who in self._started
        }
        judge = self.sim.spawn("judge", self._judge)
        await self.machines.until(lambda: not judge.alive, SETTLE_S)
        self.say(stopped_at, stats)
        self.checks.were_told(self.sim.now, self.history)

    async def _judge(self, process: Process) -> None:
        """Ask every partition, and then every key that was called, once."""
        callers = self.callers
        client = await callers.connect(process)
        recorder = Recorder(client, self.history, process.name)
        places = dict.fromkeys((o.entity, str(readable(o.key))) for o in self.history)
        async with asyncio.TaskGroup() as group:
            for partition, key in one_each(self.plan.partitions).items():
                group.create_task(callers.ask(client, partition, key))
            group.create_task(callers.read_all(recorder, places))


async def _quietly(recorder: Recorder, called: Called, timeout: float) -> None:
    """Make the call; how it ends is in the history."""
    with contextlib.suppress(MeshError, asyncio.CancelledError):
        await recorder.call(
            called.name,
            called.key,
            *called.args,
            timeout=timeout,
            idempotency_key=called.idempotency_key,
            **called.kwargs,
        )
