"""What the servers of the embedded store are asked: do they do yet what they were started for?

That a server listens says little. A node may still be loading its data, a replica be attached that confirms
nothing, a Sentinel not have heard of the others. So each is asked for what it will be needed for.
"""

from __future__ import annotations

from mesh.core.syncset import Role
from mesh.store.folder import HOST, NODES, SENTINELS
from mesh.store.resp import ask_once, pack

_PING_MS = 300
"""How often a Sentinel asks a node, and tries to connect to one. By default it is a second, and a node that
was just promoted may be down for it before it has been asked at all. Five times this is how old a
replica's INFO may be when one of them is chosen, and that comes once a second.
"""


class Readiness:
    """Asks servers by their ports, on a connection for each question. Whoever does not answer is not ready.

    Args:
        mesh: the name by which Sentinels know the store.
        password: of all servers.
        tilt_ms: how long a Sentinel that was itself paused does nothing.
    """

    def __init__(self, mesh: str, password: str, tilt_ms: int) -> None:
        self._mesh = mesh
        self._password = password
        self._tilt_ms = tilt_ms

    def __repr__(self) -> str:
        return f"Readiness({self._mesh})"

    async def answers(self, port: int) -> bool:
        """Whether a node takes commands."""
        replies = await self._ask(port, pack("EXISTS", "x"))
        return replies == [0]  # an error while it is still loading

    async def is_followed(self, port: int) -> bool:
        """Whether every replica confirms what the node at that port writes."""
        # That a replica is listed, even as online, does not mean that it confirms anything yet
        # (Valkey 9 loads what it was sent up to a second later). PUBLISH replicates and leaves no key.
        commands = (
            pack("PUBLISH", "raymesh", "start"),
            pack("WAIT", NODES - 1, 20),
            pack("ROLE"),
        )
        match await self._ask(port, *commands):
            case [int(), int(confirmed), list() as reply]:
                role = Role.from_reply(reply)
                return confirmed == NODES - 1 == len(role.links if role else ())
            case _:
                return False

    async def agrees(self, port: int) -> bool:
        """Whether a Sentinel sees all the others. It is told its periods along with it."""
        commands = (
            pack("SENTINEL", "CKQUORUM", self._mesh),
            # No lines of its configuration.
            pack("SENTINEL", "DEBUG", "tilt-period", self._tilt_ms, "ping-period", _PING_MS),
        )
        match await self._ask(port, *commands):
            case [bytes() as said, *_]:
                return b" %d usable" % SENTINELS in said
            case _:
                return False

    async def role(self, port: int) -> Role | None:
        """What a node says of itself; None of a replica and of one that does not answer."""
        replies = await self._ask(port, pack("ROLE"))
        reply = replies[0] if replies else None
        return Role.from_reply(reply) if isinstance(reply, list) else None

    async def _ask(self, port: int, *commands: bytes) -> list[object]:
        return await ask_once(HOST, port, *commands, password=self._password)
