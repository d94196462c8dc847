"""The async client: connections to handlers and supervisors round the brain of mesh.core.calling.

It keeps a connection to every handler of the table, so that a takeover costs no connecting. Tables come
by push from whoever has a newer one; if nobody answers, the endpoints it was given are asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

import msgpack

from mesh.core.calling import UNDECODABLE, Call, ClientCore, Result
from mesh.core.keyspace import key_bytes, partition_of
from mesh.core.messages import Hello
from mesh.core.table import HandlerRow, Table
from mesh.core.wire import Kind, unpack_reply
from mesh.entities import EntitySpec, MethodRef, spec_of
from mesh.errors import AuthenticationError, BadRequest, MeshError, ProtocolError, Unavailable
from mesh.ids import new_session
from mesh.net import clock
from mesh.net.connection import Connection
from mesh.net.dial import dial

log = logging.getLogger("mesh.client")

DEFAULT_TIMEOUT_S = 10.0
MAX_TIMEOUT_S = 86_400.0
"""How long a handler keeps what it needs to recognise a call that is sent again."""
MAX_PAYLOAD_BYTES = 2 * 1024 * 1024
_RECONNECT_S = 0.02
_MAX_RECONNECT_S = 1.0
_DIAL_S = 1.0


class AsyncClient:
    """Calls entities by key. Made by `mesh.connect`; close it, or use it as a context manager.

    Args:
        endpoints: "host:port" of supervisors or handlers; any one that answers is enough.
        token: the mesh's secret, where it has one.
    """

    def __init__(self, endpoints: Sequence[str], *, token: str = "", mesh: str = "") -> None:
        self._endpoints = tuple(endpoints)
        self._token = token
        self._mesh = mesh
        self._loop = asyncio.get_running_loop()
        self._core = ClientCore(new_session(), self)
        self._links: dict[bytes, Connection] = {}
        self._bootstrap: dict[str, Connection] = {}
        self._dialing: dict[bytes | str, asyncio.Task[None]] = {}
        self._connected_at: dict[bytes | str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._has_table = asyncio.Event()
        self._refused: MeshError | None = None
        self._partitions = 0
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._links)} handlers connected"
        return f"<AsyncClient {','.join(self._endpoints)}, {state}>"

    # ---------------------------------------------------------------- public

    async def start(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Connect to the mesh and learn who owns what.

        Raises:
            Unavailable: no endpoint answered with a table in time.
            AuthenticationError: the token is wrong.
        """
        for address in self._endpoints:
            self._keep(address)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._has_table.wait()
        if self._core.table is None:
            await self.close()
            if isinstance(self._refused, AuthenticationError):
                raise self._refused
            why = self._refused or "the mesh has no table yet"
            raise Unavailable(
                f"no table from {', '.join(self._endpoints)} within {timeout_s:g} s: {why}"
            )

    async def call(
        self,
        method: MethodRef | str,
        key: str | bytes,
        *args: Any,
        timeout: float = DEFAULT_TIMEOUT_S,
        **kwargs: Any,
    ) -> Any:
        """Call an entity's method on a key; a command takes effect exactly once, or not at all.

        Args:
            method: `Account.deposit`, or its name "Account.deposit".
            key: str or bytes, 1 to 512 bytes.
            args: the method's positional arguments; kwargs its keyword arguments.
            timeout: seconds for all attempts together, up to a day.

        Raises:
            EntityError: the method raised; the state is unchanged.
            BadRequest: unknown method, wrong arguments, or over a limit.
            DeadlineExceeded: not executed in time.
            OutcomeUnknown: sent, and no verdict in time.
            ProtocolError: executed, and its reply cannot be decoded.
        """
        partition, payload = self._encode(method, key, args, kwargs)
        if self._closed:
            raise Unavailable("this client is closed; connect anew")
        if not 0 < timeout <= MAX_TIMEOUT_S:  # true of nan, too
            raise BadRequest(
                f"timeout must be above 0 seconds and up to {MAX_TIMEOUT_S:g}, not {timeout!r}"
            )
        future: asyncio.Future[Result] = self._loop.create_future()
        call = self._core.call(partition, payload, timeout, clock.now(), _settle(future))
        self._arm()
        try:
            result = await future
        except asyncio.CancelledError:
            self._core.cancel(call)
            raise
        if result.error is not None:
            raise result.error
        try:
            return msgpack.unpackb(result.payload, strict_map_key=False)
        except UNDECODABLE as error:
            raise ProtocolError(
                f"the call was executed, its reply cannot be decoded: {error!r:.200}",
                executed=True,
                partition=partition,
            ) from error

    def entity(self, cls: type, key: str | bytes) -> Entity:
        """One key of one entity: `await client.entity(Account, "alice").deposit(5)`."""
        return Entity(self, spec_of(cls), key, DEFAULT_TIMEOUT_S)

    @property
    def table(self) -> Table | None:
        """The newest table that this client has heard of."""
        return self._core.table

    async def close(self) -> None:
        """End every call and every connection."""
        if self._closed:
            return
        self._closed = True
        self._core.close("the client was closed")
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._dialing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for conn in (*self._links.values(), *self._bootstrap.values()):
            conn.close()
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # ------------------------------------------------------------- encoding

    def _encode(
        self, method: MethodRef | str, key: str | bytes, args: tuple[Any, ...], kwargs: Any
    ) -> tuple[int, bytes]:
        raw = key_bytes(key)
        if isinstance(method, MethodRef):
            method.method.check(list(args), kwargs)
            name = method.name
        elif "." in method:
            name = method
        else:
            raise BadRequest(f'method must be Entity.method or "Entity.method", not {method!r:.80}')
        message = [name, raw, args, kwargs] if kwargs else [name, raw, args]
        try:
            payload: bytes = msgpack.packb(message)
        except (TypeError, OverflowError, ValueError) as error:
            raise BadRequest(f"arguments of {name} cannot be sent: {error}") from None
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise BadRequest(
                f"arguments of {name} take {len(payload)} bytes, the limit is {MAX_PAYLOAD_BYTES}"
            )
        return partition_of(raw, self._partitions), payload

    # ------------------------------------------------- what the core asks for

    def send(self, nonce: bytes, frame: bytes) -> None:
        """See Ports."""
        self._links[nonce].send(frame)

    def connect(self, row: HandlerRow) -> None:
        """See Ports."""
        if row.nonce not in self._links and row.nonce not in self._dialing and not self._closed:
            self._dial(row.nonce, self._reach(row))

    def disconnect(self, nonce: bytes) -> None:
        """See Ports."""
        conn = self._links.pop(nonce, None)
        if conn is not None:
            conn.close()
        self._connected_at.pop(nonce, None)
        task = self._dialing.pop(nonce, None)
        if task is not None:
            task.cancel()

    # ---------------------------------------------------------- connections

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        """See Receiver."""
        now = clock.now()
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
        if self._links.get(conn.tag) is conn:
            del self._links[conn.tag]
            self._core.on_down(conn.tag, clock.now())
            self._arm()
            row = self._core.table.row(conn.tag) if self._core.table else None
            if row is not None:
                self.connect(row)
        for address, other in list(self._bootstrap.items()):
            if other is conn:
                del self._bootstrap[address]
                self._keep(address)

    def _on_table(self, body: bytes, now: float) -> None:
        if self._core.table is not None and Table.peek(body) <= self._core.table.version:
            return
        table = Table.decode(body)
        self._partitions = len(table)
        self._core.on_table(table, now)
        self._has_table.set()

    def _dial(self, peer: bytes | str, work: Coroutine[Any, Any, None]) -> None:
        task = self._dialing[peer] = self._loop.create_task(work)

        def ended(task: asyncio.Task[None]) -> None:
            # Whatever it ended of: an entry that stays would mean that this peer is never dialed again.
            if self._dialing.get(peer) is task:
                del self._dialing[peer]
            if not task.cancelled() and task.exception() is not None:
                log.error("connecting to %r failed", peer, exc_info=task.exception())

        task.add_done_callback(ended)

    async def _reach(self, row: HandlerRow) -> None:
        """Keep trying to reach a handler process until it is there, or no table names it any more."""
        delay = _RECONNECT_S
        await self._not_at_once(row.nonce)
        while (conn := await self._try_row(row)) is None:
            await asyncio.sleep(delay)
            delay = min(_MAX_RECONNECT_S, delay * 2)
        self._dialing.pop(row.nonce, None)
        self._links[row.nonce] = conn
        if conn.is_closed:
            self.on_closed(conn, "closed while connecting")
            return
        self._core.on_up(row.nonce, clock.now())
        self._arm()

    async def _try_row(self, row: HandlerRow) -> Connection | None:
        try:
            conn, welcome = await dial(row.address, self, self._hello(), timeout_s=_DIAL_S)
        except MeshError as error:
            log.debug("%s at %s: %s", row.id, row.address, error)
            return None
        except Exception:  # an address that is none, out of a redirect or a table
            log.exception("%s at %s was not reached", row.id, row.address)
            return None
        if welcome.nonce == row.nonce:
            return conn
        log.debug("%s at %s: another process has its port", row.id, row.address)
        conn.close()
        return None

    def _keep(self, address: str) -> None:
        if address not in self._dialing and not self._closed:
            self._dial(address, self._reach_endpoint(address))

    async def _reach_endpoint(self, address: str) -> None:
        """Keep a connection to an endpoint, for the tables that it pushes."""
        delay = _RECONNECT_S
        await self._not_at_once(address)
        while (conn := await self._try_endpoint(address)) is None:
            await asyncio.sleep(delay)
            delay = min(_MAX_RECONNECT_S, delay * 2)
        self._dialing.pop(address, None)
        self._bootstrap[address] = conn
        if conn.is_closed:
            self.on_closed(conn, "closed while connecting")

    async def _try_endpoint(self, address: str) -> Connection | None:
        try:
            conn, _ = await dial(address, self, self._hello(), timeout_s=_DIAL_S)
        except MeshError as error:
            self._refused = error
            if isinstance(error, AuthenticationError):
                self._has_table.set()
            return None
        except Exception:
            log.exception("%s was not reached", address)
            return None
        return conn

    async def _not_at_once(self, peer: bytes | str) -> None:
        """A peer that welcomes and then hangs up, again and again, is not dialed in a tight loop."""
        if clock.now() - self._connected_at.get(peer, -_MAX_RECONNECT_S) < _MAX_RECONNECT_S:
            await asyncio.sleep(_RECONNECT_S)
        self._connected_at[peer] = clock.now()

    def _hello(self) -> Hello:
        return Hello(self._mesh, "client", self._token)

    def _arm(self) -> None:
        """One timer, whatever the number of calls."""
        due = self._core.next_timer()
        if due is None or (self._timer is not None and self._timer_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_later(max(0.0, due - clock.now()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._core.on_timer(clock.now())
        self._arm()


class Entity:
    """One key of one entity; its methods are the entity's commands and queries."""

    def __init__(
        self, client: AsyncClient, spec: EntitySpec, key: str | bytes, timeout: float
    ) -> None:
        self._client = client
        self._spec = spec
        self._key = key
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<{self._spec.name} {self._key!r}>"

    def with_options(self, *, timeout: float) -> Entity:
        """The same key, with other options for its calls."""
        return Entity(self._client, self._spec, self._key, timeout)

    def __getattr__(self, name: str) -> Any:
        method = self._spec.methods.get(name)
        if method is None:
            raise AttributeError(
                f"{self._spec.name} has no method {name!r}; it has {sorted(self._spec.methods)}"
            )
        ref = MethodRef(self._spec.cls, method)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._client.call(ref, self._key, *args, timeout=self._timeout, **kwargs)

        return call


def _settle(future: asyncio.Future[Result]) -> Any:
    def done(result: Result) -> None:
        if not future.done():
            future.set_result(result)

    return done


async def connect(
    *endpoints: str, token: str = "", mesh: str = "", timeout: float = DEFAULT_TIMEOUT_S
) -> AsyncClient:
    """Connect to a mesh.

    Args:
        endpoints: "host:port" of supervisors or handlers; also several in one string, with commas.
        token: the mesh's secret, where it has one.
        mesh: refuse to connect to a mesh of another name.
        timeout: seconds until a table has to be there.

    Raises:
        Unavailable: no endpoint answered.
        AuthenticationError: the token is wrong.
        BadRequest: an endpoint is not "host:port".
    """
    addresses = [a.strip() for e in endpoints for a in e.split(",") if a.strip()]
    if not addresses:
        raise BadRequest('name at least one endpoint, such as "127.0.0.1:7400"')
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise BadRequest(f'endpoint {address!r} is not "host:port"')
    client = AsyncClient(addresses, token=token, mesh=mesh)
    try:
        await client.start(timeout)
    except BaseException:
        # Cancelled, too: nobody has it, so nobody else would ever close it.
        await client.close()
        raise
    return client


__all__ = ["AsyncClient", "Call", "Entity", "connect"]
