"""What a scenario does to processes and to the network, by the names of its steps (mesh.testing.sim.script).

None of it takes time, so it can be done in the very step in which something else happens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mesh.testing.sim.network import Network
from mesh.testing.sim.process import Process
from mesh.testing.sim.script import names

Words = dict[str, str]


class Meddling:
    """The steps by which things go wrong.

    Args:
        network: between all of them.
        process: the one of that name.
        hosts: names of the machines of those that a text names.

    Attributes:
        steps: by verb, what is done with the words of a step.
    """

    def __init__(
        self,
        network: Network,
        process: Callable[[str], Process],
        hosts: Callable[[str], list[str]],
    ) -> None:
        self._network = network
        self._process = process
        self._hosts = hosts
        self.steps: dict[str, Callable[[Words], None]] = {
            "kill": partial(self._each, Process.kill),
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
        for name in names(words["who"]):
            does(self._process(name))

    def _starve(self, words: Words) -> None:
        self._process(words["who"]).starve(float(words["s"]))

    def _free(self, words: Words) -> None:
        self._process(words["who"]).starve(0.0)

    def _between(self, does: Callable[[list[str], list[str]], None], words: Words) -> None:
        does(self._hosts(words["who"]), self._hosts(words["others"]))

    def _mend(self, _words: Words) -> None:
        self._network.heal()

    def _break(self, words: Words) -> None:
        for one in names(words["who"]):
            for other in names(words["others"]):
                ends = self._process(one).name, self._process(other).name
                for wire in list(self._network.between(*ends)):
                    self._network.reset(wire)

    def _slow(self, words: Words) -> None:
        one, other = self._hosts(words["who"]), self._hosts(words["others"])
        self._network.slow(one, other, float(words["s"]))
