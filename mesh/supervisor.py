"""A supervisor without Ray: the brain of mesh.core.supervision with sockets, a store and a clock round it.

It leads from the start: it opens a life on the store's primary, waits for the handlers, and from then on does
what the core decides. Clients may bootstrap here and get every new table; they need none of it to go on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from mesh.core import signals as sv
from mesh.core.members import Member, SupervisionConfig
from mesh.core.messages import (
    Adopted,
    Answer,
    Ask,
    Beat,
    Dropped,
    Exited,
    Hello,
    Message,
    Register,
    Released,
    Stop,
    WardenHere,
    Welcome,
    unpack_message,
)
from mesh.core.records import Takeover
from mesh.core.supervision import Supervision
from mesh.core.syncset import Durability, InSyncSet
from mesh.core.wire import Kind, Limits, pack_frame
from mesh.errors import MeshError, ProtocolError
from mesh.ids import new_nonce
from mesh.lives import Lives, LivesConfig
from mesh.net.clock import SYSTEM, Clock
from mesh.net.connection import Connection
from mesh.net.listener import Listener
from mesh.store.api import Store, StoreRefused, StoreUnreachable
from mesh.wording import in_words, level_of

log = logging.getLogger("mesh.supervisor")

_TICK_S = 0.05
_KEPT_EVENTS = 10_000
_GIVE_UP_S = 10.0


class Launcher(Protocol):
    """How handler processes are started; Ray's side of the supervisor."""

    async def start_handler(self, id: str) -> None:
        """Start a process for that handler, and end any other that bears its name.

        Called only where none is an alive member. Raises if it cannot be started; then, and when
        it is cancelled, nothing of that process is left.
        """
        ...


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """Where a supervisor stands and what it looks after.

    Attributes:
        mesh: the mesh's name.
        id: of this supervisor.
        handlers: ids of the handlers that should run.
        replicas: how many of the store's replicas have to be attached before a life is opened.
        durability: what an acknowledgement stands for.
        open_s: seconds that the store has for being ready to open a life.
        about: what `mesh status` adds: the store's nodes, Ray's address.
    """

    mesh: str
    id: str
    handlers: tuple[str, ...]
    partitions: int
    host: str = "127.0.0.1"
    port: int = 0
    token: str = ""
    replicas: int = 2
    durability: Durability = "replicated"
    open_s: float = 15.0
    restart_after_s: float = 0.25
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    about: dict[str, Any] = field(default_factory=dict)


