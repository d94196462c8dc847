"""Who is who in a scenario: handlers by what they own, supervisors and nodes of the store by their roles.

A name that a text gives stays with the one who had the role then; "the leader", "the primary" and "the store"
mean whoever has it when it is written of them. Clients are called a, b, c.
"""

from __future__ import annotations

import itertools
import re

from mesh.core.keyspace import key_bytes, partition_of
from mesh.testing.sim.machines import Machines
from mesh.testing.sim.process import Process
from mesh.testing.sim.script import names
from mesh.testing.sim.simulation import Simulation

Words = dict[str, str]

_ROLES = {
    "the store": "primary",
    "the primary": "primary",
    "the supervisor": "leader",
    "the leader": "leader",
}
_WARDEN = "the warden of "
_GROUPS = {
    "the replicas": "replicas",
    "the standbys": "standbys",
}
_OTHERS = "everybody else"


class Fails(Exception):
    """A step is not as it is written."""


class Casting:
    """Of one scenario.

    Args:
        sim: whose processes they are.
        machines: who does what there.
        partitions: of the mesh.

    Attributes:
        handlers: the process's name and the nonce of that run of it, by what a handler is called.
        parts: names of supervisors and nodes of the store, by what they are called.
    """

    def __init__(self, sim: Simulation, machines: Machines, partitions: int) -> None:
        self.handlers: dict[str, tuple[str, bytes]] = {}
        self.parts: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        """Keys that a scenario has named by where they are, as they are really called."""
        self._sim = sim
        self._machines = machines
        self._partitions = partitions

    def __repr__(self) -> str:
        return f"<Casting of {self._sim!r}>"

    def process(self, name: str) -> Process:
        """The one of that name.

        Raises:
            Fails: there is none.
        """
        if name.startswith(_WARDEN):
            name = self.process(name.removeprefix(_WARDEN)).name.replace("h-", "w-")
        elif name in self.handlers:
            name = self.handlers[name][0]
        elif name in self.parts:
            name = self.parts[name]
        elif name in _ROLES:
            name = next(iter(self._machines.named(_ROLES[name])), name)
        elif re.fullmatch("[a-z]", name):
            name = f"c-{ord(name) - ord('a')}"
        elif numbered := re.fullmatch(r"Sentinel (\d)", name):
            name = f"se-{int(numbered[1]) - 1}"
        process = self._sim.processes.get(name)
        if process is None:
            raise Fails(f"there is no {name!r}; handlers are named by what they own")
        return process

    def processes(self, text: str) -> list[Process]:
        """Those of "x", "x and y", "x, y and z"; "the replicas" may be among them."""
        found: list[Process] = []
        for name in names(text):
            group = _GROUPS.get(name)
            found += map(self.process, self._machines.named(group) if group else [name])
        return found

    def hosts(self, text: str) -> list[str]:
        """Names of the machines of those."""
        if text == "everybody":
            return [host.name for host in self._sim.network.hosts.values()]
        return list(dict.fromkeys(process.host.name for process in self.processes(text)))

    def between(self, who: str, others: str) -> tuple[list[str], list[str]]:
        """Machines of some, and of others, which may be "everybody else"."""
        some = self.hosts(who)
        if others == _OTHERS:
            return some, [name for name in self.hosts("everybody") if name not in some]
        return some, self.hosts(others)

    def nonce(self, name: str) -> bytes:
        """Of the run of a handler that was named so.

        Raises:
            Fails: none was.
        """
        if name not in self.handlers:
            raise Fails(f"no handler is called {name!r}; there are {list(self.handlers)}")
        return self.handlers[name][1]

    # ---------------------------------------------------------------------------------------- giving names

    def owner(self, key: str) -> tuple[str, bytes]:
        """Of a key, as the leader's table has it: the process's name and nonce."""
        table = self._machines.table
        if table is None:
            raise Fails("there is no table")
        row = table.owner(self.partition(key)).handler
        return row.id, row.nonce

    def owns(self, words: Words) -> None:
        """A handler is named, or known by its name."""
        owner = self.owner(words["key"])
        known = self.handlers.setdefault(words["name"], owner)
        if known != owner:
            raise Fails(f"{words['key']} belongs to {owner[0]}, and {words['name']} is {known[0]}")

    def another(self, words: Words) -> None:
        """A handler that has no name yet."""
        named = set(self.handlers.values())
        nodes = self._machines.nodes
        others = [(id_, n.nonce) for id_, n in nodes.items() if (id_, n.nonce) not in named]
        if not others:
            raise Fails(f"there is no handler that has no name yet; there are {self.handlers}")
        self.handlers[words["name"]] = others[0]

    def is_role(self, words: Words) -> None:
        """A supervisor or a node is named by what it is, or known by its name to be that."""
        name, role = words["name"], words["role"]
        found = self._machines.named(role)
        if not found:
            raise Fails(f"nobody is the {role}")
        known = self.parts.setdefault(name, found[0])
        if known != found[0]:
            raise Fails(f"{found[0]} is the {role}, and {name} is {known}")

    def is_one(self, words: Words) -> None:
        """One of several is named."""
        role = words["role"]
        named = set(self.parts.values())
        others = [name for name in self._machines.named(f"{role}s") if name not in named]
        if not others:
            raise Fails(f"there is no {role} that has no name yet; there are {self.parts}")
        self.parts[words["name"]] = others[0]

    def attach(self, words: Words) -> None:
        """A new node follows the primary; it gets a name."""
        stores = self._machines.stores
        name = self.parts[words["name"]] = f"db-{len(stores.nodes)}"
        stores.join(name)

    def enrolled(self, nonce: bytes) -> bool:
        """The leader's table has that process."""
        table = self._machines.table
        return table is not None and table.row(nonce) is not None

    def owns_nothing(self, words: Words) -> None:
        """A handler's share is empty."""
        table = self._machines.table
        held = table.partitions_of(self.nonce(words["who"])) if table is not None else []
        if held:
            raise Fails(f"{words['who']} owns the partitions {held}")

    def owns_so_many(self, words: Words) -> None:
        """A handler's share is of that size."""
        table = self._machines.table
        held = table.partitions_of(self.nonce(words["who"])) if table is not None else []
        if len(held) != int(words["number"]):
            raise Fails(f"{words['who']} owns {len(held)} partitions: {held}")

    def members(self) -> frozenset[str]:
        """Names of the nodes in the in-sync set that the primary has on record."""
        return self._machines.stores.recorded_members

    # ------------------------------------------------------------------------------------------------ keys

    def partition(self, quoted: str) -> int:
        """Of a key, as it is written."""
        key = quoted.strip("'")
        return partition_of(key_bytes(self._keys.get(key, key)), self._partitions)

    def key(self, key: str | bytes) -> str | bytes:
        """As it is really called."""
        return self._keys.get(key, key) if isinstance(key, str) else key

    def given_up(self, words: Words) -> None:
        """A key is named by the partition that somebody has released."""
        name = words["key"].strip("'")
        node = self._machines.nodes[self.process(words["who"]).name]
        if not node._core._tenures.released:
            raise Fails(f"{words['who']} has given up nothing")
        # The last one: whatever else is moved then begins with the first ones.
        partition = max(node._core._tenures.released)
        numbered = (f"{name}-{number}" for number in itertools.count())
        self._keys[name] = next(
            key for key in numbered if partition_of(key_bytes(key), self._partitions) == partition
        )
