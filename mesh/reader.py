"""What a handler reads from the store: keys that calls wait for, pages of listings, partitions to warm up.

Three loops, each with at most one read under way. Warming up yields to calls. What to read, and what becomes
of it, is the core's matter (mesh.core.reading, mesh.core.listing).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from mesh.core.handling import HandlerCore
from mesh.core.reading import MOST_SWEPT
from mesh.core.records import StoreStatus
from mesh.core.tenure import Tenure
from mesh.net.clock import Clock
from mesh.store.api import Store, StoreRefused, StoreUnreachable

log = logging.getLogger("mesh.node")

_RETRY_S = 0.02
_MAX_RETRY_S = 0.1
"""Between two attempts: calls wait, and a store that has failed over is to be used as soon as it can be."""
_WARM_RETRY_S = 0.5
_UNTIL_A_GRANT = (StoreStatus.CLOSED, StoreStatus.OLDER)
"""The store says so until a leader has told of another grant."""
_WARM_PAUSE_S = 0.002
_WARM_AFTER_S = 0.05


class Reader:
    """Of one handler process.

    Args:
        core: what wants to read, and hears of it.
        store: its access.
        clock: what deadlines are told by.
        wake: called once the core has heard something.
    """

    def __init__(
        self, core: HandlerCore, store: Store, clock: Clock, wake: Callable[[], None]
    ) -> None:
        self._core = core
        self._store = store
        self._clock = clock
        self._wake = wake
        self._reads = asyncio.Event()
        self._lists = asyncio.Event()
        self._warm = asyncio.Event()

    def __repr__(self) -> str:
        return f"Reader({self._core!r})"

    def loops(self) -> Iterable[tuple[str, Coroutine[Any, Any, None]]]:
        """What reads, by a name for people; never over."""
        return [
            ("reads", self._run_reads()),
            ("listings", self._run_listings()),
            ("warm-up", self._run_warm_up()),
        ]

    def look(self) -> None:
        """Something may be wanted."""
        if self._core.has_wants:
            self._reads.set()
        if self._core.has_listings:
            self._lists.set()

    def on_grant(self) -> None:
        """Partitions may have come, to be read ahead once the calls that came with them are answered."""
        asyncio.get_running_loop().call_later(_WARM_AFTER_S, self._warm.set)

    async def _run_reads(self) -> None:
        delay = _RETRY_S
        while True:
            await self._reads.wait()
            self._reads.clear()
            loads = self._core.take_wants()
            if not loads:
                continue
            reply = None
            try:
                reply = await self._store.load(self._core.grant, [load.want for load in loads])
                delay = _RETRY_S
            except (StoreUnreachable, StoreRefused) as error:
                log.warning("store cannot be read, %d keys wait: %s", len(loads), error)
            self._core.on_load(loads, reply, self._clock.now())
            if reply is None or not reply.values:
                await asyncio.sleep(delay)
                delay = min(_MAX_RETRY_S, delay * 2)
            self._wake()

    async def _run_listings(self) -> None:
        delay = _RETRY_S
        while True:
            listing = self._core.next_listing()
            if listing is None:
                self._lists.clear()
                await self._lists.wait()
                continue
            tenure = listing.pending.tenure
            try:
                reply = await self._store.scan(
                    self._core.grant, tenure.partition, tenure.epoch, listing.cursor
                )
                self._core.on_listed(listing, reply)
                is_read = reply.status is StoreStatus.OK
            except (StoreUnreachable, StoreRefused) as error:
                log.warning("store cannot be read, a listing waits: %s", error)
                is_read = False
            self._wake()
            if is_read:
                delay = _RETRY_S
            else:
                await asyncio.sleep(delay)
                delay = min(_MAX_RETRY_S, delay * 2)

    async def _run_warm_up(self) -> None:
        while True:
            if self._core.is_behind:
                await asyncio.sleep(_WARM_AFTER_S)
                continue
            if tenures := self._core.next_sweep():
                await self._sweep(tenures)
                continue
            tenure = self._core.next_scan()
            if tenure is None:
                self._warm.clear()
                await self._warm.wait()
                continue
            try:
                reply = await self._store.scan(
                    self._core.grant, tenure.partition, tenure.epoch, tenure.cursor
                )
                self._core.on_scan(tenure, reply, self._clock.now())
                pause = _WARM_PAUSE_S if reply.pairs or not reply.cursor else 0
                if reply.status in _UNTIL_A_GRANT:
                    pause = _WARM_RETRY_S
            except (StoreUnreachable, StoreRefused) as error:
                log.debug("warm-up waits: %s", error)
                pause = _WARM_RETRY_S
            self._wake()
            await asyncio.sleep(pause)

    async def _sweep(self, tenures: list[Tenure]) -> None:
        try:
            held = [(tenure.partition, tenure.epoch) for tenure in tenures]
            reply = await self._store.sweep(self._core.grant, held)
            self._core.on_sweep(tenures, reply, self._clock.now())
        except (StoreUnreachable, StoreRefused) as error:
            log.debug("not swept: %s", error)
        self._wake()
        if len(tenures) == MOST_SWEPT:
            await asyncio.sleep(_WARM_PAUSE_S)
            return
        # What is large is read in pages, and not while calls are coming back from a takeover.
        self._warm.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WARM_AFTER_S):
                await self._warm.wait()
