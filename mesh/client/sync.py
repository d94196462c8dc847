"""The blocking client: an AsyncClient on a loop thread of its own, for any number of threads.

Nothing is decided twice: a call is checked and written down in its caller's thread (what the caller changes
later does no harm), handed to the loop, and takes the async client's way from there. No task is made
for it. Its caller waits on a `concurrent.futures.Future`, which is also what `submit` returns.

What a thread may meet at any moment, and what then holds:

    close()             every call that was submitted before is begun before, and so ended by it, once
    KeyboardInterrupt   ends the wait and withdraws the call; the client does not notice
    the loop's thread   (a callback of a future) may submit; to wait there would be for ever, and is refused
    fork                in the child every call, and every wait for an earlier one, is refused
    exit                connections are closed and the thread ends; threads that still wait are left to wait
"""

from __future__ import annotations

import atexit
import threading
import warnings
import weakref
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from mesh.client import forks
from mesh.client.aio import CLOSED, AsyncClient, open_client
from mesh.client.calls_blocking import BlockingCalls
from mesh.client.endpoints import locate
from mesh.client.keys import Paging
from mesh.client.loop_thread import LoopThread
from mesh.client.prepared import DEFAULT_TIMEOUT_S, Prepared
from mesh.client.stats import ClientStats
from mesh.core.call import Call, Result
from mesh.core.payload import Meta
from mesh.core.table import Table
from mesh.entities import MethodRef
from mesh.errors import BadRequest, OutcomeUnknown, Unavailable

E = TypeVar("E")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Client(BlockingCalls):
    """Calls entities by key and waits for their replies; any number of threads may share it.

    Close it, or use it as a context manager.

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

    def __init__(
        self,
        *endpoints: str,
        token: str | None = None,
        mesh: str = "",
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        target = locate(endpoints, token, mesh)
        self._lock = threading.RLock()
        self._closing: Future[None] | None = None
        self._inherited = False
        """This is the copy of a client in a forked child."""
        self._leaving = False
        """The interpreter is about to exit."""
        self._thread = LoopThread(f"mesh-client {','.join(target.addresses)}")
        try:
            self._client = _outcome(self._thread.run(open_client(target, timeout)))
        except BaseException:
            # Interrupted, too: what has begun by then is cancelled with the loop.
            self._thread.stop()
            self._thread.join()
            raise
        self._unclosed = weakref.finalize(self, _forgotten, self._thread, self._client)
        self._unclosed.atexit = False
        _living.add(self)
        forks.watch(self)

    def __repr__(self) -> str:
        return repr(self._client).replace("AsyncClient", "Client", 1)

    def _call(
        self,
        method: MethodRef[..., Any] | str,
        key: str | bytes,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        timeout: float,
        meta: Meta,
        priority: int | None = None,
    ) -> Any:
        self._refuse_own_thread("call()")
        return _outcome(self._submit(method, key, args, kwargs, timeout, meta, priority))

    def _submit(
        self,
        method: MethodRef[..., Any] | str,
        key: str | bytes,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        timeout: float,
        meta: Meta,
        priority: int | None = None,
    ) -> Future[Any]:
        return self._post(self._client._prepare(method, key, args, kwargs, timeout, meta, priority))

    def _list(self, paging: Paging, timeout: float) -> None:
        self._refuse_own_thread("keys()")
        paging.take(_outcome(self._post(self._client._prepare_page(paging, timeout))))

    def _paging(
        self, entity: type[Any] | str, prefix: str | bytes, cursor: str, limit: int
    ) -> Paging:
        return self._client._paging(entity, prefix, cursor, limit)

    def _time(self) -> float:
        return self._client._time()

    def _post(self, prepared: Prepared) -> Future[Any]:
        future = CallFuture(self)
        with self._lock:
            if self._closing is None:
                self._thread.post(self._begin, future, prepared)
                return future
        if self._leaving and threading.current_thread() is not threading.main_thread():
            return future  # which nothing settles: this thread ends with the process, quietly
        raise Unavailable(CLOSED, idempotency_key=prepared.idempotency_key)

    def stats(self) -> ClientStats:
        """What became of the calls so far."""
        with self._lock:
            if self._closing is not None or self._inherited or self._thread.is_current:
                return self._client.stats()
            taking: Future[ClientStats] = Future()
            # Between two calls, not in the middle of one: or the numbers would not add up.
            self._thread.post(lambda: taking.set_result(self._client.stats()))
        return taking.result()

    @property
    def table(self) -> Table | None:
        """The newest table that this client has heard of."""
        return self._client.table

    def close(self) -> None:
        """End every call, each with what is known of it, every connection, and the thread.

        Raises:
            BadRequest: called by a callback, on the thread that it would have to wait for.
        """
        if self._inherited:
            return
        self._refuse_own_thread("close()")
        # Behind everything that was submitted: the loop takes it in order.
        self._end(self._client.close)

    def leave(self) -> None:
        """The interpreter exits: end connections and thread in order, and startle nobody who still waits."""
        if not self._inherited:
            self._leaving = True
            self._end(self._client.leave)

    def _end(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with self._lock:
            if self._closing is None:
                self._closing = self._thread.run(work())
        self._closing.result()
        self._unclosed.detach()
        self._thread.stop()
        self._thread.join()

    def _refuse_own_thread(self, what: str) -> None:
        if self._thread.is_current:
            raise BadRequest(
                f"{what} would wait for ever: this is the client's own thread, on which the callbacks of "
                f"its futures run; use submit() here, or call from another thread"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def orphan(self) -> list[int]:
        """See Forkable; the descriptors are the async client's to tell."""
        self._inherited = True
        self._lock = threading.RLock()  # whoever held it is not here
        self._unclosed.detach()
        return []

    # ------------------------------------------------------- what its futures ask for

    def recall(self, future: CallFuture) -> None:
        """It was cancelled: so is its call."""
        with self._lock:
            if self._closing is None and not self._inherited:
                self._thread.post(self._withdraw, future)

    def refuse_to_hang(self, future: CallFuture) -> None:
        """A wait that nothing could end is an error."""
        if self._inherited and not future.done():
            raise OutcomeUnknown(
                "the call was begun before this process was forked off; its parent knows"
            )
        if self._thread.is_current and not future.done():
            self._refuse_own_thread("waiting for a call")

    # ------------------------------------------------------- on the loop's thread

    def _begin(self, future: CallFuture, prepared: Prepared) -> None:
        if future.cancelled():
            self._client._tally.started += 1
            self._client._tally.cancelled += 1
            future.set_running_or_notify_cancel()
            return
        future.begun = self._client._begin(prepared, partial(self._finish, future, prepared))

    def _finish(self, future: CallFuture, prepared: Prepared, result: Result) -> None:
        if not future.set_running_or_notify_cancel():
            self._client._tally.cancelled += 1
            return
        try:
            value = self._client._value(prepared, result)
        except Exception as error:  # noqa: BLE001 - whatever it is, a thread waits to hear of it
            future.set_exception(error)
        else:
            future.set_result(value)

    def _withdraw(self, future: CallFuture) -> None:
        call = future.begun
        if call is not None and not call.settled:
            self._client._cancel(call)
            future.set_running_or_notify_cancel()  # tells those in wait() and as_completed()


