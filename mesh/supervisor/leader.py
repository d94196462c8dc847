"""What a leader does: takes events to the brain (mesh.core.supervision) and carries its effects out.

It decides nothing. What it hears before there is a brain waits for it: handlers and wardens may come while
the life is still being opened.
"""

from __future__ import annotations

import asyncio
import logging

from mesh.core import signals as sv
from mesh.core.records import Takeover
from mesh.core.supervision import Supervision
from mesh.errors import MeshError
from mesh.net.clock import Clock
from mesh.store.api import Store, StoreRefused, StoreUnreachable
from mesh.supervisor.journal import Journal
from mesh.supervisor.links import Links
from mesh.supervisor.settings import Launcher
from mesh.supervisor.tasks import Tasks

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
        self.starts: dict[str, asyncio.Task[None]] = {}
        """The newest start of each handler."""
        self._store = store
        self._launcher = launcher
        self._links = links
        self._journal = journal
        self._clock = clock
        self._tasks = tasks
        self._early: list[sv.Event] = []
        self._halted = False

    def __repr__(self) -> str:
        return f"Leader({self.core!r})"

    def begin(self, core: Supervision) -> None:
        """Take the brain, and tell it what was heard before."""
        self.core = core
        early, self._early = self._early, []
        for event in early:
            self.step(event)
        _ = self._tasks.spawn(self._tick(), "tick")

    def halt(self) -> None:
        """Do nothing from here on. Handlers end because they were told to: none of them is to be taken over
        or replaced.
        """
        self._halted = True
        for task in self.starts.values():
            task.cancel()

    def step(self, event: sv.Event) -> None:
        """Something happened."""
        if self._halted:
            return
        if self.core is None:
            self._early.append(event)
            return
        for effect in self.core.step(event, self._clock.now()):
            self.perform(effect)

    def perform(self, effect: sv.Effect) -> None:
        """Carry an effect out."""
        match effect:
            case sv.CallStore(call):
                _ = self._tasks.spawn(self._call_store(call), "takeover")
            case sv.ReadRenewals(nonces):
                _ = self._tasks.spawn(self._read_renewals(nonces), "renewals")
            case sv.LifeClosed() | sv.Deposed():
                log.error("this supervisor leads no more")
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
        assert core is not None
        event: sv.Event
        try:
            event = sv.RenewalsRead(await self._store.renewals(core.life, nonces))
        except (StoreUnreachable, StoreRefused) as error:
            log.debug("the store does not say who has renewed: %s", error)
            event = sv.StoreAway()
        if core is self.core:  # numbers of an earlier life say nothing in this one
            self.step(event)

    async def _start_handler(self, id_: str, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None and not earlier.done():
            # It hangs. Its late failure would be taken for this one's, which would be ended for it.
            earlier.cancel()
            await asyncio.wait((earlier,), timeout=_GIVE_UP_S)
        self._journal.record("handler_starting", {"handler": id_})
        try:
            await self._launcher.start_handler(id_)
        except MeshError as error:
            self.step(sv.StartFailed(id_, str(error)))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self.step(sv.Tick())
