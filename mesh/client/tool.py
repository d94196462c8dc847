"""Asking a supervisor: what the command line and the benchmarks know of a running mesh."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from mesh.core.messages import Answer, Ask, Hello, unpack_message
from mesh.core.wire import Kind
from mesh.errors import Unavailable
from mesh.net.connection import Connection
from mesh.net.dial import dial


class Tool:
    """A connection to a supervisor for questions. Use `Tool.open`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._conn: Connection | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._feed: asyncio.Queue[Any] = asyncio.Queue()
        self._numbers = 0
        self._follows = 0

    @classmethod
    async def open(cls, address: str, *, token: str = "", timeout_s: float = 2.0) -> Tool:
        """Connect.

        Raises:
            Unavailable: nothing answers there.
        """
        tool = cls(address)
        tool._conn, welcome = await dial(
            address, tool, Hello("", "tool", token), timeout_s=timeout_s
        )
        if welcome.role != "supervisor":
            tool.close()
            raise Unavailable(f"{address} is {welcome.role} {welcome.id}, not a supervisor")
        return tool

    async def ask(self, what: str, *args: Any, timeout_s: float = 5.0) -> Any:
        """Put a question and wait for its answer.

        Raises:
            Unavailable: the supervisor went away, does not answer, or does not know the question.
        """
        assert self._conn is not None
        if self._conn.is_closed:
            raise Unavailable(f"the supervisor at {self.address} went away")
        self._numbers += 1
        number = self._numbers
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        self._conn.send(Ask(number, what, list(args)).frame())
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise Unavailable(
                f"{self.address} did not answer {what!r} within {timeout_s:g} s"
            ) from None
        finally:
            self._answers.pop(number, None)

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        """Events as they happen; ends when the supervisor goes away."""
        assert self._conn is not None
        self._numbers += 1
        self._follows = self._numbers
        self._conn.send(Ask(self._follows, "follow", []).frame())
        while (event := await self._feed.get()) is not None:
            yield event

    def close(self) -> None:
        """Close the connection."""
        if self._conn is not None:
            self._conn.close()

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        """See Receiver."""
        for kind, body in frames:
            message = unpack_message(body) if kind == Kind.CONTROL else None
            if not isinstance(message, Answer):
                continue
            value = json.loads(message.value) if message.value else None
            future = self._answers.get(message.number)
            if message.number == self._follows:
                self._feed.put_nowait(value)
            elif future is not None and not future.done():
                if message.error:
                    future.set_exception(Unavailable(f"{conn.peer}: {message.error}"))
                else:
                    future.set_result(value)

    def on_closed(self, conn: Connection, reason: str) -> None:
        """See Receiver."""
        self._feed.put_nowait(None)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(
                    Unavailable(f"the supervisor at {self.address} went away: {reason}")
                )


async def ask(address: str, what: str, *, token: str = "") -> Any:
    """One question on a connection of its own."""
    tool = await Tool.open(address, token=token)
    try:
        return await tool.ask(what)
    finally:
        tool.close()