class Supervisor:
    """The leader's process.

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
        self._clock = clock
        self.ended = asyncio.Event()
        """Set when the mesh was told to stop."""
        self._store = store
        self._launcher = launcher
        self._loop = asyncio.get_running_loop()
        self._nonce = new_nonce()
        self._listener = Listener(self, settings.mesh, settings.token, settings.limits)
        self._core: Supervision | None = None
        self._sync_set = InSyncSet(0, frozenset())
        self._early: list[sv.Event] = []
        self._links: dict[bytes, Connection] = {}
        """The newest connection of each handler process; it may not have registered yet."""
        self._handlers: dict[bytes, Connection] = {}
        self._wardens: dict[Connection, WardenHere] = {}
        self._beats: dict[bytes, Beat] = {}
        self._events: deque[dict[str, Any]] = deque(maxlen=_KEPT_EVENTS)
        self._followers: dict[Connection, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    def __repr__(self) -> str:
        return f"Supervisor({self.settings.id}, port {self.port}, {self._core!r})"

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listener.port

    async def listen(self) -> None:
        """Take the port. Handlers and wardens may come from here on; they wait for the life."""
        await self._listener.open(self.settings.host, self.settings.port)

    async def lead(self) -> None:
        """Open a life on the store and start supervising.

        Raises:
            SetupError: the store is not fit, does not get ready in time, or belongs to another mesh.
        """
        s = self.settings
        lives = Lives(
            self._store,
            LivesConfig(s.mesh, s.partitions, s.replicas, s.durability, s.open_s),
            self._clock,
        )
        # Supervision places everything anew: it knows nothing of the processes of an earlier up.
        opened = await lives.open_first(end_grants=True)
        life, token, self._sync_set = opened.life, opened.token, opened.sync_set
        config = SupervisionConfig(
            self.settings.handlers, restart_after_s=self.settings.restart_after_s
        )
        self._core = Supervision(
            config, partitions=self.settings.partitions, life=life, token=token
        )
        self._record("leading", {"supervisor": self.settings.id, "life": life, "token": token})
        early, self._early = self._early, []
        for event in early:
            self._step(event)
        self._spawn(self._tick(), "tick")

    async def stop(self) -> None:
        """End every task and close every socket."""
        self._stopping = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listener.close()
        await self._store.close()
        self.ended.set()

    # ------------------------------------------------------------- listener

    def on_hello(self, conn: Connection, hello: Hello) -> Message:
        """See Service."""
        s = self.settings
        if conn.role == "handler":
            earlier = self._links.get(conn.tag)
            if earlier is not None:
                # Its process has given it up. What is still under way on it, were it read behind the new
                # one's words, would take us back to a connection on which nobody listens.
                earlier.abort()
            self._links[conn.tag] = conn
        return Welcome(s.mesh, "supervisor", s.id, self._nonce, s.partitions)

    def on_ready(self, conn: Connection) -> None:
        """See Service."""
        if conn.role == "client" and self._core is not None and self._core.table is not None:
            conn.send(pack_frame(Kind.TABLE, self._core.table.encode()))

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        """See Service."""
        for kind, body in frames:
            if kind != Kind.CONTROL:
                raise ProtocolError("a supervisor takes no requests; the table names the handlers")
            self._on_message(conn, unpack_message(body))

    def on_closed(self, conn: Connection, reason: str) -> None:
        """See Service."""
        self._followers.pop(conn, None)
        warden = self._wardens.pop(conn, None)
        if warden is not None and not self._stopping:
            self._record(
                "warden_lost", {"warden": warden.id, "node": warden.node, "reason": reason}
            )
        if self._links.get(conn.tag) is conn:
            del self._links[conn.tag]
        if conn.role == "handler" and self._handlers.get(conn.tag) is conn:
            del self._handlers[conn.tag]
            self._step(sv.ConnectionLost(conn.tag))

    def _on_message(self, conn: Connection, message: Message) -> None:
        match message:
            case Register():
                self._handlers[message.nonce] = conn
                self._step(sv.Registered(message))
            case Adopted():
                self._step(sv.GrantAdopted(message.nonce, message.version))
            case Released():
                self._step(
                    sv.PartitionsReleased(
                        message.nonce,
                        message.token,
                        [(p, e) for p, e in message.partitions],
                        [(p, e) for p, e in message.not_held],
                    )
                )
            case Dropped():
                pairs = [(p, e) for p, e in message.partitions]
                self._step(sv.PartitionsDropped(message.nonce, pairs))
            case Exited():
                at = self._clock.now() - message.ago_ms / 1000
                self._step(sv.ProcessExited(message.nonce, message.handler, at))
            case WardenHere():
                self._wardens[conn] = message
                known = {"warden": message.id, "node": message.node, "pid": message.pid}
                self._record("warden_here", {**known, "watching": len(message.watching)})
            case Beat():
                self._beats[message.nonce] = message
                self._step(sv.Beaten(message))
            case Ask():
                self._spawn(self._answer(conn, message), f"ask {message.what}")
            case _:
                raise ProtocolError(f"a supervisor does not take {type(message).__name__}")

    # -------------------------------------------------------------- effects

    def _step(self, event: sv.Event) -> None:
        if self._stopping:
            # Handlers end because they were told to: none of them is to be taken over or replaced.
            return
        if self._core is None:
            self._early.append(event)
            return
        for effect in self._core.step(event, self._clock.now()):
            self._perform(effect)

    def _perform(self, effect: sv.Effect) -> None:  # noqa: C901 - a table, one line an effect
        match effect:
            case sv.CallStore(call):
                self._spawn(self._call_store(call), "takeover")
            case sv.TellGrant(nonce, grant):
                self._tell(nonce, grant)
            case sv.AskRelease(nonce, release):
                self._tell(nonce, release)
            case sv.TellTable(nonce, table):
                if conn := self._handlers.get(nonce):
                    conn.send(pack_frame(Kind.TABLE, table.encode()))
            case sv.PublishTable(table):
                frame = pack_frame(Kind.TABLE, table.encode())
                # Owners first; a client that is quicker than they are would only be held there.
                for conn in self._handlers.values():
                    conn.send(frame)
                    conn.flush()
                for conn in self._listener.connections:
                    if conn.role == "client":
                        conn.send(frame)
                        conn.flush()
            case sv.AwaitPublished(operation):
                self._step(sv.Published(operation))
            case sv.StartHandler(id_):
                earlier = self._starts.get(id_)
                self._starts[id_] = self._task(self._start_handler(id_, earlier), f"start {id_}")
            case sv.Record(kind, fields, ago_s):
                self._record(kind, fields, ago_s)

    def _tell(self, nonce: bytes, message: Message) -> None:
        conn = self._handlers.get(nonce)
        if conn is not None:
            conn.send(message.frame())
            conn.flush()

    async def _call_store(self, call: Takeover) -> None:
        reply = None
        try:
            reply = await self._store.takeover(call)
        except (StoreUnreachable, StoreRefused) as error:
            log.warning("the store did not take the call, it is made again: %s", error)
        self._step(sv.StoreReplied(call.operation, reply))

    async def _start_handler(self, id_: str, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None and not earlier.done():
            # It hangs. Its late failure would be taken for this one's, which would be ended for it.
            earlier.cancel()
            await asyncio.wait((earlier,), timeout=_GIVE_UP_S)
        self._record("handler_starting", {"handler": id_})
        try:
            await self._launcher.start_handler(id_)
        except MeshError as error:
            self._step(sv.StartFailed(id_, str(error)))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._step(sv.Tick())

    def _record(self, kind: str, fields: dict[str, Any], ago_s: float = 0.0) -> None:
        event = {"kind": kind, "at": round(self._clock.wall() - ago_s, 6), **fields}
        self._events.append(event)
        log.log(level_of(event), "%s", in_words(event))
        blob = json.dumps(event).encode()
        for conn, number in self._followers.items():
            conn.send(Answer(number, "", blob).frame())

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        _ = self._task(work, name)

    def _task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._loop.create_task(work, name=f"{self.settings.id} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.critical("%s failed", task.get_name(), exc_info=task.exception())
            self.ended.set()

    # ------------------------------------------------------------ questions

    async def _answer(self, conn: Connection, ask: Ask) -> None:
        answers: dict[str, Callable[[], Awaitable[Any]]] = {
            "status": self.status,
            "events": self._list_events,
            "stop": self._stop_all,
        }
        if ask.what == "follow":
            self._followers[conn] = ask.number
            return
        answer = answers.get(ask.what)
        if answer is None:
            error = (
                f"no question is named {ask.what!r:.40}; there are {sorted(answers)} and 'follow'"
            )
            conn.send(Answer(ask.number, error, b"").frame())
            return
        conn.send(Answer(ask.number, "", json.dumps(await answer()).encode()).frame())

    async def _list_events(self) -> list[dict[str, Any]]:
        return list(self._events)

    async def _stop_all(self) -> bool:
        token = self._core.token if self._core else 0
        self._stopping = True
        for task in self._starts.values():
            task.cancel()
        for conn in self._listener.connections:
            if conn.role in ("handler", "warden"):
                conn.send(Stop(token).frame())
        self._loop.call_later(_TICK_S, self.ended.set)
        return True

    async def status(self) -> dict[str, Any]:
        """What `mesh status --json` prints."""
        s, core = self.settings, self._core
        table = core.table if core else None
        handlers = [_describe(m, table) for m in core.members] if core else []
        endpoints = [f"{s.host}:{self.port}"]
        beats = self._beats.values()
        return {
            "name": s.mesh,
            "endpoints": endpoints,
            "partitions": s.partitions,
            "ready": bool(core and core.ready),
            "table_version": list(table.version) if table else None,
            "store_life": core.life if core else None,
            "supervisors": [
                {
                    "id": s.id,
                    "role": "leader" if core and not core.deposed else "standby",
                    "pid": os.getpid(),
                    "host": s.host,
                    "port": self.port,
                }
            ],
            "wardens": [{"id": w.id, "node": w.node, "pid": w.pid} for w in self._wardens.values()],
            "handlers": sorted(handlers, key=lambda h: str(h["id"])),
            "store": {**s.about.get("store", {}), "in_sync": sorted(self._sync_set.members)},
            "outcomes": {
                "done": sum(b.done for b in beats),
                "entity_error": sum(b.entity_errors for b in beats),
                "not_executed": sum(b.not_executed for b in beats),
                "unknown": sum(b.unknown for b in beats),
            },
            "ray": s.about.get("ray", {}),
        }


def _describe(member: Member, table: Any) -> dict[str, Any]:
    row = member.row
    return {
        "id": row.id,
        "pid": member.pid,
        "host": row.host,
        "port": row.port,
        "region": row.region,
        "zone": row.zone,
        "role": "active",
        "state": member.state,
        "health": member.health,
        "partitions": table.partitions_of(row.nonce) if table else [],
        "process": row.nonce.hex(),
    }
