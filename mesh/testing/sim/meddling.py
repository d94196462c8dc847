"""What a scenario does to processes and to the network, by the names of its steps (mesh.testing.sim.script).

None of it takes time, so it can be done in the very step in which something else happens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

from mesh.store.resp import connect, pack
from mesh.testing.sim.casting import Casting, Words
from mesh.testing.sim.machines import Machines
from mesh.testing.sim.process import Process
from mesh.testing.sim.script import RESTARTS
from mesh.testing.sim.simulation import Simulation

_AS_A_PRIMARY = "as a primary"
_PATIENCE_S = 5.0


class Meddling:
    """The steps by which things go wrong.

    Args:
        sim: what they happen to.
        machines: who starts again what was killed.
        cast: who is who.

    Attributes:
        steps: by verb, what is done with the words of a step.
    """

    def __init__(self, sim: Simulation, machines: Machines, cast: Casting) -> None:
        network = self._network = sim.network
        self._sim = sim
        self._machines = machines
        self._cast = cast
        self._orders = itertools.count()
        self.steps: dict[str, Callable[[Words], None]] = {
            "kill": self._kill,
            "start": self._start,
            "attach": cast.attach,
            "keep": self._keep,
            "promote": self._promote,
            "demote": self._demote,
            "pause": partial(self._each, Process.pause),
            "resume": partial(self._each, Process.resume),
            "starve": self._starve,
            "free": self._free,
            "cut": partial(self._between, network.cut),
            "hold": partial(self._between, network.block),
            "release": partial(self._between, network.unblock),
            "mend": self._mend,
            "break": self._break,
            "slow": self._slow,
        }

    def __repr__(self) -> str:
        return f"Meddling({self._network!r})"

    def _each(self, does: Callable[[Process], None], words: Words) -> None:
        for process in self._cast.processes(words["who"]):
            does(process)

    def _kill(self, words: Words) -> None:
        for process in self._cast.processes(words["who"]):
            self._machines.crash(process.name)

    def _start(self, words: Words) -> None:
        how = words["how"] or ""
        in_place = how.startswith(_AS_A_PRIMARY)
        left = how.removeprefix(_AS_A_PRIMARY).removeprefix(", ")
        for process in self._cast.processes(words["who"]):
            self._machines.start(
                process.name, RESTARTS[left or "its disk as it was"], in_place=in_place
            )

    def _keep(self, _words: Words) -> None:
        self._machines.stores.keep()

    def _promote(self, words: Words) -> None:
        for host in self._cast.hosts(words["who"]):
            self._order(host, "NO", "ONE")

    def _demote(self, words: Words) -> None:
        (primary,) = self._cast.processes(words["others"])
        host, port = self._machines.stores.address_of(primary.name)
        for name in self._cast.hosts(words["who"]):
            self._order(name, host, port)

    def _order(self, name: str, *whom: str | int) -> None:
        """REPLICAOF, as somebody says it at that node."""

        async def order(_process: Process) -> None:
            host, port = self._machines.stores.address_of(name)
            connection = await connect(host, port, within_s=_PATIENCE_S)
            await connection.execute(pack("REPLICAOF", *whom), within_s=_PATIENCE_S)
            connection.abort()

        self._sim.spawn(f"operator-{next(self._orders)}", order, host=name)

    def _starve(self, words: Words) -> None:
        self._cast.process(words["who"]).starve(float(words["s"]))

    def _free(self, words: Words) -> None:
        self._cast.process(words["who"]).starve(0.0)

    def _between(self, does: Callable[[list[str], list[str]], None], words: Words) -> None:
        does(*self._cast.between(words["who"], words["others"]))

    def _mend(self, _words: Words) -> None:
        self._network.heal()

    def _break(self, words: Words) -> None:
        for one in self._cast.processes(words["who"]):
            for other in self._cast.processes(words["others"]):
                for wire in list(self._network.between(one.name, other.name)):
                    self._network.reset(wire)

    def _slow(self, words: Words) -> None:
        some, others = self._cast.between(words["who"], words["others"])
        self._network.slow(some, others, float(words["s"]))
