"""A leader's way into the store, and its care for it: the first life is opened, a later leader bids for the
one that is open, and the one who leads watches the nodes and opens the next where its primary is gone.

What is to be done is decided by mesh.core.storekeeping, round by round; here it is carried out. Nothing is
believed before it is acknowledged: whoever leads by a token that is not replicated is deposed by the next
failover, and would not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from mesh.core.life_numbers import count_of, next_life
from mesh.core.records import (
    Bid,
    ChangeSet,
    OpenLife,
    Recorded,
    StoreStatus,
    TakeoverReply,
)
from mesh.core.storekeeping import Storekeeping
from mesh.core.storeplan import (
    Adopt,
    Change,
    Confirm,
    Effect,
    EndTilt,
    FailOver,
    Follow,
    GiveUp,
    KeepingConfig,
    Known,
    Lead,
    SetPriority,
    Tell,
)
from mesh.core.storeroll import StoreRoll
from mesh.core.syncset import Durability, InSyncSet
from mesh.errors import SetupError
from mesh.ids import new_draw, new_operation
from mesh.net.clock import SYSTEM, Clock
from mesh.store.api import Store, StoreNodes, StoreRefused, StoreUnreachable

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
        calm_s: between two looks at the store while all is well there.
        alert_s: and while it is not.
        keeping: see KeepingConfig; its durability is this one's.
    """

    mesh: str
    partitions: int
    replicas: int = 2
    durability: Durability = "replicated"
    open_s: float = 15.0
    calm_s: float = 0.2
    alert_s: float = 0.03
    keeping: KeepingConfig = KeepingConfig()  # noqa: RUF009 - frozen


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


Recorder = Callable[[str, dict[str, Any]], None]


