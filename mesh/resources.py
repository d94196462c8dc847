"""The hooks of a handler's entities, called: at its start, at its end, and to see whether all is well.

A check that does not answer in time has failed, and is not asked again before it answers: a database
that hangs would else collect threads. on_stop has a limit too, for the same reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from mesh.entities import EntitySpec
from mesh.errors import SetupError
from mesh.hooks import Check, Hook
from mesh.threads import Threads

log = logging.getLogger("mesh.resources")

OK = "ok"
_STOP_S = 5.0
_MAX_REASON = 500


class Resources:
    """Those of one handler process.

    Args:
        specs: of the entities that it serves.
        held: where each entity's are, by its name.
        health_s: between two health checks, and the time that one may take.

    Attributes:
        health: "ok", or what fails.
    """

    def __init__(
        self, specs: Iterable[EntitySpec], held: dict[str, dict[str, Any]], health_s: float
    ) -> None:
        self.health = OK
        self._specs = list(specs)
        self._held = held
        self._health_s = health_s
        self._started: list[EntitySpec] = []
        self._checks = [(spec.name, check) for spec in self._specs for check in spec.hooks.checks]
        self._asked: dict[str, asyncio.Future[Any]] = {}
        self._threads = Threads("health check")

    def __repr__(self) -> str:
        return f"Resources({[spec.name for spec in self._started]}, health {self.health})"

    def of(self, entity: str) -> dict[str, Any]:
        """That entity's."""
        return self._held.setdefault(entity, {})

    async def start(self) -> None:
        """Call each entity's on_start, one after the other.

        Raises:
            SetupError: one of them failed; those that had started are stopped again.
        """
        for spec in self._specs:
            try:
                self._started.append(spec)
                await _call(spec.hooks.on_start, self.of(spec.name))
            except Exception as error:
                self._started.remove(spec)
                await self.stop()
                raise SetupError(
                    f"on_start of {spec.name} failed, so this handler does not start: "
                    f"{type(error).__name__}: {error}"
                ) from error

    def abandon(self) -> None:
        """Call no on_stop of those that were started."""
        self._started.clear()

    async def stop(self) -> None:
        """Call on_stop of those that were started, the last one first; whatever fails is logged."""
        for asked in self._asked.values():
            asked.cancel()
        while self._started:
            spec = self._started.pop()
            try:
                async with asyncio.timeout(_STOP_S):
                    await _call(spec.hooks.on_stop, self.of(spec.name))
            except TimeoutError:
                log.warning("on_stop of %s did not end within %g s", spec.name, _STOP_S)
            except Exception:
                log.exception("on_stop of %s failed", spec.name)
        self._threads.close()

    @property
    def has_checks(self) -> bool:
        """There is something to watch."""
        return bool(self._checks)

    async def watch(self) -> None:
        """Check again and again; a change is logged once."""
        while True:
            verdict = await self.check()
            if verdict != self.health:
                if verdict == OK:
                    log.info("health checks are well again")
                else:
                    log.warning("health: %s", verdict)
                self.health = verdict
            await asyncio.sleep(self._health_s)

    async def check(self) -> str:
        """Ask all checks at once: "ok", or what fails."""
        for entity, check in self._checks:
            asked = self._asked.get(check.name)
            if asked is None or asked.done():
                self._asked[check.name] = self._ask(check, self.of(entity))
        await asyncio.wait(self._asked.values(), timeout=self._health_s)
        reasons = [self._judge(check) for _, check in self._checks]
        return "; ".join(filter(None, reasons))[:_MAX_REASON] or OK

    def _ask(self, check: Check, resources: dict[str, Any]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        if check.is_async:
            return loop.create_task(check.hook(resources), name=check.name)
        asked: asyncio.Future[Any] = loop.create_future()

        def tell(result: Any, error: BaseException | None) -> None:
            if asked.done():
                return
            if error is None:
                asked.set_result(result)
            else:
                asked.set_exception(error)

        def answer(result: Any, error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it
                loop.call_soon_threadsafe(tell, result, error)

        def work() -> Callable[[], None]:
            result, error = None, None
            try:
                result = check.hook(resources)
            except BaseException as raised:  # noqa: BLE001 - whatever it raises is the answer
                error = raised
            return partial(answer, result, error)

        self._threads.submit(work)
        return asked

    def _judge(self, check: Check) -> str:
        asked = self._asked[check.name]
        if not asked.done():
            if check.is_async:
                asked.cancel()
            return f"{check.name} has not answered within {self._health_s:g} s"
        if asked.cancelled():
            return f"{check.name} was cancelled"
        error = asked.exception()
        if error is not None:
            return f"{check.name}: {type(error).__name__}: {error}"
        return f"{check.name} returned False" if asked.result() is False else ""


async def _call(hook: Hook | None, resources: dict[str, Any]) -> None:
    if hook is not None:
        result = hook(resources)
        if inspect.isawaitable(result):
            await result
