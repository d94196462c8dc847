"""A Sentinel's connections to whom it watches: commands with their answers, and messages of a channel."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from mesh.store.resp import pack

Answer = Callable[[Any], None]


class Outgoing(asyncio.Protocol):
    """One connection; opened anew when it is lost, not more than once a second.

    Args:
        target: (host, port).
        password: empty: none.
        greeting: commands sent at once when connected, their answers ignored.
        on_message: gets what arrives unasked for; None: nothing should.
        on_connected: called once it is open.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        target: tuple[str, int],
        *,
        password: str,
        greeting: bytes = b"",
        on_message: Answer | None = None,
        on_connected: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._target = target
        self._password = password
        self._greeting = greeting
        self._on_message = on_message
        self._on_connected = on_connected
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._answers: deque[Answer | None] = deque()
        self._tried_at = -1e9
        self._trying: asyncio.Task[None] | None = None
        self._ended = False

    @property
    def connected(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connect(self, period_s: float) -> bool:
        """Try, if there is no connection and the last try is a while ago; whether it was tried."""
        now = self._loop.time()
        if self.connected or self._ended or now - self._tried_at < period_s:
            return False
        if self._trying is not None:
            self._trying.cancel()
        self._tried_at = now
        self._trying = self._loop.create_task(self._connect())
        return True

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: self, *self._target)
        except OSError:
            pass  # it is down, which is what a Sentinel is there to notice
        finally:
            # The one that was given up for this one ends later: both would be connected, to one reader.
            if self._trying is asyncio.current_task():
                self._trying = None

    def send(self, command: bytes, answer: Answer | None = None) -> None:
        """Send one command; `answer` is called with its reply, if there is ever one."""
        if self._transport is not None and not self._transport.is_closing():
            self._answers.append(answer)
            self._transport.write(command)

    def end(self) -> None:
        """Close for good."""
        self._ended = True
        if self._trying is not None:
            self._trying.cancel()
        self.drop()

    def drop(self) -> None:
        """Close; a later `connect` opens it again."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._reader = hiredis.Reader()
        self._answers.clear()
        if self._ended:
            self._transport.abort()
            return
        if self._password:
            self.send(pack("AUTH", self._password))
        if self._greeting:
            self.send(self._greeting)
        if self._on_connected is not None:
            self._on_connected()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if self._answers:
                answer = self._answers.popleft()
                if answer is not None:
                    answer(reply)
            elif self._on_message is not None:
                self._on_message(reply)
