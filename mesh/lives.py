"""A leader's way into the store: the first life is opened, a later leader bids for the one that is open.

Nothing here is believed before it is acknowledged: whoever leads by a token that is not replicated is
deposed by the next failover, and would not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from mesh.core.records import (
    Bid,
    Life,
    Moves,
    OpenLife,
    Recorded,
    StoreStatus,
    Takeover,
    TakeoverReply,
)
from mesh.core.syncset import Durability, InSyncSet
from mesh.errors import SetupError
from mesh.ids import new_operation
from mesh.net.clock import SYSTEM, Clock
from mesh.store.api import Store, StoreRefused, StoreUnreachable

_PAUSE_S = 0.05

Within = Callable[[], bool]
"""Whether there is time left."""


class Outbid(SetupError):
    """Another supervisor has the lead, or is about to: go on as a standby."""


@dataclass(frozen=True, slots=True)
class LivesConfig:
    """What a life of this mesh has to be like.

    Attributes:
        mesh: the mesh's name, for messages.
        partitions: number of its partitions.
        replicas: how many of the store's replicas have to be attached before the first life is opened.
        durability: what an acknowledgement stands for.
        open_s: seconds that the store has for being ready.
    """

    mesh: str
    partitions: int
    replicas: int = 2
    durability: Durability = "replicated"
    open_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Opened:
    """The lead in a life, acknowledged.

    Attributes:
        life: its number.
        token: the leader's; whoever has a lower one is refused.
        sync_set: who acknowledges.
        recorded: what the leaders before have left: table, plans, grants.
        versions: of each active grant.
    """

    life: int
    token: int
    sync_set: InSyncSet
    recorded: Recorded
    versions: dict[bytes, int]


class Lives:
    """Opens lives, and takes the lead in them.

    Args:
        store: this supervisor's access to the store.
        config: see LivesConfig.
        clock: what time-outs are told by.
    """

    def __init__(self, store: Store, config: LivesConfig, clock: Clock = SYSTEM) -> None:
        self._store = store
        self._config = config
        self._clock = clock

    async def open_first(self, *, end_grants: bool = False) -> Opened:
        """Open a life when a mesh is brought up: the first one, or the next behind those of an earlier up.

        Args:
            end_grants: revoke those of earlier processes, for a leader that does not learn of them.

        Raises:
            Outbid: somebody else opened it.
            SetupError: the store is not fit, does not get ready in time, or belongs to another mesh.
        """
        made: list[OpenLife] = []  # one whose reply was lost is repeated as it was

        async def attempt(within: Within) -> Opened | str:
            if not made:
                opening = await self._first_opening()
                if isinstance(opening, str):
                    return opening
                made.append(opening)
            (call,) = made
            reply = await self._acknowledged(lambda: self._store.open_life(call), within)
            recorded = await self._store.recorded()
            opened_by_another = recorded.life and recorded.life.number > call.previous
            if reply.status is StoreStatus.CLOSED:
                made.clear()
                return "the store's primary is another one since"
            if reply.status is not StoreStatus.OK:
                if opened_by_another or reply.status is StoreStatus.DEPOSED:
                    raise _outbid(reply)
                made.clear()
                return reply.detail
            if not reply.acknowledged:
                return _unacknowledged(call.sync_set)
            return Opened(call.number, call.token, call.sync_set, recorded, reply.versions)

        opened = await self._ready(attempt)
        return await self._without_grants(opened) if end_grants and opened.versions else opened

    async def bid(self) -> Opened:
        """Take the lead in the life that is open.

        Raises:
            Outbid: somebody else has taken it meanwhile.
            SetupError: the store does not get ready in time.
        """
        operation = new_operation()
        seen: list[Life] = []

        async def attempt(within: Within) -> Opened | str:
            if not seen:
                found = (await self._store.recorded()).life
                if found is None:
                    return "no life was ever opened there"
                seen.append(found)
            (life,) = seen
            call = Bid(operation, life.number, life.token, life.token + 1)
            reply = await self._acknowledged(lambda: self._store.bid(call), within)
            if reply.status is StoreStatus.DEPOSED:
                raise _outbid(reply)
            if reply.status is not StoreStatus.OK:
                seen.clear()
                return reply.detail or f"life {life.number} is not open on the store's primary"
            if not reply.acknowledged:
                return _unacknowledged(life.sync_set)
            recorded = await self._store.recorded()
            return Opened(life.number, call.new_token, life.sync_set, recorded, reply.versions)

        return await self._ready(attempt)

    async def _first_opening(self) -> OpenLife | str:
        """The call, or why it cannot be made yet."""
        recorded = await self._store.recorded()
        links = await self._store.links()
        c, life = self._config, recorded.life
        problem = self._too_few(links)
        if problem:
            return problem
        if life is not None and life.partitions != c.partitions:
            raise SetupError(
                f"mesh {c.mesh!r} was created with {life.partitions} partitions, not "
                f"{c.partitions}; the number is fixed: leave --partitions out or use another name"
            )
        members = frozenset(links) if c.durability == "replicated" else frozenset()
        number, token, version = (
            (life.number, life.token, life.sync_set.version) if life else (0, 0, 0)
        )
        sync_set = InSyncSet(version + 1, members, frozenset(), c.durability)
        return OpenLife(new_operation(), number, number + 1, token + 1, c.partitions, sync_set)

    async def _without_grants(self, opened: Opened) -> Opened:
        call = Takeover(
            new_operation(),
            opened.life,
            opened.token,
            enroll=(),
            revoke=tuple(opened.versions),
            moves=Moves(),
            table=opened.recorded.table,
            intents=opened.recorded.intents,
        )

        async def attempt(within: Within) -> Opened | str:
            reply = await self._acknowledged(lambda: self._store.takeover(call), within)
            if reply.status is not StoreStatus.OK:
                raise _outbid(reply)
            if not reply.acknowledged:
                return _unacknowledged(opened.sync_set)
            return replace(opened, recorded=await self._store.recorded(), versions={})

        return await self._ready(attempt)

    def _too_few(self, links: tuple[str, ...]) -> str:
        asked, attached = max(1, self._config.replicas), len(set(links))
        if self._config.durability != "replicated" or attached >= asked:
            return ""
        return (
            f"{attached} of {asked} replicas are attached; attach the others, or choose another "
            f"durability"
        )

    async def _ready(self, attempt: Callable[[Within], Awaitable[Opened | str]]) -> Opened:
        """The first attempt that comes to something; a text says why one did not."""
        deadline = self._clock.now() + self._config.open_s
        problem = "it did not answer"

        def within() -> bool:
            return self._clock.now() < deadline

        while within():
            try:
                result = await attempt(within)
                if isinstance(result, Opened):
                    return result
                problem = result
            except StoreUnreachable as error:
                problem = str(error)
            except StoreRefused as error:
                if not error.transient:
                    raise SetupError(str(error)) from error
                problem = str(error)
            await asyncio.sleep(_PAUSE_S)
        raise SetupError(f"the store was not ready within {self._config.open_s:g} s: {problem}")

    async def _acknowledged(
        self, call: Callable[[], Awaitable[TakeoverReply]], within: Within
    ) -> TakeoverReply:
        """The reply once every member has what the call wrote; else the last one when time is up."""
        while True:
            reply = await call()
            if reply.status is not StoreStatus.OK or reply.acknowledged or not within():
                return reply
            await asyncio.sleep(_PAUSE_S)


def _outbid(reply: TakeoverReply) -> Outbid:
    return Outbid(f"another supervisor is opening this mesh ({reply.status.value}: {reply.detail})")


def _unacknowledged(sync_set: InSyncSet) -> str:
    return f"its replicas {sorted(sync_set.members)} do not acknowledge"
