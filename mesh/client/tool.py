"""Asking a supervisor: what the command line and the benchmarks know of a running mesh.

Any supervisor will do: a standby passes questions on to the leader, and has its events. So what is given here
is the mesh's endpoints, and the first that answers is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

from mesh.core.messages import Answer, Ask, Hello, unpack_message
from mesh.core.wire import Kind
from mesh.errors import Unavailable
from mesh.net.connection import Connection
from mesh.net.dial import dial

_AGAIN_S = 0.2


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
    async def open(cls, *addresses: str, token: str = "", timeout_s: float = 2.0) -> Tool:
        """Connect to the first of these that answers.

        Args:
            addresses: "host:port" of supervisors.
            timeout_s: seconds that each has for it.

        Raises:
            Unavailable: nothing answers there.
            AuthenticationError: the token is wrong.
        """
        errors: list[Unavailable] = []
        for address in addresses:
            try:
                return await cls._open(address, token, timeout_s)
            except Unavailable as error:
                errors.append(error)
        raise errors[0] if len(errors) == 1 else Unavailable("; ".join(map(str, errors)))

    @classmethod
    async def _open(cls, address: str, token: str, timeout_s: float) -> Tool:
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

    def follow(self) -> AsyncGenerator[dict[str, Any], None]:
        """Events as they happen, from this call on; ends when the supervisor goes away."""
        assert self._conn is not None
        self._numbers += 1
        self._follows = self._numbers
        self._conn.send(Ask(self._follows, "follow", []).frame())
        return self._fed()

    async def _fed(self) -> AsyncGenerator[dict[str, Any], None]:
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


async def ask(addresses: Sequence[str], what: str, *, token: str = "") -> Any:
    """One question on a connection of its own, to the first of these that answers it.

    Args:
        addresses: "host:port" of supervisors.

    Raises:
        Unavailable: none of them does.
        AuthenticationError: the token is wrong.
    """
    errors: list[Unavailable] = []
    for address in addresses:
        try:
            tool = await Tool.open(address, token=token)
        except Unavailable as error:
            errors.append(error)
            continue
        try:
            return await tool.ask(what)
        except Unavailable as error:
            errors.append(error)
        finally:
            tool.close()
    raise errors[0] if len(errors) == 1 else Unavailable("; ".join(map(str, errors)))


async def follow(
    addresses: Sequence[str], *, token: str = "", tell: Callable[[str], None] = lambda _: None
) -> AsyncIterator[dict[str, Any]]:
    """Events as they happen, from whichever supervisor answers: a mesh serves without any, so this goes on.

    Args:
        addresses: "host:port" of supervisors.
        tell: gets a line when none answers, and one when one does again.

    Raises:
        AuthenticationError: the token is wrong.
    """
    known: set[int] = set()
    """Every event that was there when this began, or was told since."""
    is_first, is_lost = True, False
    while True:
        with contextlib.suppress(Unavailable):
            tool = await Tool.open(*addresses, token=token)
            try:
                feed = tool.follow()
                before = await tool.ask("events")
                if is_lost:
                    tell(f"the supervisor at {tool.address} answers")
                is_lost = False
                if is_first:
                    known.update(map(_name, before))
                    is_first = False
                async for event in _then(before, feed):
                    if (name := _name(event)) not in known:
                        known.add(name)
                        yield event
            finally:
                tool.close()
        if not is_lost:
            tell("the connection to the supervisors is lost; asking again and again")
        is_lost = True
        await asyncio.sleep(_AGAIN_S)


async def _then(
    first: list[dict[str, Any]], rest: AsyncIterator[dict[str, Any]]
) -> AsyncIterator[dict[str, Any]]:
    for event in first:
        yield event
    async for event in rest:
        yield event


def _name(event: dict[str, Any]) -> int:
    return hash(json.dumps(event, sort_keys=True))
