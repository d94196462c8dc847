"""A supervisor's way to the lead, and out of it.

The rules are mesh.core.leadership's, which does no IO: when a standby's patience is over, whose beats count,
which token is the higher. This carries them out. It looks at the clock when patience ends, bids at the store,
gives whoever wins a brain that has learned what the store has on record, and stands down when the store says
that somebody else was granted a higher token. Of all that a supervisor hears, only deaths that wardens have
proven are kept here: they are told once, perhaps to a standby, and whoever leads next has to know them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mesh.core import leadership as ls
from mesh.core.learned import Learned
from mesh.core.life_numbers import count_of
from mesh.core.members import SupervisionConfig
from mesh.core.messages import LeaderBeat, Leading
from mesh.core.signals import ProcessExited
from mesh.core.supervision import Supervision
from mesh.core.timing import Timing
from mesh.errors import MeshError
from mesh.lives import Lives, Opened, Outbid
from mesh.net.clock import Clock, Timer
from mesh.store.api import Store, StoreRefused, StoreUnreachable
from mesh.supervisor.journal import Journal
from mesh.supervisor.leader import Leader
from mesh.supervisor.links import Links
from mesh.supervisor.settings import SupervisorSettings
from mesh.supervisor.watch import Watch
from mesh.tasks import Tasks

log = logging.getLogger("mesh.supervisor")

_LEAST_S = 0.001
_RECORDED_S = 0.3
"""How long a bidder asks the store for the token that it would bid over, before it bids all the same."""


class Candidate:
    """One supervisor's: as a standby, as a bidder and as the leader.

    Args:
        settings: where the supervisor stands.
        store: has the token on record.
        lives: opens lives there, and bids.
        links: to everybody.
        journal: gets what operators should know.
        leader: gets the brain, while this supervisor leads, and tells when the store says otherwise.
        watch: begins and ends with it.
        clock: what patience is told by.
        tasks: what is under way.
        take_stock: puts on record who came while nobody led.
    """

    def __init__(
        self,
        settings: SupervisorSettings,
        store: Store,
        lives: Lives,
        links: Links,
        journal: Journal,
        leader: Leader,
        watch: Watch,
        clock: Clock,
        tasks: Tasks,
        take_stock: Callable[[], None],
    ) -> None:
        self.leadership = ls.Leadership(settings.leadership)
        """Who leads, as far as this supervisor knows."""
        self._settings = settings
        self._store = store
        self._lives = lives
        self._links = links
        self._journal = journal
        self._leader = leader
        leader.over = self.step
        self._watch = watch
        self._clock = clock
        self._tasks = tasks
        self._take_stock = take_stock
        self._opened: Opened | None = None
        """What the last bid, or the first opening, has brought."""
        self._is_first = False
        self._exits: dict[bytes, ProcessExited] = {}
        """Every death that a warden has proven; wardens say it once on a link, and who leads may change."""
        self._looking: Timer | None = None
        self._looking_at = 0.0
        self._bidding: asyncio.Task[None] | None = None
        self._leading: list[asyncio.Task[None]] = []
        """What a leader does beside what its brain orders."""
        self._halted = False

    def __repr__(self) -> str:
        return f"Candidate({self.leadership!r})"

    async def lead(self) -> None:
        """Open a life on the store and lead in it, as the first of an `up`.

        Raises:
            SetupError: the store is not fit, does not get ready in time, or belongs to another mesh.
        """
        self._won(await self._lives.open_first(), is_first=True)

    def stand_by(self) -> None:
        """Watch whoever leads, and bid for the lead once nobody does."""
        self.leadership.stand_by(self._clock.now())
        self._look_later()

    def halt(self) -> None:
        """Do nothing from here on: the mesh is being stopped."""
        self._halted = True
        if self._looking is not None:
            self._looking.cancel()

    def keep(self, exited: ProcessExited) -> None:
        """A warden has proven a death; the first proof counts."""
        self._exits.setdefault(exited.nonce, exited)

    def step(self, event: ls.LeadershipEvent) -> None:
        """Something happened that says who leads."""
        if self._halted:
            return
        for effect in self.leadership.step(event, self._clock.now()):
            self._perform(effect)
        self._look_later()

    def _look_later(self) -> None:
        """See to it that somebody looks when a standby's patience ends; beats only ever move that on."""
        due = self.leadership.due
        if due is None or self._halted:
            return
        if self._looking is not None:
            if self._looking_at <= due:
                return
            self._looking.cancel()
        self._looking_at = due
        delay_s = max(_LEAST_S, due - self._clock.now())
        self._looking = self._clock.call_later(delay_s, self._look)

    def _look(self) -> None:
        self._looking = None
        self.step(ls.Looked())

    def _perform(self, effect: ls.LeadershipEffect) -> None:
        match effect:
            case ls.MakeBid(over):
                self._bidding = self._tasks.spawn(self._bid(over), "bid")
            case ls.GiveUpBid():
                if self._bidding is not None:
                    self._bidding.cancel()
            case ls.BeginToLead(token, life):
                self._begin_to_lead(token, life)
            case ls.StandDown(reason):
                self._stand_down(reason)
            case ls.Missed(id_, reason):
                fields = {"supervisor": id_, "by": self._settings.id, "reason": reason}
                self._journal.record("leader_missed", fields)

    async def _bid(self, over: int | None) -> None:
        """Bid at the store; where somebody was quicker, let it be."""
        try:
            token = await self._recorded_token()
            if over is not None and token is not None and token > over:
                self.step(ls.BidTopped(token))
                return
            self._won(await self._lives.bid())
        except Outbid as error:
            log.info("outbid: %s", error)
            self.step(ls.BidTopped(await self._recorded_token() or self.leadership.token))
        except MeshError as error:
            log.warning("nobody takes the bid of %s: %s", self._settings.id, error)
            self.step(ls.BidFailed())

    async def _recorded_token(self) -> int | None:
        """The token on record; None where the store does not say at once."""
        try:
            async with asyncio.timeout(_RECORDED_S):
                life = (await self._store.recorded()).life
        except (StoreUnreachable, StoreRefused, TimeoutError):
            return None
        return life.token if life is not None else None

    def _won(self, opened: Opened, *, is_first: bool = False) -> None:
        self._opened = opened
        self._is_first = is_first
        self.step(ls.BidWon(opened.token, opened.life))

    def _begin_to_lead(self, token: int, life: int) -> None:
        s, opened = self._settings, self._opened
        assert opened is not None
        assert (opened.token, opened.life) == (token, life)
        lease = (s.timing or Timing()).lease
        config = SupervisionConfig(
            s.handlers, restart_after_s=s.restart_after_s, start_s=s.start_s, lease=lease
        )
        learned = Learned.of(
            opened.recorded,
            opened.versions,
            first=self._is_first,
            exited=tuple(self._exits.values()),
        )
        self._journal.record(
            "leading", {"supervisor": s.id, "life": count_of(life), "token": token}
        )
        self._take_stock()
        brain = Supervision(
            config, partitions=s.partitions, life=life, token=token, learned=learned
        )
        self._leader.begin(brain)
        if s.timing is not None:
            self._watch.begin(brain, s.timing)
        # Answered with what each process holds now. What it said before, to a standby or in another life, is
        # not to be judged by: a wait that is long over would begin anew.
        self._links.lead(Leading(token, life, s.id))
        self._end_leading()
        self._leading = [
            self._tasks.spawn(self._beat(token, life), "beat"),
            self._tasks.spawn(self._keep_store(opened), "store"),
        ]

    def _stand_down(self, reason: str) -> None:
        fields = {"supervisor": self._settings.id, "reason": reason}
        self._journal.record("standing_down", fields)
        self._links.lead(None)
        self._watch.end()
        self._leader.end()
        self._end_leading()

    def _end_leading(self) -> None:
        for task in self._leading:
            task.cancel()
        self._leading = []

    async def _beat(self, token: int, life: int) -> None:
        config = self._settings.leadership
        while True:
            if self._leader.store_silent_s < config.store_s:
                self._links.spread(LeaderBeat(token, life, self._lives.sync_set.version))
            await asyncio.sleep(config.beat_s)

    async def _keep_store(self, opened: Opened) -> None:
        """Look after the store for as long as its life lasts, and open the next one."""
        try:
            opened = await self._lives.watch(opened)
        except Outbid as error:
            log.info("%s leads no more: %s", self._settings.id, error)
            self.step(ls.Deposed())
        else:
            self._won(opened)
