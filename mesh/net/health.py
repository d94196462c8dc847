"""/healthz and /readyz, for load balancers and Kubernetes: a port of its own that answers GET, nothing else.

    GET /healthz    200 as long as the loop turns: a loop that hangs does not answer, which is the answer
    GET /readyz     200 if calls may be sent here, else 503 and why

It knows nothing of the mesh, gives nothing away but one line, and reads no more than a request's head; so it
needs no token. A liveness probe should be patient: the mesh itself notices a hang within a second, and a pod
that is restarted because its machine was busy makes that worse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus

from mesh.errors import SetupError

Check = Callable[[], str]
"""What is wrong; empty for nothing. Asked on the loop at each request."""

_MOST_BYTES = 8192
_MOST_PEERS = 64
_PATIENCE_S = 5.0
_END = b"\r\n\r\n"


class HealthPort:
    """A listening socket that tells how its process is.

    Args:
        checks: by path.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._server: asyncio.Server | None = None
        self._peers: dict[_Peer, None] = {}
        self.port = 0

    def __repr__(self) -> str:
        return f"HealthPort(port {self.port})"

    async def open(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one.

        Raises:
            SetupError: the address is taken, or not this machine's.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._accept, host, port)
        except OSError as error:
            raise SetupError(
                f"cannot tell of this process's health on {host}:{port}: {error.strerror or error}; "
                f"choose another health_port, or 0 for a free one"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
        for peer in list(self._peers):
            peer.end()
        await asyncio.sleep(0)

    def _accept(self) -> _Peer:
        while len(self._peers) >= _MOST_PEERS:
            next(iter(self._peers)).end()
        peer = _Peer(self._answer, self._forget)
        self._peers[peer] = None
        return peer

    def _forget(self, peer: _Peer) -> None:
        self._peers.pop(peer, None)

    def _answer(self, head: bytes) -> bytes:
        line, _, _ = head.partition(b"\r\n")
        method, _, rest = line.partition(b" ")
        target, _, version = rest.partition(b" ")
        if not version.startswith(b"HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST, "this port speaks HTTP/1.1")
        if method not in (b"GET", b"HEAD"):
            return _response(
                HTTPStatus.METHOD_NOT_ALLOWED, "GET only", extra="Allow: GET, HEAD\r\n"
            )
        path = target.partition(b"?")[0].decode("ascii", errors="replace")
        check = self._checks.get(path)
        if check is None:
            known = " and ".join(sorted(self._checks))
            return _response(HTTPStatus.NOT_FOUND, f"there is {known}")
        wrong = check()
        status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
        return _response(status, wrong or "ok", with_body=method == b"GET")


class _Peer(asyncio.Protocol):
    """One connection, of one request."""

    def __init__(self, answer: Callable[[bytes], bytes], forget: Callable[[_Peer], None]) -> None:
        self._answer = answer
        self._forget = forget
        self._head = bytearray()
        self._transport: asyncio.Transport | None = None
        self._patience = asyncio.get_running_loop().call_later(_PATIENCE_S, self.end)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # uvloop's are no subclasses of asyncio's

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._head += data
        if _END in self._head:
            self._transport.write(self._answer(bytes(self._head)))
            self._transport.close()
        elif len(self._head) > _MOST_BYTES:
            wrong = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._transport.write(_response(wrong, f"at most {_MOST_BYTES} bytes"))
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.cancel()
        self._forget(self)

    def end(self) -> None:
        """Whoever is there has taken too long, or this process ends."""
        self._patience.cancel()
        self._forget(self)
        if self._transport is not None:
            self._transport.abort()


def _response(status: HTTPStatus, text: str, *, extra: str = "", with_body: bool = True) -> bytes:
    body = (text + "\n").encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Cache-Control: no-store\r\n"
        f"{extra}Connection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
