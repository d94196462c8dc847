"""What a leader does: takes events to the brain (mesh.core.supervision) and carries its effects out.

It decides nothing. What it hears while there is no brain is lost on it: whoever begins to lead says so on
every link, and hears from there what it has to know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mesh.core import signals as sv
from mesh.core.leadership import Deposed, LeadershipEvent
from mesh.core.records import Takeover
from mesh.core.supervision import Supervision
from mesh.errors import MeshError
from mesh.net.clock import Clock
from mesh.store.api import Store, StoreRefused, StoreUnreachable
from mesh.supervisor.journal import Journal
from mesh.supervisor.links import Links
from mesh.supervisor.settings import Launcher
from mesh.tasks import Tasks

log = logging.getLogger("mesh.supervisor")

_TICK_S = 0.05
_GIVE_UP_S = 10.0


class Leader:
    """The brain's hands.

    Args:
        store: takes its calls.
        launcher: starts handler processes.
        links: to everybody.
        journal: gets its records.
        clock: what the brain is told the time by.
        tasks: what it has under way.
    """

    def __init__(
        self,
        store: Store,
        launcher: Launcher,
        links: Links,
        journal: Journal,
        clock: Clock,
        tasks: Tasks,
    ) -> None:
        self.core: Supervision | None = None
        """The brain, while this supervisor leads."""
        self.overhear: Callable[[sv.Event], None] = lambda _: None
        """Told of each event before the brain is."""
        self.over: Callable[[LeadershipEvent], None] = lambda _: None
        """Told when the store says that somebody else leads."""
        self.starts: dict[str, asyncio.Task[None]] = {}
        """The newest start of each handler."""
        self._store = store
        self._launcher = launcher
        self._links = links
        self._journal = journal
        self._clock = clock
        self._tasks = tasks
        self._ticking: asyncio.Task[None] | None = None
        self._halted = False
        self._unanswered_since: float | None = None
        """When that was asked of the store which it has not answered; None where it answers."""

    def __repr__(self) -> str:
        return f"Leader({self.core!r})"

    def begin(self, core: Supervision) -> None:
        """Take the brain, of a new token or a new life."""
        self.end()
        self.core = core
        self._unanswered_since = None
        self._ticking = self._tasks.spawn(self._tick(), "tick")

    def end(self) -> None:
        """Lead no more. What was begun may come to its end: a store call is checked by its token, and a
        handler that comes up is welcome to the next leader.
        """
        self.core = None
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    @property
    def store_silent_s(self) -> float:
        """For how long this leader has had no answer of the store."""
        since = self._unanswered_since
        return 0.0 if since is None else self._clock.now() - since

    def halt(self) -> None:
        """Do nothing from here on. Handlers end because they were told to: none of them is to be taken over
        or replaced.
        """
        self._halted = True
        for task in self.starts.values():
            task.cancel()

    def step(self, event: sv.Event) -> None:
        """Something happened."""
        core = self.core
        if self._halted or core is None:
            return
        self.overhear(event)
        for effect in core.step(event, self._clock.now()):
            self.perform(effect)

    def perform(self, effect: sv.Effect) -> None:
        """Carry an effect out."""
        match effect:
            case sv.CallStore(call):
                _ = self._tasks.spawn(self._call_store(call), "takeover")
            case sv.ReadRenewals(nonces):
                _ = self._tasks.spawn(self._read_renewals(nonces), "renewals")
            case sv.Deposed():
                self.over(Deposed())
            case sv.TellGrant(nonce, grant):
                self._links.tell(nonce, grant)
            case sv.AskRelease(nonce, release):
                self._links.tell(nonce, release)
            case sv.TellTable(nonce, table):
                self._links.tell_table(nonce, table)
            case sv.PublishTable(table):
                self._links.publish(table)
            case sv.AwaitPublished(operation):
                self.step(sv.Published(operation))
            case sv.StartHandler(id_):
                earlier = self.starts.get(id_)
                work = self._start_handler(id_, earlier)
                self.starts[id_] = self._tasks.spawn(work, f"start {id_}")
            case sv.Record(kind, fields, ago_s):
                self._journal.record(kind, fields, ago_s)

    async def _call_store(self, call: Takeover) -> None:
        reply = None
        try:
            reply = await self._store.takeover(call)
        except (StoreUnreachable, StoreRefused) as error:
            log.warning("the store did not take the call, it is made again: %s", error)
        self.step(sv.StoreReplied(call.operation, reply))

    async def _read_renewals(self, nonces: tuple[bytes, ...]) -> None:
        core = self.core
        if core is None:
            return
        if self._unanswered_since is None:
            self._unanswered_since = self._clock.now()
        event: sv.Event
        try:
            numbers = await self._store.renewals(core.life, nonces)
            event = sv.RenewalsRead(numbers)
            if numbers is not None:
                self._unanswered_since = None
        except (StoreUnreachable, StoreRefused) as error:
            log.debug("the store does not say who has renewed: %s", error)
            event = sv.StoreAway()
        if core is self.core:  # numbers of an earlier life say nothing in this one
            self.step(event)

    async def _start_handler(self, id_: str, earlier: asyncio.Task[None] | None) -> None:
        core = self.core
        if earlier is not None and not earlier.done():
            # It hangs. Its late failure would be taken for this one's, which would be ended for it.
            earlier.cancel()
            await asyncio.wait((earlier,), timeout=_GIVE_UP_S)
        try:
            if core is None or not await self._still_leads(core.token):
                return
            self._journal.record("handler_starting", {"handler": id_})
            await self._launcher.start_handler(id_)
        except MeshError as error:
            self.step(sv.StartFailed(id_, str(error)))

    async def _still_leads(self, token: int) -> bool:
        """Ask the store. A start ends whoever bears that handler's name, and no token is checked there: one
        that wakes up after a long stop would end the process that the next leader has started.
        """
        life = (await self._store.recorded()).life
        if life is not None and life.token == token:
            return True
        self.over(Deposed())
        return False

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self.step(sv.Tick())
