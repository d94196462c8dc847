"""The supervisor itself: who is heard, and what becomes of it.

One of several leads (mesh.core.leadership); the others are its standbys: they hear the same handlers and
wardens, keep the leader's table and events, and pass questions on to it. Clients may bootstrap at any of them
and get every new table there; they need none of it to go on.

    await supervisor.listen()               take the port
    supervisor.meet(addresses)              know the others
    await supervisor.lead()                 the first of an `up`: open a life, and lead
    await supervisor.stand_by()             all others, and whoever comes back
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from mesh.core import leadership as ls
from mesh.core import signals as sv
from mesh.core.messages import (
    Adopted,
    Ask,
    Beat,
    ClientSays,
    Dropped,
    Exited,
    Happened,
    LeaderBeat,
    Leading,
    Message,
    Missing,
    Register,
    Released,
    Stop,
    SupervisorHere,
    WardenHere,
)
from mesh.core.pulse import Echo, Probed, Pulse, Seen, Watches
from mesh.core.supervision import Supervision
from mesh.errors import ProtocolError
from mesh.ids import process_id
from mesh.lives import Lives, LivesConfig
from mesh.net.clock import SYSTEM, Clock
from mesh.net.connection import Connection
from mesh.net.health import HealthPort
from mesh.store.api import Store
from mesh.supervisor.candidate import Candidate
from mesh.supervisor.journal import Journal
from mesh.supervisor.leader import Leader
from mesh.supervisor.links import Links
from mesh.supervisor.peers import Peers
from mesh.supervisor.questions import Questions
from mesh.supervisor.settings import Launcher, SupervisorSettings
from mesh.supervisor.watch import Watch
from mesh.tasks import Tasks

log = logging.getLogger("mesh.supervisor")

_LAST_WORDS_S = 0.05


class Supervisor:
    """One supervisor's process.

    Args:
        settings: where it stands.
        store: its access to the store.
        launcher: starts handler processes.
        clock: what pauses and records are told by.
    """

    def __init__(
        self,
        settings: SupervisorSettings,
        store: Store,
        launcher: Launcher,
        clock: Clock = SYSTEM,
    ) -> None:
        self.settings = settings
        self.ended = asyncio.Event()
        """Set when the mesh was told to stop, or this supervisor has failed."""
        self.failed = False
        """It has ended over a mistake of its own: another one is wanted in its place."""
        self._clock = clock
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(settings.id, self._fail)
        self.links = Links(settings, self)
        self.journal = Journal(self.links.nonce, clock, self.links.spread)
        self.peers = Peers(settings, self.links.nonce, self, self._tasks)
        self.leader = Leader(store, launcher, self.links, self.journal, clock, self._tasks)
        self.watch = Watch(settings, self.links, self.journal, clock, self._tasks, self.leader.step)
        self.leader.overhear = self.watch.overhear
        self._lives = Lives(
            store,
            LivesConfig(
                settings.mesh,
                settings.partitions,
                settings.replicas,
                settings.durability,
                settings.open_s,
            ),
            clock,
            self.journal.record,
        )
        self.candidate = Candidate(
            settings,
            store,
            self._lives,
            self.links,
            self.journal,
            self.leader,
            self.watch,
            clock,
            self._tasks,
            self._take_stock,
        )
        self.questions = Questions(
            settings,
            self.links,
            self.leader,
            self.candidate.leadership,
            self.peers,
            self._lives,
            self.journal,
            self.watch,
            self._stop_everyone,
        )
        self.health = HealthPort({"/healthz": lambda: "", "/readyz": self._why_not_ready})
        self._stopping = False

    def __repr__(self) -> str:
        return f"Supervisor({self.settings.id}, port {self.port}, {self.candidate!r})"

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.links.port

    @property
    def address(self) -> str:
        """Where it is reached, "host:port"."""
        return f"{self.settings.host}:{self.port}"

    @property
    def core(self) -> Supervision | None:
        """The brain, while this supervisor leads."""
        return self.leader.core

    async def listen(self) -> None:
        """Take the port. Handlers, wardens, clients and others may come from here on.

        Raises:
            SetupError: the address is taken, or not this machine's.
        """
        await self.links.open()
        if self.settings.health_port is not None:
            await self.health.open(self.settings.host, self.settings.health_port)
            log.info("health is told at %s:%d", self.settings.host, self.health.port)

    def meet(self, addresses: tuple[str, ...]) -> None:
        """Keep a link to every other supervisor from now on.

        Args:
            addresses: "host:port" of all of them, this one's too, in the order of their ranks.
        """
        self.questions.endpoints = addresses
        here = SupervisorHere(self.settings.id, self.settings.host, self.port, process_id())
        self.peers.meet(tuple(a for a in addresses if a != self.address), here)

    async def lead(self) -> None:
        """Open a life on the store and lead in it, as the first of an `up`.

        Raises:
            SetupError: the store is not fit, does not get ready in time, or belongs to another mesh.
        """
        await self.candidate.lead()

    async def stand_by(self) -> None:
        """Watch whoever leads, and bid for the lead once nobody does."""
        self.candidate.stand_by()

    async def stop(self) -> None:
        """End every task and close every socket."""
        self._halt()
        await self._tasks.close()
        await self.links.close()
        await self.health.close()
        await self._store.close()
        self.ended.set()

    async def status(self) -> dict[str, Any]:
        """What `mesh status --json` prints, as far as this supervisor knows it."""
        return self.questions.own_status()

    def _why_not_ready(self) -> str:
        """For a load balancer; empty if clients are told here who owns what."""
        if self._stopping:
            return "the mesh is being stopped"
        leadership = self.candidate.leadership
        if leadership.role is not ls.Role.LEADER and leadership.leader is None:
            return "no supervisor leads, as far as this one knows"
        return "" if self.links.table is not None else "nobody owns anything yet"

    def _halt(self) -> None:
        self._stopping = True
        self.leader.halt()
        self.candidate.halt()

    def _stop_everyone(self) -> None:
        self._halt()
        self.links.stop_everyone(self.candidate.leadership.token)
        self._loop.call_later(_LAST_WORDS_S, self.ended.set)

    def _fail(self) -> None:
        self.failed = True
        self.ended.set()

    # ----------------------------------------------------------- what other supervisors say

    def on_peer(self, message: Message) -> None:
        """See PeersHeard."""
        match message:
            case Leading(token, life, id_):
                self.candidate.step(ls.LeadingHeard(token, life, id_))
            case LeaderBeat(token, life, set_version):
                self._lives.heard(life, set_version)
                self.candidate.step(ls.BeatHeard(token))
            case Happened():
                self.journal.hear(message)
            case Stop(token):
                if token >= self.candidate.leadership.token and not self._stopping:
                    self._halt()
                    self.ended.set()
            case _:
                raise ProtocolError(f"no supervisor says {type(message).__name__} to another")

    def on_peer_table(self, body: bytes) -> None:
        """See PeersHeard."""
        self.links.pass_on(body)

    def on_peer_lost(self, id: str) -> None:
        """See PeersHeard."""
        self.candidate.step(ls.LinkLost(id))

    # ----------------------------------------------------------------- what is heard

    def on_new(self, conn: Connection) -> None:
        """See Heard."""
        if conn.role == "supervisor":
            for happened in self.journal.past():
                conn.send(happened.frame())

    def on_message(self, conn: Connection, message: Message) -> None:
        """See Heard."""
        step = self.leader.step
        match message:
            case Register():
                self.links.register(conn, message)
                self._lives.heard(message.life, message.set_version)
                step(sv.Registered(message))
            case Adopted():
                step(sv.GrantAdopted(message.nonce, message.version))
            case Released():
                released = [(p, e) for p, e in message.partitions]
                not_held = [(p, e) for p, e in message.not_held]
                step(sv.PartitionsReleased(message.nonce, message.token, released, not_held))
            case Dropped():
                pairs = [(p, e) for p, e in message.partitions]
                step(sv.PartitionsDropped(message.nonce, pairs))
            case Exited():
                at = self._clock.now() - message.ago_ms / 1000
                cause = self.watch.cause_of(message.nonce)
                exited = sv.ProcessExited(message.nonce, message.handler, at, cause)
                self.candidate.keep(exited)
                step(exited)
            case WardenHere():
                self.links.wardens[conn] = message
                self.watch.hear(conn, message)
                self._note(*_of_warden(message))
            case SupervisorHere():
                self.links.supervisors[conn] = message
                self._note(*_of_supervisor(message))
            case Beat():
                self.links.beats[message.nonce] = message
                self.watch.hear(conn, message)
                step(sv.Beaten(message))
            case Missing():
                self._note("loss_possible", _of_missing(message, self.links.registered))
            case Pulse() | Echo() | Seen() | Probed() | Watches() | ClientSays():
                self.watch.hear(conn, message)
            case Ask():
                work = self.questions.answer(conn, message)
                _ = self._tasks.spawn(work, f"ask {message.what}")
            case _:
                raise ProtocolError(f"a supervisor does not take {type(message).__name__}")

    def on_lost(self, conn: Connection, reason: str) -> None:
        """See Heard."""
        self.journal.followers.pop(conn, None)
        warden = self.links.wardens.pop(conn, None)
        if warden is not None:
            self.watch.lose(warden)
            fields = {"warden": warden.id, "node": warden.node, "reason": reason}
            self._note("warden_lost", fields)
        other = self.links.supervisors.pop(conn, None)
        if other is not None:
            self._note("supervisor_lost", {"supervisor": other.id, "reason": reason})
        if conn.role == "handler":
            self.leader.step(sv.ConnectionLost(conn.tag))

    def _take_stock(self) -> None:
        """Who came while nobody led is on record from here on."""
        known = {(e["kind"], e.get("pid")) for e in self.journal.events}
        arrivals = [
            *map(_of_warden, self.links.wardens.values()),
            *map(_of_supervisor, self.links.supervisors.values()),
        ]
        for kind, fields in arrivals:
            if (kind, fields["pid"]) not in known:
                self.journal.record(kind, fields)

    def _note(self, kind: str, fields: dict[str, Any]) -> None:
        """For the record, which the leader keeps: the others would say the same again."""
        if self.core is not None and not self._stopping:
            self.journal.record(kind, fields)


def _of_missing(missing: Missing, registered: Mapping[bytes, Register]) -> dict[str, Any]:
    register = registered.get(missing.nonce)
    handler = register.id if register is not None else missing.nonce.hex()
    return {"partitions": missing.partitions, "handler": handler, "life": missing.life}


def _of_warden(here: WardenHere) -> tuple[str, dict[str, Any]]:
    fields = {"warden": here.id, "node": here.node, "pid": here.pid}
    return "warden_here", {**fields, "watching": len(here.watching)}


def _of_supervisor(here: SupervisorHere) -> tuple[str, dict[str, Any]]:
    return "supervisor_here", {"supervisor": here.id, "pid": here.pid}