class CallFuture(Future[Any]):
    """The end of a call that was submitted. Cancelling it ends the call."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client = client  # which nobody may forget as long as somebody waits
        self.begun: Call | None = None

    def cancel(self) -> bool:
        """Stop waiting; what was sent may still be carried out. False if it has ended."""
        cancelled = super().cancel()
        if cancelled:
            self._client.recall(self)
        return cancelled

    def result(self, timeout: float | None = None) -> Any:
        """The reply, waiting for it for `timeout` seconds; raises what `Client.call` raises."""
        self._client.refuse_to_hang(self)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error that it ended in, None for a reply."""
        self._client.refuse_to_hang(self)
        return super().exception(timeout)


def _outcome(future: Future[T]) -> T:
    """Wait for it; its error is raised from here, since the loop's frames say nothing to the caller."""
    try:
        error = future.exception()
    except BaseException:
        future.cancel()  # KeyboardInterrupt: nobody waits for it any more
        raise
    if error is None:
        return future.result()
    try:
        raise error.with_traceback(None)
    finally:
        del error, future  # or they would hold each other, by way of the traceback


def _forgotten(thread: LoopThread, client: AsyncClient) -> None:
    """Nobody can close it any more, so it is closed; wherever the collector runs, nothing is waited for."""
    warnings.warn(f"unclosed {client!r} of a mesh.Client", ResourceWarning, stacklevel=1)

    async def end() -> None:
        await client.close()
        thread.stop()

    thread.run(end())


_living: weakref.WeakSet[Client] = weakref.WeakSet()


@atexit.register
def _leave() -> None:
    for client in list(_living):
        client.leave()
