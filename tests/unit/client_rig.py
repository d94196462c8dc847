"""A ClientCore with recording ports and a clock moved by hand."""

from __future__ import annotations

from typing import Any

import msgpack
from unit.rigs import row

from mesh.core.call import Call, Result
from mesh.core.calling import ClientCore
from mesh.core.epochs import epoch_of
from mesh.core.messages import Message, unpack_message
from mesh.core.table import HandlerRow, Table, TableVersion
from mesh.core.wire import FrameReader, Kind, Redirect, Request, Status, unpack_request

A, B, C = b"h-1", b"h-2", b"h-3"


def epoch(number: int) -> int:
    return epoch_of(1, number)


class Client:
    """Ports and core in one; `open` has the calls that are in flight, by connection."""

    def __init__(self) -> None:
        self.core = ClientCore(7, self)
        self.now = 50.0
        self.number = 0
        self.sent: list[tuple[bytes, Request]] = []
        self.said: list[tuple[bytes, Message]] = []
        self.connecting: dict[bytes, HandlerRow] = {}
        self.disconnected: list[bytes] = []
        self.results: dict[int, list[Result]] = {}

    def send(self, nonce: bytes, frame: bytes) -> None:
        [(kind, body)] = FrameReader().feed(frame)
        if kind == Kind.CONTROL:
            self.said.append((nonce, unpack_message(body)))
        else:
            self.sent.append((nonce, unpack_request(body)))

    def connect(self, row: HandlerRow) -> None:
        self.connecting[row.nonce] = row

    def disconnect(self, nonce: bytes) -> None:
        self.connecting.pop(nonce, None)
        self.disconnected.append(nonce)

    def table(self, *owners: tuple[bytes, int], handlers: tuple[bytes, ...] = ()) -> None:
        """The next version of the table: for each partition its owner and epoch number."""
        self.number += 1
        nonces = list(dict.fromkeys([*handlers, *(nonce for nonce, _ in owners)]))
        table = Table(
            TableVersion(1, 1, self.number),
            map(row, nonces),
            [nonces.index(nonce) for nonce, _ in owners],
            [epoch(number) for _, number in owners],
        )
        self.core.on_table(table, self.now)

    def up(self, *nonces: bytes) -> None:
        for nonce in nonces:
            self.core.on_up(nonce, self.now)

    def down(self, nonce: bytes) -> None:
        self.core.on_down(nonce, self.now)

    def call(self, partition: int = 0, timeout_s: float = 10.0, **options: Any) -> Call:
        results: list[Result] = []
        end = results.append
        call = self.core.call(partition, b"payload", timeout_s, self.now, end, **options)
        self.results[call.counter] = results
        return call

    def result(self, call: Call) -> Result | None:
        """How the call ended, None so far; twice is a mistake."""
        results = self.results[call.counter]
        assert len(results) <= 1, results
        return results[0] if results else None

    def error(self, call: Call) -> Any:
        result = self.result(call)
        return result.error if result else None

    def last(self) -> tuple[bytes, Request]:
        return self.sent[-1]

    def where(self) -> list[bytes]:
        """To whom each frame went."""
        return [nonce for nonce, _ in self.sent]

    def reply(self, call: Call, status: Status, value: Any = None, nonce: bytes | None = None):
        """A handler's answer, by default from where the call is in flight."""
        payload = value.encode() if isinstance(value, Redirect) else msgpack.packb(value)
        self.core.on_reply(nonce or call.conn, call.counter, status, payload, self.now)

    def redirect(self, call: Call, to: bytes, number: int, nonce: bytes | None = None) -> None:
        r = row(to)
        where = Redirect(call.partition, epoch(number), r.id, to, r.host, r.port)
        self.reply(call, Status.REDIRECT, where, nonce)

    def later(self, seconds: float) -> None:
        """Time passes; the timer goes off whenever the core asked for it."""
        until = self.now + seconds
        while (due := self.core.next_timer()) is not None and due <= until:
            self.now = max(self.now, due)
            self.core.on_timer(self.now)
        self.now = until
