"""Faults, carried out: each begins at its time, and ends after its own; `stop` ends them all.

They belong to no process. What is under way in the mesh never learns of them but by what it suffers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from mesh.testing.sim.checks import Checks
from mesh.testing.sim.machines import Machines
from mesh.testing.sim.plan import EVERYBODY, Fault
from mesh.testing.sim.process import Process
from mesh.testing.sim.simulation import Simulation


class Faults:
    """Those of one run.

    Args:
        sim: what they happen to.
        machines: who plays which role there, and who starts again what has crashed.
        checks: hear what the store carries out.
    """

    def __init__(self, sim: Simulation, machines: Machines, checks: Checks) -> None:
        self._sim = sim
        self._machines = machines
        self._moments: dict[str, list[Any]] = {
            "commit": checks.on_commit,
            "takeover": checks.on_grant,
            "set": checks.on_set,
        }
        self._over = False
        self._blocked: list[Fault] = []
        self._chop = sim.network.chop
        self._begin: dict[str, Callable[[Fault], object]] = {
            "kill": self._kill,
            "crash": self._crash,
            "last words": self._last_words,
            "pause": self._pause,
            "pause replica": self._pause,
            "join": self._joins,
            "starve": self._starve,
            "drop": self._drop,
            "give up": self._give_up,
            "slow": self._slow,
            "cut": self._cut,
            "cut one way": self._cut,
            "clock": self._clock,
            "chop": self._cut_packets,
        }

    def __repr__(self) -> str:
        return f"<Faults of {self._sim!r}>"

    def schedule(self, fault: Fault, start: float) -> None:
        """Have it happen.

        Args:
            start: virtual time from which its own is counted.
        """
        self._sim.loop.kernel_at(start + fault.at, partial(self._happen, fault))

    def stop(self) -> None:
        """No fault any more: ways are free, processes run, those that crashed too, clocks go straight."""
        self._over = True
        self._blocked.clear()
        network = self._sim.network
        network.heal()
        network.chop = self._chop
        for process in self._sim.processes.values():
            self._straighten(process)
            process.starve(0.0)
            process.resume()
        self._machines.start_everybody()
        self._sim.note("faults", "are over")

    def _happen(self, fault: Fault) -> None:
        if not fault.moment:
            self._begins(fault)
            return
        hearing = self._moments[fault.moment]

        def happens(*_told: object) -> None:
            hearing.remove(happens)
            self._begins(fault)

        hearing.append(happens)

    def _begins(self, fault: Fault) -> None:
        if not self._over:
            self._sim.note("faults", str(fault))
            self._begin[fault.kind](self._meant(fault))

    def _later(self, fault: Fault, end: Callable[[], object]) -> None:
        def ended() -> None:
            if not self._over:
                self._sim.note("faults", f"over: {fault}")
                end()

        self._sim.loop.kernel_later(fault.for_s, ended)

    def _meant(self, fault: Fault) -> Fault:
        """With the names of those who have its roles just now."""
        named = self._machines.named
        who = tuple(name for role in fault.who for name in named(role))
        others = tuple(name for role in fault.others for name in named(role))
        if others == (EVERYBODY,):
            hosts = self._sim.network.hosts.values()
            others = tuple(host.name for host in hosts if host.name not in who)
        return replace(fault, who=who, others=others)

    def _living(self, fault: Fault) -> list[Process]:
        """Whom it concerns, as far as there are such processes just now."""
        found = map(self._sim.processes.get, fault.who)
        return [process for process in found if process is not None and process.alive]

    def _process(self, fault: Fault) -> Process | None:
        """The one whom it concerns, if there is such a process just now."""
        living = self._living(fault)
        return living[0] if living else None

    def _kill(self, fault: Fault) -> None:
        process = self._process(fault)
        if process is not None:
            process.kill()

    def _crash(self, fault: Fault) -> None:
        crashed = [process.name for process in self._living(fault)]
        for name in crashed:
            self._machines.crash(name)

        def start() -> None:
            for name in crashed:
                self._machines.start(name, fault.left, in_place=fault.in_place)

        self._later(fault, start)

    def _last_words(self, fault: Fault) -> None:
        slow = self._sim.network.slow
        slow(fault.who, fault.others, fault.amount)

        def die() -> None:
            self._kill(fault)
            slow(fault.who, fault.others, 0.0)

        self._later(fault, die)

    def _pause(self, fault: Fault) -> None:
        stopped = self._living(fault)
        for process in stopped:
            process.pause()

        def resume() -> None:
            for process in stopped:
                process.resume()

        self._later(fault, resume)

    def _joins(self, fault: Fault) -> None:
        self._machines.stores.join(fault.who[0])

    def _starve(self, fault: Fault) -> None:
        process = self._process(fault)
        if process is not None:
            process.starve(fault.amount)
            self._later(fault, partial(process.starve, 0.0))

    def _clock(self, fault: Fault) -> None:
        process = self._process(fault)
        if process is not None:
            process.clock.skew(rate=fault.amount)
            self._later(fault, partial(self._straighten, process))

    @staticmethod
    def _straighten(process: Process) -> None:
        if process.skewed:
            process.clock.skew(rate=1.0)

    def _drop(self, fault: Fault) -> None:
        network = self._sim.network
        ends = {*fault.who, *fault.others}
        for wire in list(network.wires):
            if {wire.forth.source.name, wire.forth.target.name} == ends:
                network.reset(wire)

    def _give_up(self, fault: Fault) -> None:
        network = self._sim.network
        network.slow(fault.who, fault.others, fault.amount)

        def give_up() -> None:
            network.slow(fault.who, fault.others, 0.0)
            ends = {*fault.who, *fault.others}
            for wire in list(network.wires):
                if {wire.forth.source.name, wire.forth.target.name} == ends:
                    network.give_up(wire, fault.who[0])

        self._later(fault, give_up)

    def _slow(self, fault: Fault) -> None:
        slow = self._sim.network.slow
        slow(fault.who, fault.others, fault.amount)
        self._later(fault, partial(slow, fault.who, fault.others, 0.0))

    def _cut(self, fault: Fault) -> None:
        self._blocked.append(fault)
        self._block(fault)
        self._later(fault, partial(self._mend, fault))

    def _block(self, fault: Fault) -> None:
        network = self._sim.network
        network.block(fault.who, fault.others)
        if fault.kind == "cut":
            network.block(fault.others, fault.who)

    def _mend(self, fault: Fault) -> None:
        """Free its ways, but not those that another one blocks too."""
        self._blocked.remove(fault)
        network = self._sim.network
        network.unblock(fault.who, fault.others)
        if fault.kind == "cut":
            network.unblock(fault.others, fault.who)
        for other in self._blocked:
            self._block(other)

    def _cut_packets(self, fault: Fault) -> None:
        network = self._sim.network
        network.chop = fault.amount
        self._later(fault, partial(setattr, network, "chop", self._chop))
