"""Which of a store's nodes is the primary? Each is asked for its ROLE, on the connection that is
then used. Where the address names Sentinels, they say which nodes there are (mesh.store.sentinel).

Asking the nodes is faster than asking Sentinel (0.9 s against 1.75 s after a kill, facts.md), and
the connection that said "master" is the one that the calls go over: nothing can be re-routed in
between.
"""

from __future__ import annotations

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

SECOND_PRIMARY_S = 0.1
"""How long the other nodes have to object once one has said that it is the primary. A stopped node
must not cost every reconnection the whole time-out.
"""


@dataclass(frozen=True, slots=True)
class Primary:
    """An open connection to the primary, and what it said of itself.

    `sync_set` None: no life was ever opened there.
    """

    connection: Connection
    role: Role
    sync_set: InSyncSet | None


@dataclass(slots=True)
class _Answer:
    """One node's answer."""

    node: str
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
    address: StoreAddress, *, tls: ssl.SSLContext | None, life_key: bytes, within_s: float
) -> Primary:
    """Connect to the one node that says it is the primary.

    Raises:
        NoPrimary: only replicas answered.
        StoreUnreachable: no node answered, or no Sentinel.
        StoreRefused: a node refused the login; or two say that they are primaries (code SPLIT); or
            no Sentinel knows a master of that name (code NOMASTER).
    """
    commands = (ROLE, pack("HGET", life_key, "set"), _MAY_WAIT)

    async def ask(host: str, port: int) -> _Answer:
        answer = _Answer(f"{host}:{port}")
        connection = None
        try:
            connection = await connect(
                host,
                port,
                tls=tls,
                username=address.username,
                password=address.password,
                database=address.database,
                client_name=f"raymesh-{address.mesh}",
                within_s=within_s,
            )
            replies = await connection.execute(*commands, within_s=within_s)
            _read(answer, connection, *replies)
        except (StoreUnreachable, StoreRefused) as error:
            answer.problem = error
        finally:
            if connection is not None and answer.primary is None:
                connection.abort()
        return answer

    def drop(answer: _Answer) -> None:
        if answer.primary:
            answer.primary.connection.abort()

    nodes = address.nodes
    if address.sentinels is not None:
        nodes = await find_nodes(address, tls=tls, within_s=within_s)
    answers = await ask_all(
        (ask(host, port) for host, port in nodes),
        is_good=lambda answer: answer.primary is not None,
        grace_s=SECOND_PRIMARY_S,
        drop=drop,
    )
    return _chosen(answers)


def _read(
    answer: _Answer, connection: Connection, said: object, sync_set: object, waited: object
) -> None:
    if isinstance(said, ServerError):
        raise refusal(connection.name, said)
    role = Role.from_reply(said) if isinstance(said, list) else None
    if role is None:
        answer.is_replica = True
        return
    for reply in (sync_set, waited):
        # Whatever else is wrong there is better said by the call itself, and so to its caller.
        if isinstance(reply, ServerError) and refusal("", reply).code == "NOPERM":
            raise refusal(connection.name, reply)
    recorded = InSyncSet.decode(sync_set) if isinstance(sync_set, bytes) else None
    answer.primary = Primary(connection, role, recorded)


def _chosen(answers: list[_Answer]) -> Primary:
    said = "; ".join(str(answer) for answer in answers)
    primaries = [answer.primary for answer in answers if answer.primary]
    if len(primaries) == 1:
        return primaries[0]
    for primary in primaries:
        primary.connection.abort()
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
