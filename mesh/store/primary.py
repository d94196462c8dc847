"""Which of a store's nodes is the primary? Each is asked for its ROLE, on the connection that is
then used. Where the address names Sentinels, they say which nodes there are (mesh.store.sentinel).

Asking the nodes is faster than asking Sentinel (0.9 s against 1.75 s after a kill, facts.md), and
the connection that said "master" is the one that the calls go over: nothing can be re-routed in
between.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass

from mesh.core.syncset import InSyncSet, Role
from mesh.store.address import StoreAddress
from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.store.asking import ask_all
from mesh.store.refusal import ServerError, refusal
from mesh.store.resp import Connection, connect, pack
from mesh.store.sentinel import find_nodes

ROLE = pack("ROLE")

_MAY_WAIT = pack("WAIT", 0, 1)
"""Returns at once. Where the user may not WAIT, nothing would ever be acknowledged, and nobody told
why.
"""

_AGAIN_S = 0.02
SECOND_PRIMARY_S = 0.1
"""How long the other nodes have to object once one has said that it is the primary. A stopped node
must not cost every reconnection the whole time-out.
"""


@dataclass(frozen=True, slots=True)
class Primary:
    """An open connection to the primary, and what it said of itself.

    `sync_set` None: no life was ever opened there. `run_id`: of the process on which `life` was.
    """

    connection: Connection
    role: Role
    sync_set: InSyncSet | None
    life: int = 0
    run_id: str = ""


@dataclass(slots=True)
class _Answer:
    """One node's answer."""

    node: str
    name: str = ""
    """As its socket has it."""
    primary: Primary | None = None
    is_replica: bool = False
    problem: StoreUnreachable | StoreRefused | None = None

    def __str__(self) -> str:
        if self.primary:
            return f"{self.node} is a primary"
        return f"{self.node} is a replica" if self.is_replica else f"{self.problem}"


class NoPrimary(StoreUnreachable):
    """Nodes answered, and none is a primary."""


async def find_primary(
    address: StoreAddress,
    *,
    tls: ssl.SSLContext | None,
    life_key: bytes,
    within_s: float,
    preferred: str = "",
    life: int = 0,
) -> Primary:
    """Connect to the one node that says it is the primary.

    While some say that they are replicas they are asked again and again: one of them is about to be promoted.
    Once one has said that it is the primary each of the others is waited for until it has answered once.

    Args:
        preferred: name of the node that is taken at once if it says that it is the primary.
        life: that the caller was granted something in. Of several primaries it is the one on which that is
            open: a life that was opened and not acknowledged may have a higher number.

    Raises:
        NoPrimary: only replicas answered.
        StoreUnreachable: no node answered, or no Sentinel.
        StoreRefused: a node refused the login; or two say that they are primaries, and a life is open on
            none or on both (code SPLIT); or no Sentinel knows a master of that name (code NOMASTER).
    """
    nodes = address.nodes
    if not nodes and address.sentinels is not None:
        nodes = await find_nodes(address, tls=tls, within_s=within_s)
    seeking = _Seeking(address, tls, life_key, within_s)
    answers = await ask_all(
        (seeking.seek(host, port) for host, port in nodes),
        is_good=lambda answer: answer.primary is not None,
        is_best=lambda answer: answer.name == preferred,
        grace_s=SECOND_PRIMARY_S,
        drop=_drop,
    )
    return await _chosen(answers, preferred, life, within_s)


