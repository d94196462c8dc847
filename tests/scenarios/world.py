"""One client, handlers, a leader by hand and a store in memory: each packet moves when the test says so."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgpack
from unit.rigs import PARTITIONS, Handler, Leader

from mesh.core.call import Call, Result
from mesh.core.calling import ClientCore
from mesh.core.keyspace import partition_of
from mesh.core.outbox import Batch
from mesh.core.table import HandlerRow
from mesh.core.wire import unpack_reply, unpack_request
from mesh.store.memory import MemoryServer


class Link:
    """A connection from the client to a handler; what is on its way waits here."""

    def __init__(self) -> None:
        self.requests: deque[bytes] = deque()
        self.replies: deque[bytes] = deque()

    def send(self, frame: bytes) -> None:
        self.replies.append(frame)

    def flush(self) -> None: ...


class World:
    """Handlers o1 and o2; o1 owns everything, o2 is enrolled and owns nothing."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.leader = Leader(self.server)
        self.leader.open_life()
        self.links: dict[bytes, Link] = {}
        self.client = ClientCore(7, self)
        self.now = 100.0
        self.o1, self.o2 = (Handler(self.server, nonce) for nonce in (b"o1", b"o2"))
        everything = dict.fromkeys(range(PARTITIONS), b"o1")
        self.leader.takeover(everything, enroll=[b"o1", b"o2"])
        self.tell(self.o1, self.o2)
        self.publish()
        self.link(self.o1, self.o2)

    # ------------------------------------------------- what the client core asks for

    def send(self, nonce: bytes, frame: bytes) -> None:
        self.links[nonce].requests.append(frame)

    def connect(self, row: HandlerRow) -> None: ...

    def disconnect(self, nonce: bytes) -> None:
        self.links.pop(nonce, None)

    # ------------------------------------------------------------------- events

    def tell(self, *handlers: Handler) -> None:
        """The leader's grants arrive."""
        for handler in handlers:
            handler.core.on_grant(self.leader.grant(handler.nonce), self.now)

    def publish(self, *to: Handler) -> None:
        """The table arrives at the client and at these handlers (all, if none is named)."""
        table = self.leader.table()
        for handler in to or (self.o1, self.o2):
            handler.core.on_table(table, self.now)
        if not to:
            self.client.on_table(table, self.now)

    def link(self, *handlers: Handler) -> None:
        """The client has a connection to these."""
        for handler in handlers:
            self.links[handler.nonce] = Link()
            self.client.on_up(handler.nonce, self.now)

    def cut(self, handler: Handler) -> None:
        """The connection breaks; what was on its way to either side is lost."""
        self.links.pop(handler.nonce, None)
        self.client.on_down(handler.nonce, self.now)

    def call(self, method: str, key: str, *args: Any) -> tuple[Call, list[Result]]:
        """The application calls; its request is on its way."""
        ended: list[Result] = []
        payload = msgpack.packb([method, key.encode(), list(args)])
        partition = partition_of(key.encode(), PARTITIONS)
        return self.client.call(partition, payload, 10.0, self.now, ended.append), ended

    def arrive(self, handler: Handler) -> bytes:
        """The next request reaches the handler; its bytes, for whoever wants to delay a copy."""
        link = self.links[handler.nonce]
        frame = link.requests.popleft()
        handler.core.on_request(link, unpack_request(frame[8:]), self.now)
        return frame

    def answer(self, handler: Handler) -> None:
        """Everything that the handler has answered reaches the client."""
        link = self.links.get(handler.nonce)
        while link is not None and link.replies:
            counter, status, payload = unpack_reply(link.replies.popleft()[8:])
            self.client.on_reply(handler.nonce, counter, status, payload, self.now)

    def batch(self, handler: Handler) -> Batch:
        """What the handler sends to the store next; it may take its time to get there."""
        handler.load()
        batch = handler.send()
        assert batch is not None
        return batch

    def take_over(self, *, revoke: bool = True) -> None:
        """The leader's one call: everything that o1 had is o2's. Nobody is told yet."""
        moves = dict.fromkeys(range(PARTITIONS), b"o2")
        reply = self.leader.takeover(moves, revoke=[b"o1"] if revoke else [])
        assert reply.acknowledged

    def settle(self, *handlers: Handler) -> None:
        """These handlers take, load, commit and answer all that there is for them."""
        for _ in range(10):
            self.now += 0.05
            self.client.on_timer(self.now)
            for handler in handlers:
                handler.now = self.now
                while handler.nonce in self.links and self.links[handler.nonce].requests:
                    self.arrive(handler)
                handler.flush()
                self.answer(handler)

    def value(self, handler: Handler, key: str) -> Any:
        """What a query at that handler shows, asked without the client."""
        caller = handler.call("KV.get", key, session=99)
        handler.load()
        return caller.answer.value if caller.answer else None
