"""Which nodes does a store have? Its Sentinels are asked each time the primary is looked for.

They are asked for the nodes and for nothing else: the old primary and every replica that they know.
Which of these is the primary is then asked of the nodes themselves (mesh.store.primary), since
Sentinel learns of a promotion later than the promoted node does (0.9 s against 1.75 s after a kill,
facts.md). So an answer that is out of date does no harm, and one Sentinel's is enough.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field

from mesh.errors import SetupError
from mesh.store.address import Nodes, Sentinels, StoreAddress
from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.store.asking import ask_all
from mesh.store.refusal import ServerError, refusal
from mesh.store.resp import Connection, connect, pack

_GRACE_S = 0.1
"""How long the other Sentinels have once one has named the nodes: it may be one that was cut off."""


@dataclass(slots=True)
class _Answer:
    """What one Sentinel said."""

    sentinel: str
    nodes: Nodes = ()
    quorum: str = ""
    """Its verdict, empty where a failover can be had."""
    watches: list[str] = field(default_factory=list)
    """Names of the masters that it does know, where it does not know ours."""
    problem: StoreUnreachable | StoreRefused | None = None


async def find_nodes(
    address: StoreAddress, *, tls: ssl.SSLContext | None, within_s: float
) -> Nodes:
    """Every node that any Sentinel names for the store; the one that it holds for the primary first.

    Raises:
        StoreUnreachable: no Sentinel answered.
        StoreRefused: none that answered knows a master of that name (code NOMASTER); or they did
            not accept the login.
    """
    assert address.sentinels is not None
    answers = await _ask(address, address.sentinels, tls, within_s)
    return tuple(dict.fromkeys(node for answer in answers for node in answer.nodes))


async def check_quorum(address: StoreAddress, *, within_s: float = 1.0) -> None:
    """Refuse Sentinels that could not agree on a failover; for the start of a mesh.

    Raises:
        SetupError: they are too few, by their own word.
        StoreUnreachable, StoreRefused: as `find_nodes`.
    """
    assert address.sentinels is not None
    tls = address.tls.context() if address.tls else None
    answers = await _ask(address, address.sentinels, tls, within_s)
    named = [answer for answer in answers if answer.nodes]
    if all(answer.quorum for answer in named):
        said = "; ".join(f"{answer.sentinel}: {answer.quorum}" for answer in named)
        raise SetupError(
            f"the Sentinels of master {address.sentinels.master!r} are too few to fail over, start the "
            f"missing ones: {said}"
        )


async def _ask(
    address: StoreAddress, sentinels: Sentinels, tls: ssl.SSLContext | None, within_s: float
) -> list[_Answer]:
    answers = await ask_all(
        (_ask_one(address, sentinels, node, tls, within_s) for node in sentinels.nodes),
        is_good=lambda answer: bool(answer.nodes),
        grace_s=_GRACE_S,
    )
    if any(answer.nodes for answer in answers):
        return answers
    watched = [f"{a.sentinel} watches {a.watches or 'none'}" for a in answers if a.problem is None]
    if watched:
        raise StoreRefused(
            f"no Sentinel watches a master named {sentinels.master!r}: {'; '.join(watched)}; the name "
            f"stands behind the addresses: redis+sentinel://HOST:PORT/MASTER",
            code="NOMASTER",
            transient=False,
        )
    for answer in answers:
        if isinstance(answer.problem, StoreRefused):
            raise answer.problem
    said = "; ".join(str(answer.problem) for answer in answers)
    raise StoreUnreachable(
        f"no Sentinel of master {sentinels.master!r} answered: {said}", executed=False
    )


async def _ask_one(
    address: StoreAddress,
    sentinels: Sentinels,
    node: tuple[str, int],
    tls: ssl.SSLContext | None,
    within_s: float,
) -> _Answer:
    answer = _Answer(f"{node[0]}:{node[1]}")
    connection = None
    try:
        # One limit for all of it: logging in may take two attempts.
        async with asyncio.timeout(within_s):
            connection = await _log_in(address, sentinels, node, tls, within_s)
            replies = await connection.execute(
                pack("SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinels.master),
                pack("SENTINEL", "REPLICAS", sentinels.master),
                pack("SENTINEL", "CKQUORUM", sentinels.master),
                pack("SENTINEL", "MASTERS"),
                within_s=within_s,
            )
        _read(answer, *replies)
    except TimeoutError:
        answer.problem = StoreUnreachable(
            f"store {answer.sentinel}: no answer within {within_s:g} s", executed=False
        )
    except (StoreUnreachable, StoreRefused) as error:
        answer.problem = error
    finally:
        if connection is not None:
            connection.abort()
    return answer


async def _log_in(
    address: StoreAddress,
    sentinels: Sentinels,
    node: tuple[str, int],
    tls: ssl.SSLContext | None,
    within_s: float,
) -> Connection:
    """With a login of their own if there is one, else with the store's, else without any.

    Most set-ups give Sentinels the store's password or none; only a separate one has to be written.
    """

    async def attempt(username: str | None, password: str | None) -> Connection:
        return await connect(
            *node,
            tls=tls,
            username=username,
            password=password,
            client_name=f"raymesh-{address.mesh}",
            within_s=within_s,
        )

    if sentinels.password is not None:
        return await attempt(sentinels.username, sentinels.password)
    try:
        return await attempt(address.username, address.password)
    except StoreRefused as error:
        if error.code != "WRONGPASS":
            raise
    return await attempt(None, None)


def _read(answer: _Answer, primary: object, replicas: object, quorum: object, all_: object) -> None:
    if isinstance(primary, ServerError):
        if "unknown command" in str(primary):
            raise StoreRefused(
                f"{answer.sentinel} is no Sentinel; the store's own nodes are named with redis://",
                code="NOSENTINEL",
                transient=False,
            )
        if primary.code == "NOAUTH":
            raise StoreRefused(
                f"Sentinel {answer.sentinel} does not accept the store's login: name its own with "
                f"?sentinel_username=USER&sentinel_password=PASSWORD behind the address ({primary})",
                code=primary.code,
                transient=False,
            )
        raise refusal(answer.sentinel, primary)
    if isinstance(quorum, ServerError):
        answer.quorum = str(quorum)
    match primary:
        case [bytes() as host, bytes() as port] if port.isdigit():
            answer.nodes = ((host.decode(), int(port)), *_nodes(replicas))
        case _:
            answer.watches = [row.get(b"name", b"").decode() for row in _rows(all_)]


def _nodes(replicas: object) -> Nodes:
    rows = ((row.get(b"ip", b""), row.get(b"port", b"")) for row in _rows(replicas))
    return tuple((host.decode(), int(port)) for host, port in rows if host and port.isdigit())


def _rows(reply: object) -> list[dict[bytes, bytes]]:
    """A list of lists of field, value, field, value, …; an error has none."""
    rows = reply if isinstance(reply, list) else []
    return [dict(zip(row[::2], row[1::2], strict=False)) for row in rows if isinstance(row, list)]
