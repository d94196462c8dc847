"""A handler without Ray: the brain of mesh.core.handling with sockets, a store and a clock round it.

This shell decides nothing. It feeds frames to the core, carries its batches and reads to the store, and takes
its messages to the leader.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from mesh.callers import Callers
from mesh.core.handling import HandlerCore
from mesh.core.messages import (
    Beat,
    Complaints,
    Goodbye,
    Grant,
    Hello,
    Leading,
    Message,
    Register,
    Release,
    Stop,
    Welcome,
    unpack_message,
)
from mesh.core.runs import Run
from mesh.core.table import Table
from mesh.core.tenure import Conn, Pending
from mesh.core.wire import Kind, pack_frame, unpack_request
from mesh.entities import Registry
from mesh.errors import BadRequest, ProtocolError
from mesh.hearsay import Hearsay
from mesh.heart import MakeHeart, ThreadHeart
from mesh.ids import new_nonce, process_id
from mesh.lanes import Lanes
from mesh.leaders import LeaderLinks
from mesh.net.clock import SYSTEM, Clock, ahead
from mesh.net.connection import Connection
from mesh.net.health import HealthPort
from mesh.net.listener import Listener
from mesh.net.pidfd import hand_over
from mesh.net.watched import tell_tenure, watch_request
from mesh.node_settings import NodeSettings
from mesh.observe import observers
from mesh.presence import HandOver, Presence
from mesh.reader import Reader
from mesh.resources import Resources
from mesh.runs import Peer, Runner
from mesh.store.api import Store
from mesh.tasks import Tasks
from mesh.vitals import Running, Vitals

log = logging.getLogger("mesh.node")

Connect = Callable[[str, Clock], Awaitable[Peer]]
"""Makes a client of the handler at an address, which tells the time by that clock."""

_TIMER_S = 0.02
_SETTLE_EVERY = 4096


class Node:
    """One handler process.

    Args:
        settings: where it stands.
        registry: the entities it runs.
        store: its access to the store, its own.
        clock: what deadlines and waits are told by.
        connect: makes a client of this very handler, by its address; for methods that call other entities.
        settle_memory: takes what is there out of the collector's sight. Called for every few thousand keys,
            since a full collection goes through all of them while calls wait.
        hand_over: has the warden watch this process.
        heart: makes what beats for it; None: nothing does, and only its exit is noticed.
    """

    def __init__(
        self,
        settings: NodeSettings,
        registry: Registry,
        store: Store,
        clock: Clock = SYSTEM,
        connect: Connect | None = None,
        settle_memory: Callable[[], None] = lambda: None,
        hand_over: HandOver = hand_over,
        heart: MakeHeart | None = ThreadHeart,
    ) -> None:
        self.settings = settings
        self._settle_memory = settle_memory
        self._settled = 0
        self._clock = clock
        self.nonce = new_nonce()
        self.ended = asyncio.Event()
        """Set when this process has nothing left to do: told to stop, or its grant revoked."""
        self._store = store
        self._core = HandlerCore(self.nonce, settings.partitions, registry, settings.handling)
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(settings.id, self.ended.set)
        self._runner = Runner(self._on_ran, self._open_peer, settings.id)
        self._core.home.now = clock.now
        self._core.home.wall = clock.wall
        if clock is SYSTEM:
            self._core.home.ahead = ahead
        self._core.on_tenure = partial(tell_tenure, settings.id)
        self._lanes = Lanes(settings.id, self._core, store, clock, self._turn, self._tasks.step)
        self._core.home.call = self._runner.call
        self._resources = Resources(
            registry.specs, self._core.home.resources, settings.handling.health_s
        )
        self._listener = Listener(self, settings.mesh, settings.token, settings.handling.limits)
        self._reader = Reader(self._core, store, clock, self._wake)
        self._leaders = LeaderLinks(
            settings.supervisors,
            Hello(settings.mesh, "handler", settings.token, self.nonce),
            settings.partitions,
            self,
            self._registration,
            self._report,
            self._core.to_repeat,
        )
        self._turning = False
        self._callers = Callers(self._core.retention)
        self._hearsay = Hearsay(self._leaders.tell, self._callers.machines, clock.now)
        self._core.retention.now = int(clock.wall())
        core = self._core
        limits = (m.limit_s for spec in registry.specs for m in spec.methods.values())
        self._vitals = Vitals(
            self.nonce,
            clock.now,
            lambda: core.counts,
            lambda: core.home.lease.until,
            self._on_loop,
            max(filter(None, limits), default=core.home.run_limit_s),
        )
        self._health = HealthPort({"/healthz": lambda: "", "/readyz": self._why_not_ready})
        self._presence = Presence(
            settings.id,
            Hello(settings.mesh, "handler", settings.token, self.nonce),
            settings.supervisors,
            settings.warden,
            self._vitals,
            hand_over,
            heart,
            settings.timing.beat_s,
            self._tasks.spawn,
        )

    def __repr__(self) -> str:
        return f"Node({self.settings.id}, port {self._listener.port}, {self._core!r})"

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listener.port

    async def start(self) -> None:
        """Prepare the entities, listen, be watched by the warden, then offer itself to the supervisor.

        Raises:
            SetupError: an entity's on_start failed.
        """
        s = self.settings
        await self._resources.start()
        await self._listener.open(s.host, s.port)
        if s.health_port is not None:
            await self._health.open(s.host, s.health_port)
            self._vitals.health_port = self._health.port
        await self._presence.begin()
        _ = self._tasks.spawn(self._run_timer(), "timer")
        for name, loop in (*self._reader.loops(), *self._leaders.loops()):
            _ = self._tasks.spawn(loop, name)
        if self._resources.has_checks:
            _ = self._tasks.spawn(self._resources.watch(), "health checks")

    async def stop(self, *, in_order: bool = True) -> None:
        """End every task and close every socket.

        Args:
            in_order: let the entities clean up behind themselves; a process that is killed does not.
        """
        self._presence.end()
        self._lanes.stop()
        await self._tasks.close()
        self._leaders.close()
        await self._listener.close()
        await self._health.close()
        await self._runner.close()
        if not in_order:
            self._resources.abandon()
        await self._resources.stop()
        await self._store.close()
        self.ended.set()

    def _why_not_ready(self) -> str:
        """For a load balancer; empty if calls are answered here."""
        core = self._core
        if core.revoked or self.ended.is_set():
            return "this process serves nothing any more; another takes its place"
        if not core.grant.version:
            return "no supervisor has granted it anything yet"
        if not core.home.is_leased():
            return "its lease is out: the store does not acknowledge what it writes"
        return ""

    # ------------------------------------------------------------- listener

    def on_hello(self, conn: Connection, hello: Hello) -> Message:
        """See Service."""
        if hello.role == "client":
            self._callers.came(conn, self._clock.wall())
        return Welcome(
            self.settings.mesh, "handler", self.settings.id, self.nonce, self.settings.partitions
        )

    def on_ready(self, conn: Connection) -> None:
        """See Service."""
        if self._core.table is not None:
            conn.send(pack_frame(Kind.TABLE, self._core.table.encode()))

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        """Frames from clients, and from the leader on the link that this side opened."""
        now = self._clock.now()
        if conn.role == "client":
            wall = self._clock.wall()
            self._core.retention.now = int(wall)
            if not self._callers.hear(conn, wall):
                return
        for kind, body in frames:
            if kind == Kind.REQUEST:
                request = unpack_request(body)
                watched: Conn = self._vitals.sample(conn) if self._vitals.wants_sample else conn
                if observers.wanted:
                    watched = watch_request(watched, request, self.settings.id, self._clock.now)
                self._core.on_request(watched, request, now)
            elif kind == Kind.CONTROL and conn.role == "client":
                self._on_client(conn, unpack_message(body))
            elif kind == Kind.CONTROL and conn.role == "probe":
                self._presence.on_probe(conn, unpack_message(body))
            elif conn.role != "supervisor":
                raise ProtocolError(f"a {conn.role} does not send frames of kind {kind}")
            elif kind == Kind.TABLE:
                self._on_table(body, now)
            elif kind == Kind.CONTROL:
                self._on_supervisor(conn, unpack_message(body), now)
        self._wake()

    def on_closed(self, conn: Connection, reason: str) -> None:
        """See Service."""
        self._callers.gone(conn)
        self._leaders.on_closed(conn, reason)

    # -------------------------------------------------------------- clients

    def _on_client(self, conn: Connection, message: Message) -> None:
        if isinstance(message, Goodbye):
            self._core.on_goodbye(message.session)
        elif isinstance(message, Complaints):
            self._hearsay.pass_on(conn, message)
        else:
            raise ProtocolError(f"a client does not send {type(message).__name__}")

    # --------------------------------------------------------------- leader

    def _on_supervisor(self, conn: Connection, message: Message, now: float) -> None:
        if isinstance(message, Leading):
            if self._core.on_leading(message.token, now):
                log.info("%s leads, by token %d", message.id, message.token)
            self._leaders.on_leading(conn, message)
        elif not self._leaders.leads(conn):
            log.info("%s is not heeded: who says it does not lead", type(message).__name__)
        elif isinstance(message, Grant):
            self._core.on_grant(message, now)
            self._lanes.on_grant()
            self._reader.on_grant()
        elif isinstance(message, Release):
            self._core.on_release(message)
        elif isinstance(message, Stop) and self._core.hears(message.token):
            self.ended.set()
        else:
            self._presence.on_leader(conn, message)

    def _on_table(self, body: bytes, now: float) -> None:
        if self._core.table is not None and Table.peek(body) <= self._core.table.version:
            return
        self._core.on_table(Table.decode(body), now)
        # Every handler passes tables on, so that clients hear of them without any supervisor.
        self._callers.tell(pack_frame(Kind.TABLE, body))

    def _registration(self) -> Register:
        s, core = self.settings, self._core
        return Register(
            s.id,
            self.nonce,
            s.host,
            self.port,
            process_id(),
            s.warden,
            s.weight,
            s.region,
            s.zone,
            core.grant.life,
            core.grant.version,
            core.held_epochs(),
            core.set_version,
        )

    def _report(self) -> Beat:
        self._core.health = self._resources.health
        self._core.async_lag_s = self._store.async_lag_s()
        return self._core.beat()

    # ----------------------------------------------------------------- runs

    def _on_loop(self) -> Running | None:
        """The method that keeps the loop at this moment; asked by the heart, from another thread."""
        source = self._core.home.here.source
        if isinstance(source, Pending):
            limit_s = source.method.limit_s or self._core.home.run_limit_s
            return Running(source, f"{source.spec.name}.{source.method.name}", limit_s)
        run = self._runner.on_loop()
        return Running(run, run.name, run.limit_s) if run is not None else None

    def _on_ran(self, run: Run, result: Any, error: BaseException | None) -> None:
        self._tasks.step(self._core.on_ran, run, result, error, self._clock.now())
        self._wake()

    async def _open_peer(self) -> Peer:
        """This handler's own client: its calls take the same way as anyone's."""
        if self._connect is None:
            raise BadRequest("this handler was given no client to call other entities with")
        return await self._connect(f"{self.settings.host}:{self.port}", self._clock)

    # ---------------------------------------------------------------- store

    def _wake(self) -> None:
        """Once this turn's frames are all taken in, let the store loops see what has come together."""
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._tasks.step, self._turn)

    def _turn(self) -> None:
        self._turning = False
        core = self._core
        now = self._clock.now()
        core.settle(now)
        self._lanes.send(now)
        self._reader.look()
        if core.runs.is_due:
            for run in core.runs.take_stops():
                self._runner.stop(run)
            for run in core.take_runs(now):
                self._runner.start(run)
        for message in core.take_messages():
            self._leaders.tell(message)
        if core.revoked and not self.ended.is_set():
            log.warning("the grant of %s was revoked; this process ends", self.settings.id)
            self.ended.set()

    async def _run_timer(self) -> None:
        while True:
            await asyncio.sleep(_TIMER_S)
            self.look_at_the_clock()

    def look_at_the_clock(self) -> None:
        """Do what is due by now. Called every 20 ms, and by whoever has moved the clock."""
        wall = self._clock.wall()
        self._core.retention.now = int(wall)
        self._core.on_timer(self._clock.now())
        if self._core.taken_in >= self._settled + _SETTLE_EVERY:
            self._settled = self._core.taken_in
            self._settle_memory()
        self._callers.end_silent(wall)
        # The lease is renewed by the loop that answers calls, and by no other: while it hangs, nothing is.
        renews = self._core.renewal_is_due(self._clock.now())
        if renews or self._core.has_queued or self._core.runs.is_due:
            self._wake()