class _Seeking:
    """The same questions to several nodes."""

    def __init__(
        self, address: StoreAddress, tls: ssl.SSLContext | None, life_key: bytes, within_s: float
    ) -> None:
        self._address = address
        self._tls = tls
        self._within_s = within_s
        self._commands = (ROLE, pack("HMGET", life_key, "set", "number", "run_id"), _MAY_WAIT)
        self._until = asyncio.get_running_loop().time() + within_s
        self._any_replica = False
        self._found = asyncio.Event()

    async def seek(self, host: str, port: int) -> _Answer:
        """Ask until it says that it is the primary, or time is up, or it is clear that it will not be."""
        loop = asyncio.get_running_loop()
        connection: Connection | None = None
        primary: Primary | None = None
        try:
            while True:
                answer = _Answer(f"{host}:{port}")
                try:
                    if connection is None or connection.closed:
                        connection = await self._connected(host, port)
                    answer.name = connection.peer
                    left_s = max(0.001, self._until - loop.time())
                    replies = await connection.execute(*self._commands, within_s=left_s)
                    _read(answer, connection, *replies)
                except (StoreUnreachable, StoreRefused) as error:
                    answer.problem = error
                primary = answer.primary
                if primary:
                    self._found.set()
                self._any_replica = self._any_replica or answer.is_replica
                if primary or not self._any_replica or loop.time() + _AGAIN_S >= self._until:
                    return answer
                if isinstance(answer.problem, StoreRefused) and not answer.problem.transient:
                    return answer
                if await self._is_found_within(_AGAIN_S):
                    return answer
        finally:
            if connection is not None and primary is None:
                connection.abort()

    async def _is_found_within(self, seconds: float) -> bool:
        """Whether some node says that it is the primary: then the others are asked no more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._found.wait()
        return self._found.is_set()

    async def _connected(self, host: str, port: int) -> Connection:
        address = self._address
        return await connect(
            host,
            port,
            tls=self._tls,
            username=address.username,
            password=address.password,
            database=address.database,
            client_name=f"raymesh-{address.mesh}",
            within_s=self._within_s,
        )


def _drop(answer: _Answer) -> None:
    if answer.primary:
        answer.primary.connection.abort()


def _read(
    answer: _Answer, connection: Connection, said: object, life: object, waited: object
) -> None:
    if isinstance(said, ServerError):
        raise refusal(connection.name, said)
    role = Role.from_reply(said) if isinstance(said, list) else None
    if role is None:
        answer.is_replica = True
        return
    for reply in (life, waited):
        # Whatever else is wrong there is better said by the call itself, and so to its caller.
        if isinstance(reply, ServerError) and refusal("", reply).code == "NOPERM":
            raise refusal(connection.name, reply)
    answer.primary = Primary(connection, role, None)
    match life:
        case [bytes() as sync_set, bytes() as number, bytes() as run_id]:
            recorded = InSyncSet.decode(sync_set)
            answer.primary = Primary(connection, role, recorded, int(number), run_id.decode())


async def _chosen(answers: list[_Answer], preferred: str, life: int, within_s: float) -> Primary:
    said = "; ".join(str(answer) for answer in answers)
    primaries = [answer for answer in answers if answer.primary]
    chosen = await _leading(primaries, preferred, life, within_s)
    for answer in primaries:
        if answer.primary is not None and answer.primary is not chosen:
            answer.primary.connection.abort()
    if chosen is not None:
        return chosen
    if primaries:
        raise StoreRefused(
            f"more than one node says that it is the primary: {said}", code="SPLIT", transient=True
        )
    for answer in answers:
        if isinstance(answer.problem, StoreRefused):
            raise answer.problem
    if any(answer.is_replica for answer in answers):
        raise NoPrimary(f"no primary among the store's nodes: {said}", executed=False)
    raise StoreUnreachable(said, executed=False)


async def _leading(
    answers: list[_Answer], preferred: str, life: int, within_s: float
) -> Primary | None:
    """Of several primaries the one of the life that is asked for, else of the latest that is open: nobody may
    write to any other, and to an older one not with effect. None: that says nothing.
    """
    if len(answers) == 1:
        return answers[0].primary
    for answer in answers:
        if answer.name == preferred:
            return answer.primary
    primaries = [answer.primary for answer in answers if answer.primary]
    opened = [primary for primary in primaries if await _is_open(primary, within_s)]
    granted = [primary for primary in opened if primary.life == life]
    if granted:
        return granted[0]
    latest = max((primary.life for primary in opened), default=0)
    leading = [primary for primary in opened if primary.life == latest]
    return leading[0] if len(leading) == 1 else None


async def _is_open(primary: Primary, within_s: float) -> bool:
    try:
        (info,) = await primary.connection.execute(pack("INFO", "server"), within_s=within_s)
    except StoreUnreachable:
        return False
    run_id = f"run_id:{primary.run_id}".encode()
    return bool(primary.run_id) and isinstance(info, bytes) and run_id in info
