"""The supervisor itself: who is heard, and what becomes of it.

It leads from the start: it opens a life on the store's primary, waits for the handlers, and from then on does
what the core decides. Clients may bootstrap here and get every new table; they need none of it to go on.
"""

from __future__ import annotations

import asyncio
from typing import Any

from mesh.core import signals as sv
from mesh.core.learned import Learned
from mesh.core.members import SupervisionConfig
from mesh.core.messages import (
    Adopted,
    Ask,
    Beat,
    Dropped,
    Exited,
    Message,
    Register,
    Released,
    WardenHere,
)
from mesh.core.supervision import Supervision
from mesh.errors import ProtocolError
from mesh.lives import Lives, LivesConfig
from mesh.net.clock import SYSTEM, Clock
from mesh.net.connection import Connection
from mesh.store.api import Store
from mesh.supervisor.journal import Journal
from mesh.supervisor.leader import Leader
from mesh.supervisor.links import Links
from mesh.supervisor.questions import Questions
from mesh.supervisor.settings import Launcher, SupervisorSettings
from mesh.supervisor.tasks import Tasks

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
        """Set when the mesh was told to stop."""
        self.journal = Journal(clock)
        self.links = Links(settings, self)
        self._clock = clock
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(settings.id, self.ended.set)
        self.leader = Leader(store, launcher, self.links, self.journal, clock, self._tasks)
        self.questions = Questions(
            settings, self.links, self.leader, self.journal, self._stop_everyone
        )
        self._stopping = False

    def __repr__(self) -> str:
        return f"Supervisor({self.settings.id}, port {self.port}, {self.core!r})"

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.links.port

    @property
    def core(self) -> Supervision | None:
        """The brain, while this supervisor leads."""
        return self.leader.core

    async def listen(self) -> None:
        """Take the port. Handlers and wardens may come from here on; they wait for the life."""
        await self.links.open()

    async def lead(self) -> None:
        """Open a life on the store and start supervising.

        Raises:
            SetupError: the store is not fit, does not get ready in time, or belongs to another mesh.
        """
        s = self.settings
        wanted = LivesConfig(s.mesh, s.partitions, s.replicas, s.durability, s.open_s)
        opened = await Lives(self._store, wanted, self._clock).open_first()
        learned = Learned.of(opened.recorded, opened.versions, first=True)
        life, token = opened.life, opened.token
        self.questions.sync_set = opened.sync_set
        config = SupervisionConfig(s.handlers, restart_after_s=s.restart_after_s)
        self.journal.record("leading", {"supervisor": s.id, "life": life, "token": token})
        self.leader.begin(
            Supervision(config, partitions=s.partitions, life=life, token=token, learned=learned)
        )

    async def stop(self) -> None:
        """End every task and close every socket."""
        self._stopping = True
        self.leader.halt()
        await self._tasks.close()
        await self.links.close()
        await self._store.close()
        self.ended.set()

    async def status(self) -> dict[str, Any]:
        """What `mesh status --json` prints."""
        return await self.questions.status()

    def _stop_everyone(self) -> None:
        self._stopping = True
        self.leader.halt()
        self.links.stop_everyone(self.core.token if self.core else 0)
        self._loop.call_later(_LAST_WORDS_S, self.ended.set)

    # ----------------------------------------------------------------- what is heard

    def on_message(self, conn: Connection, message: Message) -> None:
        """See Heard."""
        step = self.leader.step
        match message:
            case Register():
                self.links.handlers[message.nonce] = conn
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
                step(sv.ProcessExited(message.nonce, message.handler, at))
            case WardenHere():
                self.links.wardens[conn] = message
                known = {"warden": message.id, "node": message.node, "pid": message.pid}
                self.journal.record("warden_here", {**known, "watching": len(message.watching)})
            case Beat():
                self.links.beats[message.nonce] = message
                step(sv.Beaten(message))
            case Ask():
                work = self.questions.answer(conn, message)
                _ = self._tasks.spawn(work, f"ask {message.what}")
            case _:
                raise ProtocolError(f"a supervisor does not take {type(message).__name__}")

    def on_lost(self, conn: Connection, reason: str) -> None:
        """See Heard."""
        self.journal.followers.pop(conn, None)
        warden = self.links.wardens.pop(conn, None)
        if warden is not None and not self._stopping:
            fields = {"warden": warden.id, "node": warden.node, "reason": reason}
            self.journal.record("warden_lost", fields)
        if conn.role == "handler":
            self.leader.step(sv.ConnectionLost(conn.tag))
