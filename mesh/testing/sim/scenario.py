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
import math
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from mesh.client.prepared import DEFAULT_TIMEOUT_S
from mesh.errors import MeshError
from mesh.testing.history import End, Operation, readable
from mesh.testing.history_text import Called, parse_call
from mesh.testing.recorder import Recorder
from mesh.testing.sim.callers import SETTLE_S, one_each
from mesh.testing.sim.casting import Casting, Fails, Words
from mesh.testing.sim.meddling import Meddling
from mesh.testing.sim.occasions import Occasions
from mesh.testing.sim.plan import Plan
from mesh.testing.sim.process import Process
from mesh.testing.sim.result import Result
from mesh.testing.sim.script import Script, Step, event, names
from mesh.testing.sim.world import World

_LOSS = "a loss is reported"
_PATIENCE_S = 30.0
"""Virtual seconds that a step waits for what it says."""
_POLL_S = 0.001
_END = re.compile(r" (?=(?:->|raised|not executed|unknown|cancelled)(?: |$))")
_Begun = tuple[int, asyncio.Task[None]]
"""A call whose end has not been told: which of its client's it is, and what makes it."""


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
                supervisors=size["supervisor"],
                sentinels=size["Sentinel"],
                partitions=size["partition"],
                length_s=0.0,
                synced=script.synced,
                watched=script.watched,
            )
        )
        self._script = script
        cast = self._cast = Casting(self.sim, self.machines, self.plan.partitions)
        self._occasions = Occasions(self.checks, self.machines, cast)
        self._begun: dict[str, list[_Begun]] = {}
        self._started: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self._loading: set[str] = set()
        self._awaited: list[Step] = []
        """What was to be done as soon as something happens, which has not happened."""
        self._steps: dict[str, Callable[[Words], Any]] = {
            "owns": cast.owns,
            "another": cast.another,
            "is": cast.is_role,
            "is one": cast.is_one,
            "replaces": self._replaces,
            "given up": cast.given_up,
            "pass": self._pass,
            "at": self._at,
            "begin": self._begin_call,
            "end": self._end_call,
            "running": self._still_running,
            "ended": self._has_ended,
            "cancel": self._cancel,
            "call": self._call,
            "load": self._load,
            "quiet": self._quiet,
            "nothing": cast.owns_nothing,
            "share": cast.owns_so_many,
            "set": self._check_set,
            "loss": partial(self._check_loss, said=True),
            "no loss": partial(self._check_loss, said=False),
            "all ended": self._all_ended,
            "verdict": self._verdict,
            **Meddling(self.sim, self.machines, cast).steps,
        }
        self._states: dict[str, Callable[[Words], bool]] = {
            "moved": self._moved,
            "dead": self._dead,
            "settled": lambda _words: self.machines.ready,
            "promoted": self._promoted,
            "led": self._led,
            "set": self._set_is,
            "loss": self._lossy,
        }
        """What can be waited for until it is so."""

    async def _run(self) -> None:
        await self.come_up()
        for step in self._script.steps:
            self.note("scenario", step.text)
            try:
                await self._take(step)
            except Fails as failed:
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

    # ---------------------------------------------------------------------------------------- time, events

    async def _replaces(self, words: Words) -> None:
        cast, nodes = self._cast, self.machines.nodes
        name, nonce = cast.handlers[words["who"]]

        def replaced() -> bool:
            node = nodes.get(name)
            return node is not None and node.nonce != nonce and cast.enrolled(node.nonce)

        await self._expect(replaced, f"{words['who']} was not replaced")
        cast.handlers[words["name"]] = name, nodes[name].nonce

    async def _pass(self, words: Words) -> None:
        await asyncio.sleep(float(words["s"]))

    async def _at(self, words: Words) -> None:
        await asyncio.sleep(max(0.0, float(words["s"]) - self.sim.now))

    async def _expect(self, holds: Callable[[], bool], why: str) -> None:
        late = self.sim.now + _PATIENCE_S
        while not holds():
            if self.sim.now >= late:
                raise Fails(f"{why} within {_PATIENCE_S:g} s")
            await asyncio.sleep(_POLL_S)

    async def _until_event(self, step: Step) -> None:
        name, words = event(step)
        state = self._states.get(name)
        if state is not None:
            await self._expect(lambda: state(words), f"it was not so that {step.words['event']}")
            return
        happened: list[None] = []
        self._occasions.listen(name, words, lambda: happened.append(None))
        await self._expect(lambda: bool(happened), f"no {name} happened")

    def _as_soon_as(self, step: Step) -> None:
        name, words = event(step)

        self._awaited.append(step)

        def happens() -> None:
            self._awaited.remove(step)
            for inner in step.inner:
                self.note("scenario", inner.text)
                self._steps[inner.verb](inner.words)

        self._occasions.listen(name, words, happens)

    # --------------------------------------------------------------------------------------- what is so now

    def _moved(self, words: Words) -> bool:
        return self._cast.owner(words["key"])[1] != self._cast.nonce(words["who"])

    def _dead(self, words: Words) -> bool:
        return not self._cast.process(words["who"]).alive

    def _promoted(self, words: Words) -> bool:
        return self.machines.stores.primary == self._cast.process(words["who"]).name

    def _led(self, words: Words) -> bool:
        leader = self.machines.leader
        return leader is not None and leader != self._cast.process(words["who"]).name

    def _set_is(self, words: Words) -> bool:
        wanted = {process.name for process in self._cast.processes(words["members"])}
        return self._cast.members() == wanted

    def _check_set(self, words: Words) -> None:
        if not self._set_is(words):
            raise Fails(f"it is {sorted(self._cast.members())}")

    def _lossy(self, _words: Words) -> bool:
        return bool(self.checks.losses)

    def _check_loss(self, _words: Words, *, said: bool) -> None:
        if bool(self.checks.losses) != said:
            raise Fails(f"this was reported: {self.checks.losses}")

    # ----------------------------------------------------------------------------------------------- calls

    def _begin_call(self, words: Words) -> None:
        self._start(words["client"], parse_call(words["call"]))

    def _start(self, who: str, called: Called) -> None:
        process = self._cast.process(who)
        recorder = Recorder(self.callers.clients[process.name], self.history, who)
        timeout = min(called.timeout, DEFAULT_TIMEOUT_S)
        # In a step of the client's own, as all that it does is.
        task = self.sim.loop.create_task(
            _quietly(recorder, called._replace(key=self._cast.key(called.key)), timeout),
            context=process.context.copy(),
        )
        self._tasks.append(task)
        self._begun.setdefault(who, []).append((self._started[who], task))
        self._started[who] += 1

    def _load(self, words: Words) -> None:
        for who in names(words["who"]):
            self._loading.add(who)
            process = self._cast.process(who)
            work = self._call_on_and_on(who, float(words["s"]))
            task = self.sim.loop.create_task(work, context=process.context.copy())
            self._tasks.append(task)

    async def _call_on_and_on(self, who: str, each_s: float) -> None:
        recorder = Recorder(self.callers.clients[self._cast.process(who).name], self.history, who)
        keys = [f"{who}-{number}" for number in range(2 * self.plan.partitions)]
        for key in itertools.cycle(keys):
            if who not in self._loading:
                return
            self._started[who] += 1
            called = Called("Counter.incr", key, (), {}, math.inf, None)
            await _quietly(recorder, called, DEFAULT_TIMEOUT_S)
            await asyncio.sleep(each_s)

    def _quiet(self, words: Words) -> None:
        self._loading -= set(names(words["who"]))

    async def _end_call(self, words: Words) -> None:
        await self._ends(words["client"], words["end"])

    async def _ends(self, who: str, wanted: str) -> None:
        index, task = self._oldest(who)
        await self._expect(task.done, f"{who}'s call did not end")
        self._begun[who].pop(0)
        operation = self._operation(who, index)
        if not any(operation.outcome.startswith(one) for one in wanted.split(" or ")):
            raise Fails(f"it ended: {operation}")

    def _oldest(self, who: str) -> _Begun:
        begun = self._begun.get(who)
        if not begun:
            raise Fails(f"{who} has begun no call whose end was not told")
        return begun[0]

    def _operation(self, who: str, index: int) -> Operation:
        return [o for o in self.history if o.client == who][index]

    def _still_running(self, words: Words) -> None:
        index, task = self._oldest(words["client"])
        if task.done():
            raise Fails(f"it has ended: {self._operation(words['client'], index)}")

    def _has_ended(self, words: Words) -> None:
        _, task = self._oldest(words["client"])
        if not task.done():
            raise Fails(f"{words['client']}'s call has not ended")

    def _cancel(self, words: Words) -> None:
        self._oldest(words["client"])[1].cancel()

    async def _call(self, words: Words) -> None:
        text = words["call"]
        for found in _END.finditer(text):
            try:
                called = parse_call(text[: found.start()])
            except (ValueError, SyntaxError):
                continue
            if self._begun.get(words["client"]):
                raise Fails(f"say first how {words['client']}'s last call ends")
            self._start(words["client"], called)
            await self._ends(words["client"], text[found.end() :])
            return
        raise Fails("a call is written with its end: a: KV.get('k') -> 1")

    # ------------------------------------------------------------------------------------------- the end

    async def _all_ended(self, words: Words) -> None:
        await self._expect(
            lambda: all(task.done() for task in self._tasks),
            f"{[str(o) for o in self.history if o.end is End.RUNNING]} did not end",
        )
        self._begun.clear()

    @property
    def may_lose(self) -> bool:
        """See World; it is written in the script."""
        return any(step.verb == "loss" or _LOSS in step.text for step in self._script.steps)

    async def _verdict(self, words: Words) -> None:
        if self._awaited:
            raise Fails(f"this has not happened: {', '.join(map(str, self._awaited))}")
        self.faults.stop()
        self._loading.clear()
        stopped_at = self.sim.now
        await self._all_ended({})
        await self.machines.until(lambda: self.machines.ready, SETTLE_S)
        self.note("world", "settled")
        stats = {
            who: self.callers.clients[self._cast.process(who).name].stats() for who in self._started
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
