"""What a pinned connection and the nudger make of replies and errors; no server behind them."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.core.records import StoreStatus
from mesh.core.syncset import InSyncSet
from mesh.store.address import StoreAddress
from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.store.confirming import Seen
from mesh.store.nudge import Nudger
from mesh.store.pinned import PinnedConnection
from mesh.store.resp import Then, pack

MEMBER, OTHER = "10.0.0.1:1", "10.0.0.2:1"


CARRIED_OUT = [b"ok", InSyncSet(1, frozenset({MEMBER}), frozenset({OTHER})).encode(), 0, [0], b""]
WAIT_FOR_ONE = pack("ROLE") + pack("WAIT", 1, 50) + pack("ROLE")


class Scripted:
    """An open connection whose replies, and errors, are given beforehand."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.asked: list[bytes] = []
        self.closed = False

    def send(self, commands: bytes, due: int, within_s: float, then: Then) -> None:
        self.asked.append(commands)
        reply = self.script.pop(0)
        if isinstance(reply, Exception):
            raise reply
        then(reply)

    async def execute(self, *commands: bytes, within_s: float) -> list[Any]:
        replies: list[Any] = []
        self.send(b"".join(commands), len(commands), within_s, replies.extend)
        return replies

    async def ask(self, command: bytes) -> Any:
        await self.execute(command, within_s=1.0)

    def abort(self, why: str) -> None:
        self.closed = True


def role(member: int, other: int) -> list[Any]:
    links = [[b"10.0.0.1", b"1", b"%d" % member], [b"10.0.0.2", b"1", b"%d" % other]]
    return [b"master", 10, links]


def pinned(connection: Scripted) -> PinnedConnection:
    """Over that connection, which it opened before."""
    found = PinnedConnection(
        StoreAddress((("127.0.0.1", 1),), mesh="m"),
        Seen(50, sync_set=InSyncSet(1, frozenset({MEMBER}), frozenset({OTHER}))),
        life_key=b"life",
        tls=None,
        call_timeout_s=1.0,
        connect_timeout_s=1.0,
    )
    found._connection = connection
    return found


@pytest.mark.parametrize("executed", [False, None])
async def test_once_the_call_was_sent_a_lost_connection_leaves_it_open_whether_it_ran(executed):
    """The member was slower than the other link; while one link more is waited for, it breaks."""
    said = [role(10, 10), 1, role(5, 10)]
    broken = StoreUnreachable("it is closed", executed=executed)
    connection = Scripted([CARRIED_OUT], said, broken)
    with pytest.raises(StoreUnreachable) as raised:
        await pinned(connection).write(b"call", lambda written: written)
    assert raised.value.executed is None
    assert connection.asked[-1].startswith(pack("WAIT", 2, 50))


async def test_a_call_that_could_not_be_sent_was_not_carried_out():
    with pytest.raises(StoreUnreachable) as raised:
        await pinned(Scripted(StoreUnreachable("closed", executed=False))).write(
            b"call", lambda written: written
        )
    assert raised.value.executed is False


async def test_nothing_is_waited_for_before_a_connection_has_carried_a_call_out():
    """A WAIT behind a call of a life that is not open there would block the next call behind it."""
    closed, all_confirm = [[b"closed", b""]], [role(10, 10), 1, role(10, 10)]
    connection = Scripted(closed, [CARRIED_OUT], all_confirm, [CARRIED_OUT, *all_confirm])
    store = pinned(connection)
    first = await store.write(b"call", lambda written: written)
    assert first.status is StoreStatus.CLOSED
    assert (await store.write(b"call", lambda written: written)).acknowledged
    assert (await store.write(b"call", lambda written: written)).acknowledged
    assert connection.asked == [b"call", b"call", WAIT_FOR_ONE, b"call" + WAIT_FOR_ONE]


@pytest.mark.parametrize("executed", [False, None])
async def test_a_first_call_that_was_carried_out_is_not_called_unsent_where_its_waits_were(
    executed,
):
    connection = Scripted([CARRIED_OUT], StoreUnreachable("it is closed", executed=executed))
    with pytest.raises(StoreUnreachable) as raised:
        await pinned(connection).write(b"call", lambda written: written)
    assert raised.value.executed is None


async def test_a_first_call_is_waited_for_by_the_set_that_it_returned():
    larger = InSyncSet(2, frozenset({MEMBER, OTHER})).encode()
    reply = [b"ok", larger, 0, [0], b""]
    connection = Scripted([reply], [role(10, 10), 2, role(10, 10)])
    assert (await pinned(connection).write(b"call", lambda written: written)).acknowledged
    assert connection.asked[-1] == pack("ROLE") + pack("WAIT", 2, 50) + pack("ROLE")


@pytest.mark.parametrize("transient", [True, False])
async def test_only_a_refusal_that_stays_ends_the_nudging(transient):
    refused = StoreRefused("no", code="LOADING" if transient else "NOPERM", transient=transient)
    nudger = Nudger(Scripted(refused).ask, b"nudge", 1.0, lambda: None)
    await nudger._nudge()
    assert nudger._allowed is transient
