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
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from mesh.client import forks
from mesh.client.connecting import Connecting
from mesh.client.endpoints import Target, locate
from mesh.client.links import Links
from mesh.client.proxy import Entity
from mesh.client.stats import ClientStats, Tally
from mesh.codec import PLAIN_CODEC, Codec
from mesh.core.calling import Call, ClientCore, Result
from mesh.core.keyspace import key_bytes, partition_of
from mesh.core.messages import Hello
from mesh.core.payload import NO_META, Meta, pack_call
from mesh.core.table import Table
from mesh.core.wire import Kind, unpack_reply
from mesh.entities import MethodRef, spec_of
from mesh.errors import (
    AuthenticationError,
    BadRequest,
    EntityError,
    MeshError,
    ProtocolError,
    Unavailable,
)
from mesh.ids import new_session
from mesh.net.clock import SYSTEM, Clock, Timer
from mesh.net.connection import Connection

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_TIMEOUT_S = 10.0
MAX_TIMEOUT_S = 86_400.0
"""How long a handler keeps what it needs to recognise a call that is sent again."""
MAX_PAYLOAD_BYTES = 2 * 1024 * 1024
BY_NAME = (
    "; called by name, it is not known which types the entity declares: call through the class"
)
CLOSED = "this client is closed; connect anew"


class AsyncClient:
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

    # A type cannot say "the method's parameters, and these options": with an option the result is still
    # checked, the arguments are only checked when the call is made.
    @overload
    async def call(
        self, method: MethodRef[P, R], key: str | bytes, /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def call(
        self,
        method: MethodRef[..., R],
        key: str | bytes,
        /,
        *args: Any,
        timeout: float,
        **kwargs: Any,
    ) -> R: ...
    @overload
    async def call(
        self, method: str, key: str | bytes, /, *args: Any, timeout: float = ..., **kwargs: Any
    ) -> Any: ...
    def call(
        self,
        method: MethodRef[..., Any] | str,
        key: str | bytes,
        /,
        *args: Any,
        timeout: Any = DEFAULT_TIMEOUT_S,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Call an entity's method on a key; a command takes effect exactly once, or not at all.

        Cancelling it ends it here and now; what was sent may still be carried out.

        Args:
            method: `Account.deposit`, or its name "Account.deposit".
            key: str or bytes, 1 to 512 bytes.
            args: the method's positional arguments; kwargs its keyword arguments.
            timeout: seconds for all attempts together, up to a day.

        Raises:
            EntityError: the method raised; the state is unchanged.
            BadRequest: unknown method, wrong arguments, or over a limit.
            Unavailable: the client is closed, or was closed before the call was sent.
            DeadlineExceeded: not executed in time.
            OutcomeUnknown: sent, and no verdict in time, or before the client was closed.
            ProtocolError: executed, and its reply cannot be decoded.
        """
        return self._call(method, key, args, kwargs, timeout, NO_META)

    async def _call(
        self,
        method: MethodRef[..., Any] | str,
        key: str | bytes,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        timeout: float,
        meta: Meta,
    ) -> Any:
        """A call from its beginning to its end, with what goes along with it."""
        partition, payload, codec = self._encode(method, key, args, kwargs, timeout, meta)
        future: asyncio.Future[Result] = self._loop.create_future()
        call = self._begin(partition, payload, timeout, _settle(future))
        try:
            result = await future
        except BaseException:
            self._cancel(call)
            raise
        return self._value(result, partition, codec)

    def entity(self, cls: type, key: str | bytes) -> Entity:
        """One key of one entity: `await client.entity(Account, "alice").deposit(5)`."""
        return Entity(self.call, spec_of(cls), key, DEFAULT_TIMEOUT_S)

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

    def _encode(
        self,
        method: MethodRef[..., Any] | str,
        key: str | bytes,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        timeout: float,
        meta: Meta = NO_META,
    ) -> tuple[int, bytes, Codec]:
        """Check a call and write it down, and say what its reply is read with; in any thread."""
        raw = key_bytes(key)
        if isinstance(method, MethodRef):
            method.method.check(args, kwargs)
            spec = spec_of(method.owner)
            name, codec = f"{spec.name}.{method.method.name}", spec.codec
        elif isinstance(method, str) and "." in method:
            name, codec = method, PLAIN_CODEC
        else:
            raise BadRequest(f'method must be Entity.method or "Entity.method", not {method!r:.80}')
        try:
            payload = pack_call(codec, name, raw, args, kwargs, meta.encode())
        except (TypeError, ValueError) as error:
            hint = BY_NAME if codec is PLAIN_CODEC else ""
            raise BadRequest(f"arguments of {name} cannot be sent: {error}{hint}") from None
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise BadRequest(
                f"arguments of {name} take {len(payload)} bytes, the limit is {MAX_PAYLOAD_BYTES}"
            )
        if self._over:
            raise Unavailable(self._over)
        try:
            fits = 0 < timeout <= MAX_TIMEOUT_S  # not true of nan
        except TypeError:
            fits = False
        if not fits:
            raise BadRequest(
                f"timeout must be above 0 seconds and up to {MAX_TIMEOUT_S:g}, not {timeout!r}"
            )
        return partition_of(raw, self._partitions), payload, codec

    def _begin(
        self, partition: int, payload: bytes, timeout: float, done: Callable[[Result], None]
    ) -> Call:
        """Send it, or have it wait for its owner."""
        self._tally.started += 1
        call = self._core.call(partition, payload, timeout, self._clock.now(), done)
        if self._timer is None or call.deadline < self._timer_at:
            self._arm()
        return call

    def _cancel(self, call: Call) -> None:
        """Its caller does not wait any more, whether or not it has ended."""
        self._tally.cancelled += 1
        self._core.cancel(call)

    def _value(self, result: Result, partition: int, codec: Codec) -> Any:
        """What its caller gets, returned or raised, and counted."""
        error = result.error
        try:
            if error is None:
                value = codec.unpack(result.payload)
                self._tally.ok += 1
                return value
            if isinstance(error, EntityError):
                # Still as the handler wrote them: the core knows no codec.
                packed: Any = error.details
                error.details = codec.unpack(packed)
        except ValueError as cause:
            what = "reply" if error is None else f"error ({error.message})"
            error = ProtocolError(
                f"the call was executed, its {what} cannot be decoded: {cause}",
                executed=True,
                partition=partition,
            )
            error.__cause__ = cause
        self._tally.failed(error)
        raise error

    # ---------------------------------------------------------- connections

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        """See Receiver."""
        now = self._clock.now()
        for kind, body in frames:
            if kind == Kind.REPLY:
                reply = unpack_reply(body)
                self._core.on_reply(conn.tag, reply.counter, reply.status, reply.payload, now)
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
        self._core.on_down(nonce, self._clock.now())
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
        self._core.on_up(nonce, self._clock.now())
        self._arm()

    def _on_refused(self, address: str, error: MeshError) -> None:
        self._refused[address] = error
        refusals = [self._refused.get(other) for other in self._addresses]
        if all(isinstance(refusal, AuthenticationError) for refusal in refusals):
            self._settled.set()

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
        self._core.on_timer(self._clock.now())
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


__all__ = ["AsyncClient", "Call", "ClientStats", "Entity", "connect", "open_client"]
