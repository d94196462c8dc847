"""The leader's eyes: takes what hearts, handlers and wardens say to the detector, and carries its orders out.

It decides nothing (mesh.core.detector does), and nothing of it outlives the lead: whoever leads next watches
anew, and condemns nobody upon what another has seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from mesh.core import signals as sv
from mesh.core import watch_signals as ws
from mesh.core.detector import Detector
from mesh.core.impressions import Complaint
from mesh.core.members import Member
from mesh.core.messages import Beat, ClientSays, Message, WardenHere
from mesh.core.pulse import Echo, Kill, Look, Probe, Probed, ProbeFor, Pulse, Seen, Watches
from mesh.core.supervision import Supervision
from mesh.core.timing import Timing
from mesh.net.clock import Clock
from mesh.net.connection import Connection
from mesh.presence import probe
from mesh.supervisor.journal import Journal
from mesh.supervisor.links import Links
from mesh.supervisor.settings import SupervisorSettings
from mesh.tasks import Tasks


class Watch:
    """Of one supervisor; it watches while that leads.

    Args:
        settings: where the supervisor stands; without a timing nobody is watched.
        links: to everybody.
        journal: gets what operators should know.
        clock: what the detector is told the time by.
        tasks: what is under way.
        step: takes what the detector finds to the brain.
    """

    def __init__(
        self,
        settings: SupervisorSettings,
        links: Links,
        journal: Journal,
        clock: Clock,
        tasks: Tasks,
        step: Callable[[sv.Event], None],
    ) -> None:
        self._settings = settings
        self._links = links
        self._journal = journal
        self._clock = clock
        self._tasks = tasks
        self._brain = step
        self._core: Supervision | None = None
        self._detector: Detector | None = None
        self._joined: dict[bytes, Member] = {}
        self._ticking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Watch({self._detector!r})"

    @property
    def suspects(self) -> set[bytes]:
        """Processes that neither beat nor answer."""
        return self._detector.suspects if self._detector is not None else set()

    def pulse(self, nonce: bytes) -> Pulse | None:
        """The last beat of a process, if this supervisor leads."""
        return self._detector.pulse(nonce) if self._detector is not None else None

    def begin(self, core: Supervision, timing: Timing) -> None:
        """Watch whoever that brain knows."""
        self.end()
        self._core = core
        self._detector = Detector(timing)
        for here in self._links.wardens.values():
            self._meet(here)
        self._ticking = self._tasks.spawn(self._tick(self._detector), "watch")

    def end(self) -> None:
        """Watch nobody any more."""
        self._core = self._detector = None
        self._joined.clear()
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    # --------------------------------------------------------------------- what is heard

    def hear(self, conn: Connection, message: Message) -> None:
        """Somebody says something of how a process is."""
        match message:
            case WardenHere():
                self._meet(message)
            case Watches(nonce):
                here = self._links.wardens.get(conn)
                if here is not None:
                    watching = [*here.watching, nonce]
                    self._links.wardens[conn] = replace(here, watching=watching)
                    self._step(ws.WardenWatches(here.id, nonce))
            case Pulse():
                self._step(ws.Pulsed(message))
            case Echo(nonce) | Beat(nonce):
                self._step(ws.Echoed(nonce))
            case Seen():
                self._step(ws.Saw(message))
            case Probed():
                self._step(ws.Inquired(message))
            case ClientSays(by, among, about):
                self._step(ws.ClientComplained(by, among, [Complaint(*one) for one in about]))

    def lose(self, here: WardenHere) -> None:
        """The link to a warden broke."""
        self._step(ws.WardenGone(here.id))

    def cause_of(self, nonce: bytes) -> str:
        """Why a process has exited: it was killed for a hang, or by itself."""
        detector = self._detector
        return "hang" if detector is not None and detector.is_ordered_dead(nonce) else "exit"

    def overhear(self, event: sv.Event) -> None:
        """What the brain is told, and the detector should know."""
        match event:
            case sv.RenewalsRead(numbers):
                self._step(ws.RenewalsSeen(numbers))
            case sv.StoreAway():
                self._step(ws.RenewalsSeen(None))
            case sv.ProcessExited(nonce):
                self._joined.pop(nonce, None)
                self._step(ws.Left(nonce))

    def _meet(self, here: WardenHere) -> None:
        for nonce in here.watching:
            self._step(ws.WardenWatches(here.id, nonce))

    async def _tick(self, detector: Detector) -> None:
        while True:
            await asyncio.sleep(detector.tick_s)
            self._take_stock()
            self._step(ws.Ticked())

    def _take_stock(self) -> None:
        """Whoever has a grant is watched, from when it has it until that is over."""
        if self._core is None:
            return
        present: set[bytes] = set()
        for member in self._core.members:
            row = member.row
            if not member.enrolled or not member.contacted or member.gone_at is not None:
                continue
            present.add(row.nonce)
            if row.nonce not in self._joined:
                self._joined[row.nonce] = member
                domain = row.zone or row.host
                self._step(ws.Joined(row.nonce, row.id, domain, member.weight))
        for nonce in self._joined.keys() - present:
            del self._joined[nonce]
            self._step(ws.Left(nonce))

    # --------------------------------------------------------------------- what is ordered

    def _step(self, event: ws.Event) -> None:
        if self._detector is not None:
            for order in self._detector.step(event, self._clock.now()):
                self._carry_out(order)

    def _carry_out(self, order: ws.Order) -> None:
        if self._core is None:
            return
        token = self._core.token
        match order:
            case ws.AskLoop(nonce, number):
                if nonce in self._links.handlers:
                    self._links.tell(nonce, Probe(number))
                elif member := self._joined.get(nonce):
                    _ = self._tasks.spawn(self._dial(member), f"probe of {member.row.id}")
            case ws.AskWarden(warden, nonce):
                self._tell_warden(warden, Look(token, nonce))
            case ws.AskPeer(by, nonce, number, within_s):
                if member := self._joined.get(nonce):
                    address = f"{member.row.host}:{member.row.port}"
                    self._links.tell(by, ProbeFor(token, number, nonce, address, within_s * 1000))
            case ws.OrderKill(warden, nonce, expires_s, seen_ms, condition, slices):
                kill = Kill(token, nonce, expires_s * 1000, seen_ms, condition, slices)
                self._tell_warden(warden, kill)
            case ws.Condemn(nonce, cause):
                self._brain(sv.Unproven(nonce, cause))
            case ws.Reweigh(nonce, weight, why):
                self._brain(sv.Weigh(nonce, weight, why))
            case ws.Say(kind, fields):
                self._journal.record(kind, fields)

    def _tell_warden(self, id_: str, message: Message) -> None:
        for conn, here in self._links.wardens.items():
            if here.id == id_:
                conn.send(message.frame())
                conn.flush()

    async def _dial(self, member: Member) -> None:
        """It is not connected: see whether it can be reached where it listens."""
        row, s = member.row, self._settings
        if self._detector is None:
            return
        within_s = self._detector.timing.probe_s
        reason = await probe(f"{row.host}:{row.port}", s.mesh, s.token, row.nonce, within_s)
        if not reason:
            self._step(ws.Echoed(row.nonce))
