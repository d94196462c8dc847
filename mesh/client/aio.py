"""The async client: sockets, one timer and the callers' futures round the brain of mesh.core.calling.

It keeps a connection to every handler of the table, so that a takeover costs no connecting. Tables come
by push from whoever has a newer one; if nobody answers, the endpoints it was given are asked again.
A call makes no task and passes through no queue: it goes from its caller to the socket in one turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from mesh.client import forks
from mesh.client.calls import AsyncCalls
from mesh.client.connecting import Connecting
from mesh.client.endpoints import Target, locate
from mesh.client.keys import Paging
from mesh.client.links import Links
from mesh.client.prepared import DEFAULT_TIMEOUT_S, Prepared, prepare, prepare_listing
from mesh.client.stats import ClientStats, Tally
from mesh.core.call import Call, Result
from mesh.core.calling import ClientCore
from mesh.core.keyspace import partition_of
from mesh.core.messages import Goodbye, Hello
from mesh.core.payload import Meta
from mesh.core.table import Table
from mesh.core.wire import Kind, unpack_reply
from mesh.entities import MethodRef
from mesh.errors import AuthenticationError, MeshError, ProtocolError, Unavailable
from mesh.ids import new_session
from mesh.net import clock
from mesh.net.clock import SYSTEM, Clock, Timer
from mesh.net.connection import Connection
from mesh.net.watched import WatchedCall
from mesh.observe import observers

P = ParamSpec("P")
R = TypeVar("R")

E = TypeVar("E")

_NAP_S = 1.0
_REPLY: int = Kind.REPLY  # an enum's member takes 80 ns to look up
CLOSED = "this client is closed; connect anew"


class AsyncClient(AsyncCalls):
    """Calls entities by key. Made by `mesh.connect`; close it, or use it as a context manager.

    It belongs to the loop, and to the process, that it was made in.

    Args:
        endpoints: "host:port" of supervisors or handlers; any one that answers is enough.
        token: the mesh's secret, where it has one.
        mesh: refuse a mesh of another name.
    """

    def __init__(self, endpoints: Sequence[str], *, token: str = "", mesh: str = "") -> None:
        session = new_session()
        self._addresses = tuple(endpoints)
        self._loop = asyncio.get_running_loop()
        self._links = Links(
            self,
            Hello(mesh, "client", token),
            on_up=self._on_up,
            on_refused=self._on_refused,
            dice=Random(session),
        )
        self._core = ClientCore(session, self._links)
        self._tally = Tally()
        self._clock: Clock = SYSTEM  # mesh.testing puts another in its place
        self._asleep = clock.asleep
        self._slept = clock.asleep()
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._settled = asyncio.Event()
        """There is a table, or there will be none."""
        self._refused: dict[str, MeshError] = {}
        self._partitions = 0
        self._over = ""
        """Why it takes no more calls; empty while it does."""
        self._pid = os.getpid()
        forks.watch(self)

    def __repr__(self) -> str:
        return f"<AsyncClient {','.join(self._addresses)}, {self.state}>"

    # ---------------------------------------------------------------- public

    async def start(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Connect to the mesh and learn who owns what.

        Raises:
            Unavailable: no endpoint answered with a table in time.
            AuthenticationError: the token is wrong.
        """
        for address in self._addresses:
            self._links.keep(address)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()
        if self._core.table is not None:
            return
        if self._over:
            raise Unavailable(self._over)
        await self.close()
        refusals = list(self._refused.values())
        auth = [error for error in refusals if isinstance(error, AuthenticationError)]
        if auth:
            raise auth[0]
        why = refusals[0] if refusals else "the mesh has no table yet"
        raise Unavailable(
            f"no table from {', '.join(self._addresses)} within {timeout_s:g} s: {why}"
        )

    async def _call(
        self,
        method: MethodRef[..., Any] | str,
        key: str | bytes,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        timeout: float,
        meta: Meta,
        priority: int | None = None,
    ) -> Any:
        """A call from its beginning to its end, with what goes along with it."""
        return await self._carry_out(
            self._prepare(method, key, args, kwargs, timeout, meta, priority)
        )

    async def _list(self, paging: Paging, timeout: float) -> None:
        paging.take(await self._carry_out(self._prepare_page(paging, timeout)))

    def _paging(
        self, entity: type[Any] | str, prefix: str | bytes, cursor: str, limit: int
    ) -> Paging:
        return Paging(entity, prefix, cursor, limit, self._partitions)

    def _time(self) -> float:
        return self._clock.now()

    async def _carry_out(self, prepared: Prepared) -> Any:
        future: asyncio.Future[Result] = self._loop.create_future()
        call = self._begin(prepared, _settle(future))
        try:
            result = await future
        except BaseException:
            self._cancel(call)
            raise
        return self._value(prepared, result)

    def stats(self) -> ClientStats:
        """What became of the calls so far."""
        return self._tally.stats()

    @property
    def table(self) -> Table | None:
        """The newest table that this client has heard of."""
        return self._core.table

    @property
    def state(self) -> str:
        """In a few words, for people."""
        if self._over:
            return "closed" if self._over == CLOSED else "of another process"
        return f"{self._links.handlers} handlers connected"

    async def close(self) -> None:
        """End every call, each with what is known of it, and every connection."""
        if self._over and self._over != CLOSED:
            return
        if not self._over:
            self._over = CLOSED
            self._settled.set()
            self._core.close("the client was closed")
            if self._timer is not None:
                self._timer.cancel()
                self._timer_at = -math.inf  # and stays where it is: nothing is due any more
        await self.leave()

    async def leave(self) -> None:
        """End every connection; say that this session is over, if all that was sent was answered."""
        if self._core.is_answered:
            self._links.tell(Goodbye(self._core.session).frame())
        await self._links.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def orphan(self) -> list[int]:
        """See Forkable."""
        self._over = forks.reason(self._pid)
        return self._links.orphan()

    # ------------------------------------------- a call's steps, for both clients

    def _prepare(
        self,
        method: MethodRef[..., Any] | str,
        key: str | bytes,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        timeout: float,
        meta: Meta,
        priority: int | None = None,
    ) -> Prepared:
        """Check a call and write it down; in any thread.

        Raises:
            BadRequest: what can be seen without asking the mesh.
            Unavailable: the client is closed.
        """
        prepared = prepare(method, key, args, kwargs, timeout, priority, meta)
        if self._over:
            raise Unavailable(self._over, idempotency_key=prepared.idempotency_key)
        return prepared

    def _prepare_page(self, paging: Paging, timeout: float) -> Prepared:
        """The same, of what a page needs next."""
        partition, args = paging.next()
        prepared = prepare_listing(paging.method, partition, args, timeout)
        if self._over:
            raise Unavailable(self._over)
        return prepared

    def _begin(self, prepared: Prepared, done: Callable[[Result], None]) -> Call:
        """Send it, or have it wait for its owner."""
        key, payload, timeout, priority, own, *_ = prepared
        self._tally.started += 1
        partition = partition_of(key, self._partitions) if key else prepared.partition
        now = self._clock.now
        if observers.wanted:
            done = WatchedCall(self._core.session, partition, payload, done, now)
        call = self._core.call(partition, payload, timeout, now(), done, priority, own)
        if type(done) is WatchedCall:
            done.begun(call)
        if self._timer is None or call.deadline < self._timer_at:
            self._arm()
        return call

    def _cancel(self, call: Call) -> None:
        """Its caller does not wait any more, whether or not it has ended."""
        self._tally.cancelled += 1
        if type(call.done) is WatchedCall:
            call.done.cancelled()
        self._core.cancel(call)

    def _value(self, prepared: Prepared, result: Result) -> Any:
        """What its caller gets, returned or raised, and counted."""
        try:
            value = prepared.reads(prepared, result, self._known)
        except MeshError as error:
            self._tally.failed(error)
            raise
        self._tally.ok += 1
        return value

    def _known(self, prepared: Prepared) -> dict[str, Any]:
        key, partition = prepared.key, prepared.partition
        if key:
            partition = partition_of(key, self._partitions)
        return self._core.known(partition, prepared.idempotency_key)

    # ---------------------------------------------------------- connections

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        """See Receiver."""
        now = self._now()
        nonce, on_reply = conn.tag, self._core.on_reply
        for kind, body in frames:
            if kind == _REPLY:
                counter, status, payload = unpack_reply(body)
                on_reply(nonce, counter, status, payload, now)
            elif kind == Kind.TABLE:
                self._on_table(body, now)
            elif kind != Kind.CONTROL:
                raise ProtocolError(f"a client does not take frames of kind {kind}")
        self._arm()

    def on_closed(self, conn: Connection, reason: str) -> None:
        """See Receiver."""
        nonce = self._links.drop(conn)
        if nonce is None:
            return
        self._core.on_down(nonce, self._now())
        self._arm()
        row = self._core.table.row(nonce) if self._core.table else None
        if row is not None:
            self._links.connect(row)

    def _on_table(self, body: bytes, now: float) -> None:
        if self._core.table is not None and Table.peek(body) <= self._core.table.version:
            return
        table = Table.decode(body)
        self._partitions = len(table)
        self._core.on_table(table, now)
        self._settled.set()

    def _on_up(self, nonce: bytes) -> None:
        self._core.on_up(nonce, self._now())
        self._arm()

    def _on_refused(self, address: str, error: MeshError) -> None:
        self._refused[address] = error
        refusals = [self._refused.get(other) for other in self._addresses]
        if all(isinstance(refusal, AuthenticationError) for refusal in refusals):
            self._settled.set()

    def _now(self) -> float:
        """The time, for what may send a call again: its age has to count the machine's sleep."""
        asleep = self._asleep()
        if asleep - self._slept > _NAP_S:
            self._core.on_slept(asleep - self._slept)
            self._slept = asleep
        return self._clock.now()

    def _arm(self) -> None:
        """One timer, whatever the number of calls."""
        due = self._core.next_timer()
        if due is None or (self._timer is not None and self._timer_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._clock.call_later(max(0.0, due - self._clock.now()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._core.on_timer(self._now())
        self._arm()


def _settle(future: asyncio.Future[Result]) -> Callable[[Result], None]:
    def done(result: Result) -> None:
        if not future.done():
            future.set_result(result)

    return done


def connect(
    *endpoints: str, token: str | None = None, mesh: str = "", timeout: float = DEFAULT_TIMEOUT_S
) -> Connecting[AsyncClient]:
    """Connect to a mesh: `client = await mesh.connect(...)`, or `async with mesh.connect(...) as client`.

    Args:
        endpoints: "host:port" of supervisors or handlers; also several in one string, with commas.
            None: those in MESH_ENDPOINTS, else the mesh that runs on this machine.
        token: the mesh's secret, where it has one; None: MESH_TOKEN.
        mesh: refuse to connect to a mesh of another name.
        timeout: seconds until a table has to be there.

    Raises:
        Unavailable: no endpoint answered, or none is given and no mesh runs on this machine.
        AuthenticationError: the token is wrong.
        BadRequest: an endpoint is not "host:port".
    """
    return Connecting(_connect(endpoints, token, mesh, timeout))


async def _connect(
    endpoints: tuple[str, ...], token: str | None, mesh: str, timeout: float
) -> AsyncClient:
    # Where a Ray is asked for the mesh, that takes seconds.
    target = await asyncio.to_thread(locate, endpoints, token, mesh)
    return await open_client(target, timeout)


async def open_client(target: Target, timeout: float) -> AsyncClient:
    """A client of that mesh, connected, or nothing."""
    client = AsyncClient(target.addresses, token=target.token, mesh=target.mesh)
    try:
        await client.start(timeout)
    except BaseException:
        # Cancelled, too: nobody has it, so nobody else would ever close it.
        await client.close()
        raise
    return client


__all__ = ["AsyncClient", "Call", "ClientStats", "connect", "open_client"]