class Lives:
    """Opens lives, takes the lead in them, and looks after the store that they are in.

    Args:
        store: this supervisor's access to the store.
        config: see LivesConfig.
        clock: what time-outs are told by.
        record: takes events for people: kind, and fields.
    """

    def __init__(
        self,
        store: Store,
        config: LivesConfig,
        clock: Clock = SYSTEM,
        record: Recorder = lambda _kind, _fields: None,
    ) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._record = record
        self._known = Known()
        self._lowered: dict[str, int] = {}
        self.sync_set = InSyncSet(0, frozenset())
        """The one that was acknowledged last, as far as this supervisor knows."""
        self.roll = StoreRoll()
        """Who is what in the store, for those who ask."""

    def heard(self, life: int, set_version: int) -> None:
        """Somebody has had an acknowledgement in that life, under that version of its set.

        A promoted node whose own record is older is not taken for complete.
        """
        known = self._known
        if (life, set_version) > (known.life, known.set_version):
            self._known = known._replace(life=life, set_version=set_version)

    async def open_first(self) -> Opened:
        """Open a life when a mesh is brought up: the first one, or the next behind those of an earlier up.

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

        return await self._ready(attempt)

    async def bid(self) -> Opened:
        """Take the lead: in the life that is open, else in the next one, opened where the store is now.

        Raises:
            Outbid: somebody else has taken it meanwhile.
            SetupError: the store does not get ready in time.
        """
        deadline = self._clock.now() + self._config.open_s
        return await self._keep(self._known._replace(is_sure=False), None, deadline)

    async def watch(self, opened: Opened) -> Opened:
        """Look after the store for as long as this life lasts; the next one, in which the same leader leads.

        Raises:
            Outbid: somebody else leads.
        """
        self.sync_set = opened.sync_set
        self._known = self._known._replace(
            life=opened.life,
            token=opened.token,
            set_version=opened.sync_set.version,
            is_sure=True,
        )
        return await self._keep(self._known, opened, None)

    async def _keep(self, known: Known, leading: Opened | None, deadline: float | None) -> Opened:
        keeping = replace(self._config.keeping, durability=self._config.durability)
        leads = leading is not None
        core = Storekeeping(keeping, known, new_draw, leads=leads, lowered=self._lowered)
        nodes = self._store.nodes()
        work = _Work(self._store, nodes, core, self._config.partitions, self._record)
        try:
            while deadline is None or self._clock.now() < deadline:
                asks = core.wants_sentinels or self.roll.wants_sentinels
                seen = await nodes.look(sentinels=asks)
                self.roll.note(seen, self._clock.now(), sentinels=asks)
                if not core.wants_sentinels:
                    seen = replace(seen, sentinels=())  # asked for people's sake
                for effect in core.step(seen, self._clock.now()):
                    opened = await work.carry_out(effect)
                    if opened is not None:
                        self.sync_set = opened.sync_set
                        return opened
                self.sync_set = work.sync_set or self.sync_set
                pause_s = self._config.alert_s if core.is_alert else self._config.calm_s
                await asyncio.sleep(pause_s)
        finally:
            self._known = core.known._replace(is_sure=False)
            await nodes.close()
        raise SetupError(
            f"the store was not ready within {self._config.open_s:g} s: {work.problem or 'no primary'}"
        )

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
        following = next_life(number, new_draw())
        return OpenLife(
            new_operation(),
            number,
            following,
            token + 1,
            c.partitions,
            sync_set,
            run_id=recorded.run_id,
        )

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


class _Work:
    """Carries out what storekeeping decides, for one lead."""

    def __init__(
        self,
        store: Store,
        nodes: StoreNodes,
        core: Storekeeping,
        partitions: int,
        record: Recorder,
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._core = core
        self._partitions = partitions
        self._record = record
        self._bid: Bid | None = None
        self._change: ChangeSet | None = None
        self._opening: tuple[Adopt, OpenLife] | None = None
        self.sync_set: InSyncSet | None = None
        """Recorded here last, and acknowledged."""
        self.problem = ""
        """Why the last call came to nothing."""

    async def carry_out(self, effect: Effect) -> Opened | None:
        """Do it; the lead, where that is what it brought.

        Raises:
            Outbid: somebody else has it.
        """
        try:
            return await self._done(effect)
        except (StoreUnreachable, StoreRefused) as error:
            self.problem = str(error)
            return None

    async def _done(self, effect: Effect) -> Opened | None:  # noqa: C901 - a table, a line an effect
        match effect:
            case Lead():
                return await self._lead(effect)
            case Adopt():
                return await self._adopt(effect)
            case Change(change):
                core = self._core
                self._change = ChangeSet(new_operation(), core.known.life, core.known.token, change)
                await self._record_set(self._change)
            case Confirm():
                if self._change is not None:
                    await self._record_set(self._change)
            case Follow(node, primary):
                self._nodes.follow(node, primary)
            case SetPriority(node, priority):
                self._nodes.set_priority(node, priority)
            case FailOver(node):
                self._nodes.fail_over(node)
            case EndTilt(sentinels, tilt_ms):
                self._nodes.end_tilt(sentinels, tilt_ms)
            case Tell("loss_possible", fields):
                self._record("loss_possible", {"partitions": self._partitions, **fields})
            case Tell(kind, fields):
                self._record(kind, fields)
            case GiveUp(life, token):
                counted = count_of(life)
                raise Outbid(f"another supervisor leads, in life {counted} with token {token}")
        return None

    async def _lead(self, effect: Lead) -> Opened | None:
        self._store.use(effect.node)
        life, bid = effect.life, self._bid
        if bid is None or (bid.life, bid.new_token) != (life.number, life.token):
            bid = self._bid = Bid(
                new_operation(), life.number, life.token, life.token + 1, effect.change
            )
        elif effect.change is not None:
            # The bid is written, and waits for a member that is gone.
            change = ChangeSet(new_operation(), life.number, bid.new_token, effect.change)
            await self._record_set(change)
        reply = await self._store.bid(bid)
        if reply.status is StoreStatus.DEPOSED:
            raise _outbid(reply)
        if reply.status is not StoreStatus.OK:
            self._bid = None
        return await self._if_acknowledged(bid.life, bid.new_token, reply)

    async def _adopt(self, effect: Adopt) -> Opened | None:
        self._store.use(effect.node)
        if self._opening is None or self._opening[0] != effect:
            call = OpenLife(
                new_operation(),
                effect.previous,
                effect.number,
                effect.token,
                self._partitions,
                effect.sync_set,
                effect.asked_at_us,
                effect.max_age_us,
                effect.run_id,
            )
            self._opening = effect, call
        _, call = self._opening
        reply = await self._store.open_life(call)
        if reply.status is StoreStatus.DEPOSED:
            raise _outbid(reply)
        return await self._if_acknowledged(call.number, call.token, reply)

    async def _if_acknowledged(self, life: int, token: int, reply: TakeoverReply) -> Opened | None:
        if reply.status is not StoreStatus.OK or not reply.acknowledged:
            self.problem = reply.detail or f"{reply.status.value}, and not acknowledged"
            return None
        recorded = await self._store.recorded()
        found = recorded.life
        if found is None or (found.number, found.token) != (life, token):
            self.problem = "the store's primary is another one since"
            return None
        return Opened(life, token, found.sync_set, recorded, reply.versions)

    async def _record_set(self, call: ChangeSet) -> None:
        sync_set = call.change.sync_set
        try:
            reply = await self._store.change_set(call)
        except StoreUnreachable:
            self._core.on_changed(sync_set, acknowledged=False)
            raise
        if reply.status is StoreStatus.DEPOSED:
            raise _outbid(reply)
        if reply.status is StoreStatus.OK:
            self._core.on_changed(sync_set, acknowledged=reply.acknowledged)
        else:
            self.problem = reply.detail or reply.status.value
            self._core.on_refused(sync_set)
        if reply.acknowledged and self.sync_set != sync_set:
            self.sync_set = sync_set
            members = {"members": sorted(sync_set.members), "version": sync_set.version}
            self._record("in_sync", {**members, "not_waited_for": sorted(sync_set.no_candidates)})
